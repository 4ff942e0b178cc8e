"""One delivery of a limited task, on its way to its start.

::

    ask --> granted --> body --> done
     ^        |          |
     |        | older    +-- raises Throttled: close the buckets for everybody, then wait
     |        | than 1 s
     |        v
     +------ ask again
     ^
     |    denied --> on_limited: "raise", "skip", or
     +-- pause, outside of the worker's slots (at most 1 s while the line is short)

A start counts at the server's time of its grant. A process may be stopped between the grant and the
body, and a grant that it kept for longer would let two bodies of different windows meet; so it asks
again. What remains is what passes between the last look at the clock and the body.
"""

from __future__ import annotations

import logging
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, NoReturn, cast

from celery_patterns.core.entering import enter
from celery_patterns.core.events import Event, emit
from celery_patterns.core.parking import Spot, ticket_of
from celery_patterns.core.postpone import postpone
from celery_patterns.core.store import Store, store_of
from celery_patterns.core.waits import LINE, backoff, waited
from celery_patterns.errors import RateLimitExceeded, Refused, StoreUnavailable, Throttled
from celery_patterns.policies.rate_limits.buckets import (
    KIND,
    LONGEST_PAUSE,
    Demand,
    Denied,
    Granted,
    as_text,
    ask,
    asking,
    close,
    stand_in_line,
)
from celery_patterns.policies.rate_limits.look import look_at
from celery_patterns.policies.rate_limits.steering import close_name
from celery_patterns.waiting.answers import Started, Waits
from celery_patterns.waiting.broker import room_of
from celery_patterns.waiting.lookout import has_pump

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery_patterns.core.policy import Call, Run
    from celery_patterns.core.script import Ask
    from celery_patterns.policies.rate_limits.policy import TokenBucket

logger = logging.getLogger("celery_patterns")

FRESH = 1.0
"""Seconds for which a grant is good."""
TRIES = 3
"""How often a grant that came late is asked for anew before the store counts as out of reach."""
OVERSLEPT = 0.02
"""Seconds by which a start may be late that had to wait for its token in the worker."""
LONGEST_OUTAGE = 30.0
"""Seconds between two looks for a store that is away."""


def take(store: Store, demands: Sequence[Demand]) -> Granted | Denied:
    """Take tokens, and make sure that the grant is fresh.

    Its age is measured by this process's own clock from before it asked: never less than the truth.

    Raises:
        StoreUnavailable: The store is out of reach, or each of its answers took longer than a grant lasts.
    """
    for _ in range(TRIES):
        asked = monotonic()
        answer = ask(store, demands)
        if isinstance(answer, Denied) or monotonic() - asked <= FRESH:
            return answer
    raise StoreUnavailable(f"{store.url}: {TRIES} answers in a row took longer than {FRESH:g} s")


def spot_of(call: Call, limits: Sequence[TokenBucket], demands: Sequence[Demand]) -> Spot:
    """Where a call waits for its limits, and for how long at most."""
    bounds = [cast("float", limit.max_wait) for limit in limits if limit.max_wait is not None]
    shared = next((limit.fair_by for limit in limits if limit.fair_by is not None), None)
    return Spot(
        demands=as_text([one for one in demands if one.cost]),
        turn=look_at(call).key(shared) if shared is not None else "",
        patience=max(0.0, min(bounds) - waited(call, LINE)) if bounds else None,
    )


def _granted(answer: Started | Waits) -> Granted | Denied:
    if isinstance(answer, Waits):
        return Denied(answer.wait, answer.which, answer.pace)
    return Granted(answer.at, answer.ahead)


class Start:
    """What one delivery does to be let in.

    Args:
        call: The call that is being run.
        limits: Its limits.
        demands: What it demands of each of them.
    """

    def __init__(self, call: Call, limits: Sequence[TokenBucket], demands: Sequence[Demand]) -> None:
        self.call = call
        self.store = store_of(call.app)
        self.pairs = list(zip(limits, demands, strict=True))
        self.costly = [(limit, demand) for limit, demand in self.pairs if demand.cost]

    def run(self, proceed: Run) -> Any:
        """Run the body, or do what a limited call does.

        Raises:
            celery.exceptions.Retry: The call waits.
            RateLimitExceeded: It is refused.
            StoreUnavailable: The store is out of reach, and ``on_store_error`` is ``"raise"``.
        """
        try:
            answer = self._take()
        except StoreUnavailable as error:
            self._out_of_reach(error)
            answer = None
        if isinstance(answer, Denied):
            return self._limited(answer)
        if answer is not None:
            self.call.request.granted_at = answer.at
        try:
            return proceed(self.call)
        except Throttled as error:
            self._throttled(error)

    def entering(self) -> Ask[Granted | Denied] | None:
        """What it asks the store first."""
        return self._asking() if self.costly else None

    def _asking(self) -> Ask[Granted | Denied]:
        demands = [demand for _, demand in self.costly]
        request = self.call.request
        ticket = None if request.is_eager else ticket_of(request)
        if request.is_eager or not (ticket or has_pump(self.call.app)):
            return asking(self.store, demands)
        return room_of(self.call.app).starting(as_text(demands), ticket.id if ticket else "").then(_granted)

    def _take(self) -> Granted | Denied | None:
        """Take the tokens; whoever comes from the waiting room sleeps the last moments until they are there.

        A process that was stopped meanwhile has overslept, and asks again. The age of a grant is measured by
        this process's own clock from before it asked: never less than the truth.
        """
        for _ in range(TRIES):
            answer = enter(self.call, KIND, self._asking) if self.costly else None
            if not isinstance(answer, Granted):
                return answer
            came = monotonic()
            if answer.ahead:
                sleep(answer.ahead)
            late = monotonic() - came - answer.ahead
            if came - self.call.asked_at <= FRESH and (late <= OVERSLEPT or not answer.ahead):
                return answer
        raise StoreUnavailable(f"{self.store.url}: {TRIES} answers in a row came too late")

    # --- not now

    def _limited(self, denied: Denied) -> None:
        """Wait, or be skipped or refused, as the limit says that denies for longest."""
        limit, demand = self.costly[denied.which]
        reason = RateLimitExceeded(f"limit {demand.bucket}: {denied.wait:.6f} s to wait", denied.wait)
        if limit.on_limited == "raise":
            self._refuse(reason, demand)
        if limit.on_limited == "skip" and not self.call.in_canvas:
            self._tell("skipped", demand, wait=denied.wait)
            return
        self._wait(limit, demand, denied, reason)

    def _wait(
        self, limit: TokenBucket, demand: Demand, denied: Denied, reason: Refused, *, in_line: bool = True
    ) -> NoReturn:
        """Put the call off until it may ask again; in no line if it is not its limits that say when.

        Raises:
            celery.exceptions.Retry: Always, unless
            RateLimitExceeded: that would be longer than ``max_wait``.
        """
        longest = cast("float | None", limit.max_wait)
        if longest is not None and waited(self.call, LINE) + denied.wait > longest:
            self._refuse(RateLimitExceeded(f"{reason}, and max_wait is {longest:g} s", denied.wait), demand)
        key = str(demand.bucket)
        spot = None
        if in_line and self.costly:
            limits, demands = zip(*self.costly, strict=True)
            spot = spot_of(self.call, limits, demands)

        def pause() -> float:
            try:
                return stand_in_line(self.store, demand.bucket, str(self.call.id), denied)[0]
            except StoreUnavailable as error:
                self._store_error("line", "it asks again in a moment", error)
                return min(denied.wait, LONGEST_PAUSE)

        postpone(
            self.call,
            denied.wait,
            reason,
            policy=KIND,
            key=key,
            waits=LINE,
            spot=spot,
            countdown=pause,
            wait=denied.wait,
        )

    # --- the other side says: not now

    def _throttled(self, error: Throttled) -> NoReturn:
        """Close the buckets for everybody, and wait as everybody does."""
        pairs = [pair for pair in self.pairs if error.limit in {None, pair[1].bucket.name}]
        closed = bool(pairs)
        try:
            if pairs:
                close(self.store, [demand.bucket for _, demand in pairs], max(1e-6, error.retry_after))
            elif error.limit is not None:
                close_name(self.store, error.limit, max(1e-6, error.retry_after))
        except StoreUnavailable as trouble:
            closed = False
            self._store_error("close", "others will find out for themselves", trouble)
        limit, demand = (pairs or self.pairs)[0]
        self._tell("throttled", demand, retry_after=error.retry_after)
        self._wait(limit, demand, Denied(error.retry_after, 0, 0.0), error, in_line=closed)

    def _out_of_reach(self, error: StoreUnavailable) -> None:
        """Nobody knows how many have started. Returns if the call may run all the same."""
        choice = self.pairs[0][0].on_store_error
        self._store_error("begin", choice, error)
        if choice == "raise":
            raise error
        if choice == "defer":
            key = str(self.pairs[0][1].bucket)
            postpone(self.call, backoff(self.call, LONGEST_OUTAGE, 1.0), error, policy=KIND, key=key)

    def _refuse(self, error: RateLimitExceeded, demand: Demand) -> NoReturn:
        self._tell("refused", demand, error=type(error).__name__, wait=error.retry_after)
        raise error

    def _store_error(self, at: str, then: str, error: Exception) -> None:
        demand = self.pairs[0][1]
        logger.warning("%s[%s], limit %s: %s; %s", self.call.name, self.call.id, demand.bucket, error, then)
        self._tell("store_error", demand, at=at, error=str(error))

    def _tell(self, kind: str, demand: Demand, **detail: Any) -> None:
        call, key = self.call, str(demand.bucket)
        emit(Event(kind=kind, policy=KIND, task=call.name, task_id=call.id, key=key, detail=detail))
