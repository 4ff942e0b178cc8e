"""One delivery of a task under a concurrency limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from celery_patterns.core.entering import enter
from celery_patterns.core.guard import Guard
from celery_patterns.core.lease import KILL_GRACE, Lease, task_id_of
from celery_patterns.core.outcome import keeps_results
from celery_patterns.core.waits import backoff, waited
from celery_patterns.errors import ConcurrencyLimitReached, StoreUnavailable
from celery_patterns.policies.concurrency.places import (
    KIND,
    Answer,
    Copy,
    Ended,
    Full,
    GivenBack,
    Places,
    Started,
)

if TYPE_CHECKING:
    from celery_patterns.core.ending import Ending
    from celery_patterns.core.policy import Call, Run
    from celery_patterns.core.script import Ask
    from celery_patterns.policies.concurrency.policy import ConcurrencyLimit

SHORTEST_POLL = 0.2
"""Seconds until the first look of a call that waits."""
NEAR_POLL, FAR_POLL = 1.0, 15.0
"""Seconds between two looks of a call whose turn is next, and of one that is far behind."""
PARKED_POLL = 60.0
"""For how long a call that is woken keeps its place in the line without a look."""


class Delivery:
    """What one delivery does about its limit.

    Args:
        policy: The policy.
        call: The call that is being run, or that has failed, or whose process was lost.
        places: The places under its limit.
        key: The limit, as operators write it.
    """

    def __init__(self, policy: ConcurrencyLimit, call: Call, places: Places, key: str) -> None:
        self.policy = policy
        self.call = call
        self.places = places
        self.guard = Guard(call, KIND, key, policy.on_store_error)

    def run(self, proceed: Run) -> Any:
        """Run the body if there is a place; else do what the policy says.

        Raises:
            celery.exceptions.Retry: The call waits.
            celery.exceptions.Ignore: It is a copy that has nothing to do.
            PatternsError: It is refused.
        """
        again = False
        while True:
            match self._acquire(again=again):
                case Started() as started:
                    return self._run(started, proceed)
                case Copy() as copy:
                    self._wait_for(copy)
                case Full() as full:
                    return self._full(full)
                case Ended() as ended if self.call.replay > ended.replay:
                    again = True  # no copy of what ended, but its replay
                case Ended() as ended:
                    outcome = self.guard.ended_as(ended.age, self._reason("has let another delivery in", 0))
                    if outcome or not keeps_results(self.call):
                        return self.guard.acknowledge_copy(outcome)
                    again = True

    def sent_anew(self) -> None:
        """The call is published under an id that may have been there before."""
        self.guard.begin_anew(self.places.store, self.places.marker(str(self.call.id)))

    def passed_over(self) -> None:
        """The call has ended before it came here: leave the line."""
        self._let_go("release", ended=False, grace=0.0)

    def failed(self) -> None:
        """The call will not run again: let go of its place, here or in the line."""
        self._let_go("failed", ended=True, grace=KILL_GRACE)

    def lost(self, grace: float) -> None:
        """The process of this delivery is gone: so is its claim to a place."""
        self._let_go("lost", ended=False, grace=grace)

    def _acquire(self, *, again: bool) -> Answer:
        try:
            return enter(self.call, KIND, lambda: self.acquiring(again=again))
        except StoreUnavailable as error:
            self.guard.out_of_reach(error)

    def acquiring(self, *, again: bool) -> Ask[Answer]:
        """What it asks the store."""
        waits = self.policy.on_conflict == "defer" or self._must_wait
        near, far = (PARKED_POLL, PARKED_POLL) if waits and self.guard.has_room else (self._near, self._far)
        return self.places.acquiring(
            self.call.owner,
            again=again,
            waited=waited(self.call),
            near=near if waits else 0.0,
            far=far if waits else 0.0,
        )

    @property
    def _near(self) -> float:
        return backoff(self.call, NEAR_POLL, SHORTEST_POLL)

    @property
    def _far(self) -> float:
        return backoff(self.call, FAR_POLL, SHORTEST_POLL)

    @property
    def _must_wait(self) -> bool:
        """In a canvas something waits for the result, and nobody else will give one."""
        return self.policy.on_conflict == "skip" and self.call.in_canvas

    def _run(self, started: Started, proceed: Run) -> Any:
        if started.lapsed:
            self.guard.tell("lapsed", holder=task_id_of(started.lapsed), fence=started.fence)
        lease = self.places.lease_of(self.call.owner, started.fence, self.call.asked_at)
        request = self.call.request
        outer = getattr(request, "lease", None)  # of a key with one holder, whose fence says more
        if outer is None:
            request.fence, request.lease = started.fence, lease
        try:
            marker = self.places.marker(task_id_of(lease.owner))
            return self.guard.run(lease, proceed, lambda ending: self._end(lease, ending), marker)
        finally:
            request.lease = outer

    def _end(self, lease: Lease, ending: Ending) -> Ask[str | None]:
        """How to give the place back; ``""`` if it was given to another, nobody knows to which."""

        def given(back: GivenBack) -> str | None:
            if back.next or self.guard.was_woken:
                self.guard.wake(*back.next)
            return None if back.kept else ""

        return self.places.giving_back(
            lease.owner, lease.fence, ended=ending.is_end, replay=self.call.replay
        ).then(given)

    def _wait_for(self, copy: Copy) -> NoReturn:
        delay = min(copy.left + 0.01, backoff(self.call, FAR_POLL, SHORTEST_POLL))
        self.guard.wait(copy.owner, delay, self._reason("has let another delivery in", delay))

    def _full(self, full: Full) -> None:
        reason = self._reason(f"is reached, with {full.ahead} ahead", full.wait)
        if full.next:
            self.guard.wake(*full.next)
        if full.wait:
            self.guard.wait(None, min(full.wait, self._far), reason, woken="turn")
        if self.policy.on_conflict == "raise":
            self.guard.refuse(reason)
        self.guard.tell("skipped", ahead=full.ahead)

    def _reason(self, what: str, retry_after: float) -> ConcurrencyLimitReached:
        return ConcurrencyLimitReached(
            f"limit {self.guard.key} of {self.policy.limit} {what}", retry_after or None
        )

    def _let_go(self, at: str, *, ended: bool, grace: float) -> None:
        try:
            back = self.places.give_back(
                self.call.owner, None, ended=ended, replay=self.call.replay, grace=grace
            )
            if back.next:
                self.guard.wake(*back.next)
        except StoreUnavailable as error:
            self.guard.store_error(at, "its lease runs out by itself", error)
