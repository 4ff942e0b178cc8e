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
     │   ├─ RunLapsed                  the run that held the key vanished, and a person must decide
     │   ├─ SingletonConflict          another call holds the key
     │   ├─ ConcurrencyLimitReached    as many run as may
     │   └─ ScheduleLockError          the lock is taken, or cannot be asked for
     │   ├─ RateLimitExceeded          a limit lets the call start too late, or never
     │   └─ Throttled                  raised by a task: the service that it calls said 429
     ├─ IdempotencyKeyReused           same key, other arguments
     ├─ ResultNotStored                the first run is recorded, its result is not
     ├─ DeferralExpired                a call was put off for longer than a day
     ├─ UnroutableQueue (QueueNotFound)  a rule names a queue that is not declared
     ├─ PriorityNotTranslated          a TaskPriority reached a broker that only takes numbers
     ├─ PoisonMessage                  a task has killed its worker too often to be run again
     ├─ DeadLetterError                what was asked of a dead letter cannot be done
     │   └─ DeadLetterTooLarge         a message is larger than the store takes
     └─ ChordFailed (ChordError)       too few parts of a partial chord are ok

    PatternsWarning (UserWarning)      legal, but not what a careful operator would run

Celery pickles exceptions, so each class hands all its arguments to ``Exception.__init__``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

from celery.exceptions import ChordError, QueueNotFound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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


class SingletonConflict(Refused):
    """Another call holds the key of a singleton.

    ``retry_after`` is when that one's lock would end if nothing more were heard of it, and so the longest
    that it is worth waiting before one asks again: ``queued_ttl`` past its eta in the queue, ``lease`` while
    it runs.
    """


class ConcurrencyLimitReached(Refused):
    """As many calls run under this limit as may, or others have waited for longer."""


class ScheduleLockError(Refused):
    """A schedule lock is held by another, or the store that knows is out of reach."""


class RateLimitExceeded(Refused):
    """A rate limit does not let the call start now; with ``retry_after`` ``None`` it never will."""


class Throttled(Refused):
    """Raise it in a task when the service that it calls says "too many requests" (HTTP 429).

    The task's rate limits are closed for everybody until then, and the task itself is put off,
    which costs it no retry. In a task without a rate limit it is an error like any other.

    Args:
        retry_after: Seconds, a ``timedelta``, or the text of a ``Retry-After`` header: seconds or a date.
        limit: The name of the limit to close; default: all limits of the task.

    Raises:
        ValueError: ``retry_after`` is neither.

    Example:
        >>> Throttled("120").retry_after
        120.0
    """

    def __init__(self, retry_after: float | timedelta | str, limit: str | None = None) -> None:
        seconds = _seconds_of(retry_after)
        super().__init__(f"told to come back in {seconds:g} s", seconds)
        self.args = (seconds, limit)  # what it is made of again when it is unpickled
        self.retry_after: float = seconds
        self.limit = limit


def _seconds_of(retry_after: float | timedelta | str) -> float:
    try:
        seconds = _told(retry_after)
    except (ValueError, TypeError):
        seconds = nan
    if not isfinite(seconds):
        raise ValueError(f"retry_after={retry_after!r}: give seconds, or the text of a Retry-After header")
    return max(0.0, seconds)


def _told(retry_after: float | timedelta | str) -> float:
    if isinstance(retry_after, timedelta):
        return retry_after.total_seconds()
    try:
        return float(retry_after)
    except ValueError:
        date = parsedate_to_datetime(str(retry_after))
        return (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()


class IdempotencyKeyReused(PatternsError):
    """The idempotency key was used before, with other arguments."""


class ResultNotStored(PatternsError):
    """The first run of this key succeeded; its result was too large or not serialisable."""


class DeferralExpired(PatternsError):
    """A call was put off again and again for longer than a day."""


class UnroutableQueue(PatternsError, QueueNotFound):
    """A routing rule names a queue that is not declared: the message names the rule."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would show it quoted


class PriorityNotTranslated(PatternsError):
    """A ``TaskPriority`` reached a broker without having passed a ``TaskRouter``."""


class PoisonMessage(PatternsError):
    """A task's body began several times, and its process vanished each time: it is not run again."""


class DeadLetterError(PatternsError):
    """What was asked of a dead letter cannot be done: the message says why."""


class DeadLetterTooLarge(DeadLetterError):
    """A message is larger than the store takes."""


class ChordFailed(PatternsError, ChordError):
    """Too few parts of a partial chord are ok, so its body did not run.

    It is the error of the body's result, and what errbacks are given. It is a Celery ``ChordError``
    as well, so what handles failed chords handles this.

    Args:
        message: How many parts were needed, and what became of them.
        results: The outcomes of all parts, as the body would have been given them; read them with
            ``Outcomes(error.results)``.
    """

    def __init__(self, message: str, results: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message, results)
        self.message = message
        self.results = results

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"ChordFailed({self.message!r}, <{len(self.results)} results>)"


class PatternsWarning(UserWarning):
    """A setting that works, but gives less than the documentation promises."""
