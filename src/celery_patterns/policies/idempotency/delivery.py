"""One delivery of an idempotent task, on its way through the states of its key's record.

==========================  ================================================================
the record is               this delivery
==========================  ================================================================
absent, or lapsed (rerun)   runs the body under a lease, then records the result
running, another task id    is a duplicate: waits, is skipped, or raises (``on_in_progress``)
running, this task id       is a redelivered copy: waits unseen, in case the other dies
completed, another task id  returns the recorded result: replayed
completed, this task id     hands the recorded result on if the earlier delivery died before it
                            did, else only acknowledges; so does a second delivery of a duplicate
lapsed (hold, dead_letter)  waits for a person, or fails with ``RunLapsed``
==========================  ================================================================

A task hands its result on in this order: the result is recorded (by the first) or read from the
record (by a duplicate), Celery publishes links and chain, Celery stores the result. So a result in
the result backend says that everything went out. Where it is missing, an earlier delivery of the
same task id may be between two of these steps. So one delivery at a time may hand on: the holder
under its lease, later ones under a claim of the same length, which the worker's parent cuts short
when their process dies. What remains is a kill between publishing and storing: links go out again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NoReturn, cast

from celery import states
from celery.exceptions import Ignore, Reject, Retry

from celery_patterns.core.copies import EndedBefore
from celery_patterns.core.entering import enter
from celery_patterns.core.guard import Guard
from celery_patterns.core.lease import Lease, keeper, lapse, task_id_of
from celery_patterns.core.parking import ALL
from celery_patterns.core.partings import Instead, Parting, part
from celery_patterns.core.postpone import postpone
from celery_patterns.core.redelivery import redelivery_timeout
from celery_patterns.core.store import store_of, tag
from celery_patterns.core.waits import backoff
from celery_patterns.errors import IdempotencyInProgress, IdempotencyKeyReused, RunLapsed, StoreUnavailable
from celery_patterns.policies.idempotency.record import (
    KIND,
    Beginning,
    Claimed,
    Ended,
    Finished,
    Lapsed,
    Record,
    Reused,
    Running,
    Started,
    record_key,
)
from celery_patterns.policies.idempotency.results import pack, pack_error, unpack, unpack_error

if TYPE_CHECKING:
    from celery_patterns.core.policy import Call, Run
    from celery_patterns.core.script import Ask
    from celery_patterns.policies.idempotency.policy import Idempotency

logger = logging.getLogger("celery_patterns")

LEAST_CLAIM = 300.0
"""Seconds that a copy may come late, also where the broker redelivers sooner: it may have been put off."""
SHORTEST_POLL, LONGEST_POLL = 0.5, 15.0
"""Seconds between two looks of a waiting duplicate."""
LONGEST_HOLD = 300.0
"""Seconds between two looks at a run that a person must decide about."""


class Delivery:
    """What one delivery does about its key.

    Args:
        policy: The policy.
        call: The call that is being run, or whose process was lost.
    """

    def __init__(self, policy: Idempotency, call: Call) -> None:
        self.policy = policy
        self.call = call
        self.request = call.request
        self.ttl = cast("float", policy.ttl)
        self.lease_length = cast("float", policy.lease)
        key = call.key(policy.key)
        name = policy.name or call.name
        store = store_of(call.app)
        self.key = f"{tag(name)}:{key}"
        self.guard = Guard(call, KIND, self.key, policy.on_store_error)
        self.record = Record(
            store=store,
            key=record_key(store, name, key),
            owner=call.owner,
            fingerprint=call.fingerprint(policy.key),
            attempt=call.attempt,
        )

    def run(self, proceed: Run) -> Any:
        """Run the body, or give what the record says.

        Raises:
            celery.exceptions.Retry: The call waits.
            celery.exceptions.Ignore: It is a copy that has nothing to do.
            PatternsError: It is refused.
        """
        try:
            begun = enter(self.call, KIND, self.beginning)
        except StoreUnavailable as error:
            self.guard.out_of_reach(error)
        match begun:
            case Started():
                return self._first(begun, proceed)
            case Ended():
                return self._again(begun)
            case Claimed():
                return self._claimed(begun)
            case Running():
                return self._in_progress(begun)
            case Lapsed():
                return self._lapsed(begun)
            case _:
                return self._reused(begun)

    def beginning(self) -> Ask[Beginning]:
        """What it asks the store first."""
        return self.record.beginning(
            lease=self.lease_length,
            ttl=self.ttl,
            on_lapsed=self.policy.on_lapsed,
            claim=max(self.lease_length, redelivery_timeout(self.call.app), LEAST_CLAIM) * 2,
        )

    def lost(self, grace: float) -> None:
        """The process of this delivery is gone: its lease ends ``grace`` seconds from now."""
        try:
            for key in (self.record.key, self.record.claim_key):
                lapse(self.record.store, key, self.record.owner, grace)
            self.guard.wake()
        except StoreUnavailable as error:
            self.guard.store_error("lost", "its lease runs out by itself", error)

    # --- the key is ours

    def _first(self, started: Started, proceed: Run) -> Any:
        """Run the body under the lease, and record how it ended."""
        if started.lapsed:
            self.guard.tell("lapsed", holder=task_id_of(started.lapsed), fence=started.fence)
        lease = self._lease(started.fence)
        self.request.fence, self.request.lease = started.fence, lease
        self.guard.hold(lease)
        try:
            result = proceed(self.call)
        except BaseException as error:
            keeper.drop(lease)
            self._not_completed(lease, error)
            raise
        self._completed(lease, pack(self.call, result, self.policy.max_result))
        return result

    def _lease(self, fence: int) -> Lease:
        return Lease(
            store=self.record.store,
            key=self.record.key,
            owner=self.record.owner,
            fence=fence,
            length=self.lease_length,
            keep=self.lease_length + self.ttl,
            asked=self.call.asked_at,
        )

    def _completed(self, lease: Lease, end: bytes) -> None:
        """Record the result. The effect has happened, so what fails here does not fail the task.

        It is recorded on leaving, with what others have to tell the store then, and before that. But who
        may have been superseded asks by himself: others are to hear that this run has not ended the task.
        """
        ask = self.record.completing(lease.fence, end, self.ttl)

        def told(finished: Finished) -> Instead | None:
            successor = finished.successor
            if successor:
                self.guard.tell("superseded", by=task_id_of(successor), fence=lease.fence)
            self._wake(finished, ALL)
            if not successor:
                return None
            delay = backoff(self.call, LONGEST_POLL, SHORTEST_POLL)
            return lambda: self._wait(successor, delay, "has taken over")  # its result counts

        def unheard(error: StoreUnavailable) -> None:
            self.guard.store_error("completion", "trying again until its lease ends", error)
            keeper.finish(lease, lambda: told(ask.now()), lambda: self._unrecorded(lease.fence))

        parting = Parting(ask, told, unheard, lease)
        if not lease.lost:
            self.call.partings.append(parting)
            return
        instead = part([parting])
        if instead is not None:
            instead()

    def _unrecorded(self, fence: int) -> None:
        logger.error(
            "%s[%s] succeeded, but this could not be recorded for key %s; a duplicate meets on_lapsed=%r",
            self.call.name,
            self.call.id,
            self.key,
            self.policy.on_lapsed,
        )
        self.guard.tell("unrecorded", fence=fence)

    def _not_completed(self, lease: Lease, error: BaseException) -> None:
        """The body failed, or was put off: forget the run, or remember the failure.

        A process that is told to exit says nothing about its effect: that run lapses.
        """
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            return

        def report() -> None:
            if self.policy.cache_errors and _is_final(error):
                self._wake(self.record.fail(lease.fence, pack_error(self.call, error), self.ttl), ALL)
            else:
                self._wake(self.record.release(lease.fence))

        try:
            report()
        except StoreUnavailable as trouble:
            self.guard.store_error("release", "trying again until its lease ends", trouble)
            keeper.finish(lease, report, lambda: None)

    def _wake(self, finished: Finished, *who: str) -> None:
        """Have duplicates look that wait in the room: all, for the result, or the first, to run instead."""
        if finished.awaited or self.guard.was_woken:
            self.guard.wake(*who)

    # --- the key has ended before

    def _again(self, ended: Ended) -> Any:
        """Hand the recorded end on, once for each task id."""
        outcome = self.guard.outcome_of(self.call.id) if ended.again else None
        if outcome and outcome.state == (states.FAILURE if ended.failed else states.SUCCESS):
            return self.guard.acknowledge_copy(outcome)  # a stored result says that everything went out
        self.guard.tell("replayed", holder=task_id_of(ended.owner), failed=ended.failed)
        if ended.failed:
            raise unpack_error(self.call, ended)
        return unpack(self.call, ended)

    def _claimed(self, claimed: Claimed) -> NoReturn:
        """Another delivery of this task is handing the result on, or has done so under a claim that lasts."""
        outcome = None if self.request.chord else self.guard.outcome_of(self.call.id)
        if outcome and outcome.state != states.REVOKED:
            raise EndedBefore(f"{self.call.id} has its result already")
        delay = min(claimed.left + 0.01, backoff(self.call, 2.0, 0.2))
        self._wait(claimed.owner, delay, "hands its result on")

    # --- the key is another's

    def _in_progress(self, running: Running) -> None:
        """Another delivery runs: do as ``on_in_progress`` says, or wait unseen if it is this very task."""
        if not self.guard.is_own(running.owner):
            if self.policy.on_in_progress == "raise":
                self.guard.refuse(self._reason(running.owner, "is running", running.left))
            if self.policy.on_in_progress == "skip" and not self.call.in_canvas:
                self.guard.tell("skipped", holder=task_id_of(running.owner))
                return
        delay = min(running.left + 0.01, backoff(self.call, LONGEST_POLL, SHORTEST_POLL))
        self._wait(running.owner, delay, "is running")

    def _lapsed(self, lapsed: Lapsed) -> NoReturn:
        """The run vanished, and nobody may rerun it blindly."""
        holder = task_id_of(lapsed.owner)
        reason = RunLapsed(
            f"key {self.key}: the run of {holder} ended without a report, so nobody knows whether it had "
            "its effect; find out, then forget the key to have it run"
        )
        if self.policy.on_lapsed == "dead_letter":
            self.guard.refuse(reason)
        self.guard.tell("held", holder=holder)
        postpone(self.call, backoff(self.call, LONGEST_HOLD, 5.0), reason, policy=KIND, key=self.key)

    def _reused(self, reused: Reused) -> NoReturn:
        """The caller has a bug: two different calls with one key."""
        self.guard.refuse(
            IdempotencyKeyReused(
                f"{self.call.name}[{self.call.id}]: key {self.key} was used by {task_id_of(reused.owner)} "
                "with other arguments"
            )
        )

    def _wait(self, owner: str, delay: float, what: str) -> NoReturn:
        self.guard.wait(owner, delay, self._reason(owner, what, delay), woken="turn")

    def _reason(self, owner: str, what: str, retry_after: float | None) -> IdempotencyInProgress:
        return IdempotencyInProgress(f"key {self.key}: {task_id_of(owner)} {what}", retry_after)


def _is_final(error: BaseException) -> bool:
    """Whether the body failed; a retry, a postponement, Ignore and Reject say nothing of that kind."""
    return isinstance(error, Exception) and not isinstance(error, (Retry, Ignore, Reject))
