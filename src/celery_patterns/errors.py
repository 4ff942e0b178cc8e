"""Every error that the library raises, as one small tree.

::

    PatternsError
     ├─ PolicyError (TypeError)        a policy was declared wrongly; raised when it is declared
     │   └─ RuleError                  a routing rule was declared wrongly
     ├─ KeyArgumentError (TypeError)   an argument of a call cannot be part of its key
     ├─ StoreUnavailable               Redis cannot be reached, or refuses to write
     ├─ StoreVersionError              a record was written by a newer version of the library
     ├─ Refused                        not now; ``retry_after`` says when
     │   ├─ IdempotencyInProgress      the same key runs elsewhere
     │   └─ RunLapsed                  the run that held the key vanished, and a person must decide
     ├─ IdempotencyKeyReused           same key, other arguments
     ├─ ResultNotStored                the first run is recorded, its result is not
     ├─ DeferralExpired                a call was put off for longer than a day
     ├─ UnroutableQueue (QueueNotFound)  a rule names a queue that is not declared
     ├─ PriorityNotTranslated          a TaskPriority reached a broker that only takes numbers
     ├─ PoisonMessage                  a task has killed its worker too often to be run again
     └─ DeadLetterError                what was asked of a dead letter cannot be done
         └─ DeadLetterTooLarge         a message is larger than the store takes

    PatternsWarning (UserWarning)      legal, but not what a careful operator would run

Celery pickles exceptions, so each class hands all its arguments to ``Exception.__init__``.
"""

from __future__ import annotations

from celery.exceptions import QueueNotFound


class PatternsError(Exception):
    """The root of all errors of this library."""


class PolicyError(PatternsError, TypeError):
    """A policy was declared wrongly: the message names the value and the remedy."""


class RuleError(PolicyError):
    """A routing rule, or a router, was declared wrongly: the message names the value and the remedy."""


class KeyArgumentError(PatternsError, TypeError):
    """An argument of a call cannot be part of its key: the message names it."""


class StoreUnavailable(PatternsError):
    """The store cannot be reached in time, or refuses to write."""


class StoreVersionError(PatternsError):
    """A record was written by a newer version of the library than this one."""


class Refused(PatternsError):
    """A call was refused for now.

    Args:
        message: Who refused, and why.
        retry_after: Seconds until it is worth asking again; ``None`` when nobody knows.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after)
        self.message = message
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message


class IdempotencyInProgress(Refused):
    """A call with the same idempotency key is running, or its result is being handed on."""


class RunLapsed(Refused):
    """The run that held the key ended without a report; whether it had its effect is unknown."""


class IdempotencyKeyReused(PatternsError):
    """The idempotency key was used before, with other arguments."""


class ResultNotStored(PatternsError):
    """The first run of this key succeeded; its result was too large or not serialisable."""


class DeferralExpired(PatternsError):
    """A call was put off again and again for longer than a day."""


class PoisonMessage(PatternsError):
    """A task's body began several times, and its process vanished each time: it is not run again."""


class DeadLetterError(PatternsError):
    """What was asked of a dead letter cannot be done: the message says why."""


class DeadLetterTooLarge(DeadLetterError):
    """A message is larger than the store takes."""


class UnroutableQueue(PatternsError, QueueNotFound):
    """A routing rule names a queue that is not declared: the message names the rule."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would show it quoted


class PriorityNotTranslated(PatternsError):
    """A ``TaskPriority`` reached a broker without having passed a ``TaskRouter``."""


class PatternsWarning(UserWarning):
    """A setting that works, but gives less than the documentation promises."""
