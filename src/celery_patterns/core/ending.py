"""How a run ends.

==========================  ===================================================================
the run                     has ended as
==========================  ===================================================================
returned                    ``done``
raised                      ``failed``
was retried or put off, or  ``again``: the task goes on after a delay
its process has to exit
raised Ignore or Reject     ``dropped``: nothing is known, nothing is recorded
==========================  ===================================================================

What counts is what left the outermost policy: one of those further out may have had a failure
retried, or a success put off. So it is there that the lease is given back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from celery.exceptions import Ignore, Reject, Retry

from celery_patterns.core.postpone import EagerWait
from celery_patterns.core.timing import seconds_from_now
from celery_patterns.errors import StoreUnavailable

if TYPE_CHECKING:
    from celery import Celery


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended.

    Args:
        kind: See the table in the module.
        delay: Seconds until the task comes again, if it does.
    """

    kind: Literal["done", "failed", "again", "dropped"]
    delay: float = 0.0

    @property
    def is_end(self) -> bool:
        """Whether it is to be remembered: a message that the broker delivers once more is a late copy."""
        return self.kind in {"done", "failed"}


def ending_of(app: Celery, error: BaseException | None) -> Ending:
    """What left the body, or the outermost policy, says about the run."""
    if error is None:
        return Ending("done")
    if isinstance(error, Retry):
        return Ending("again", seconds_from_now(app, error.when))
    if isinstance(error, EagerWait):
        return Ending("again", error.delay)
    if isinstance(error, (Ignore, Reject)):
        return Ending("dropped")
    return Ending("failed" if isinstance(error, Exception) else "again")


def is_out_of_reach(outcome: BaseException | None) -> bool:
    """Whether a call was put off as the store is away: whoever would only tidy up does not ask it again."""
    return isinstance(outcome, Retry) and isinstance(outcome.exc, StoreUnavailable)
