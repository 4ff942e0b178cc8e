"""The kinds of waiting: what each is counted by, and when it has lasted too long.

A call that waits carries its count and the time of its beginning in headers of its own, one pair for
each kind. Who reaches a limiter's line has got past every conflict before it, and who begins its body
has come to the end of the line: a later one counts anew.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery_patterns.core.policy import Call


PACE = 0.5
"""Seconds by which a call that looks for its turn does so more seldom, for each round that is ahead of it.

A round is as many calls as may run at once. Those whose turn is next look often, those far behind seldom,
and nobody so seldom that it would miss its turn by much: that comes no sooner than all those ahead have run.
So however many wait, there are at most about a dozen looks a second for each that may run, and those of the
calls far behind, which have come to the longest time between two looks.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A kind of waiting.

    Args:
        count: The header that says how often the task was put off.
        since: The header that says when it was put off first, in seconds since the epoch.
        longest: Seconds after which a task that is put off again and again fails.
    """

    count: str
    since: str
    longest: float


CONFLICT = Wait(count="cp-deferrals", since="cp-deferred-since", longest=86_400.0)
"""Waiting for another call to end: what has not ended after a day needs a person."""

LINE = Wait(count="cp-throttles", since="cp-throttled-since", longest=math.inf)
"""Standing in a limiter's line, which ends only by the limiter's own ``max_wait`` or by ``expires``."""


WAIT_HEADERS = (CONFLICT.count, CONFLICT.since, LINE.count, LINE.since)
"""All headers that speak of waiting."""


def deferrals(call: Call, waits: Wait = CONFLICT) -> int:
    """How often this task was put off so far."""
    return int(call.headers.get(waits.count, 0))


def waited(call: Call, waits: Wait = CONFLICT) -> float:
    """For how many seconds this task has been put off so far."""
    since = call.headers.get(waits.since)
    return max(0.0, time.time() - float(since)) if since else 0.0


def backoff(call: Call, longest: float, shortest: float = 0.5) -> float:
    """Seconds to wait when nobody knows for how long: doubling with each deferral, up to ``longest``."""
    return float(min(longest, shortest * 2 ** min(deferrals(call), 16)))


def count_one(call: Call, headers: dict[str, Any], waits: Wait) -> None:
    """Count one more deferral in the headers of the message that carries the call on."""
    headers[waits.count] = deferrals(call, waits) + 1
    headers.setdefault(waits.since, time.time())
    if waits is LINE:
        _forget(headers, CONFLICT)


def leave_line(call: Call) -> None:
    """The body begins: a retry of the task stands in line anew."""
    _forget(call.headers, LINE)


def leave_all(call: Call) -> None:
    """The attempt is over: the next one counts its waits anew."""
    for waits in (CONFLICT, LINE):
        _forget(call.headers, waits)


def _forget(headers: Any, waits: Wait) -> None:
    for name in (waits.count, waits.since):
        if name in headers:
            del headers[name]
