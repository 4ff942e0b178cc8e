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
from celery.backends.base import DisabledBackend
from celery.exceptions import Ignore, Reject, Retry

from celery_patterns.core.events import Event, emit
from celery_patterns.core.lease import Lease, keeper, lapse, task_id_of
from celery_patterns.core.postpone import postpone, postpone_copy, redelivery_timeout
from celery_patterns.core.store import store_of, tag
from celery_patterns.core.waits import backoff
from celery_patterns.errors import (
    IdempotencyInProgress,
    IdempotencyKeyReused,
    PatternsError,
    RunLapsed,
    StoreUnavailable,
)
from celery_patterns.policies.idempotency.record import (
    KIND,
    Claimed,
    Ended,
    Lapsed,
    Record,
    Reused,
    Running,
    Started,
    record_key,
)
from celery_patterns.policies.idempotency.results import pack, pack_error, unpack, unpack_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_patterns.core.policy import Call, Run
    from celery_patterns.policies.idempotency.policy import Idempotency

logger = logging.getLogger("celery_patterns")

SHORTEST_POLL, LONGEST_POLL = 0.5, 15.0
"""Seconds between two looks of a waiting duplicate."""
LONGEST_HOLD = 300.0
"""Seconds between two looks at a run that a person must decide about."""
LONGEST_OUTAGE = 30.0
"""Seconds between two looks for a store that is away."""


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
            begun = self.record.begin(
                lease=self.lease_length,
                ttl=self.ttl,
                on_lapsed=self.policy.on_lapsed,
                claim=max(self.lease_length, redelivery_timeout(self.call.app)) * 2,
            )
        except StoreUnavailable as error:
            self._out_of_reach(error)
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

    def lost(self, grace: float) -> None:
        """The process of this delivery is gone: its lease ends ``grace`` seconds from now."""
        try:
            for key in (self.record.key, self.record.claim_key):
                lapse(self.record.store, key, self.record.owner, grace)
        except StoreUnavailable as error:
            self._store_error("lost", "its lease runs out by itself", error)

    # --- the key is ours

    def _first(self, started: Started, proceed: Run) -> Any:
        """Run the body under the lease, and record how it ended."""
        if started.lapsed:
            self._tell("lapsed", holder=task_id_of(started.lapsed), fence=started.fence)
        lease = self._lease(started.fence)
        self.request.fence, self.request.lease = started.fence, lease
        keeper.hold(lease)
        try:
            result = proceed(self.call)
        except BaseException as error:
            keeper.drop(lease)
            self._not_completed(lease, error)
            raise
        keeper.drop(lease)
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
        )

    def _completed(self, lease: Lease, end: bytes) -> None:
        """Record the result. The effect has happened, so what fails here does not fail the task."""

        def report() -> str | None:
            lost = self.record.complete(lease.fence, end, self.ttl)
            if lost:
                self._tell("superseded", by=task_id_of(lost.owner), fence=lease.fence)
            return lost.owner if lost else None

        try:
            successor = report()
        except StoreUnavailable as error:
            self._store_error("completion", "trying again until its lease ends", error)
            keeper.finish(lease, report, lambda: self._unrecorded(lease.fence))
            return
        if successor:  # its result counts: wait for it as a duplicate does
            self._wait(successor, backoff(self.call, LONGEST_POLL, SHORTEST_POLL), "has taken over")

    def _unrecorded(self, fence: int) -> None:
        logger.error(
            "%s[%s] succeeded, but this could not be recorded for key %s; a duplicate meets on_lapsed=%r",
            self.call.name,
            self.call.id,
            self.key,
            self.policy.on_lapsed,
        )
        self._tell("unrecorded", fence=fence)

    def _not_completed(self, lease: Lease, error: BaseException) -> None:
        """The body failed, or was put off: forget the run, or remember the failure.

        A process that is told to exit says nothing about its effect: that run lapses.
        """
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            return

        def report() -> None:
            if self.policy.cache_errors and _is_final(error):
                self.record.fail(lease.fence, pack_error(self.call, error), self.ttl)
            else:
                self.record.release(lease.fence)

        try:
            report()
        except StoreUnavailable as trouble:
            self._store_error("release", "trying again until its lease ends", trouble)
            keeper.finish(lease, report, lambda: None)

    # --- the key has ended before

    def _again(self, ended: Ended) -> Any:
        """Hand the recorded end on, once for each task id."""
        holder = task_id_of(ended.owner)
        if self._was_handed_on(ended):
            self._only_acknowledge()
        self._tell("replayed", holder=holder, failed=ended.failed)
        if ended.failed:
            raise unpack_error(self.call, ended)
        return unpack(self.call, ended)

    def _only_acknowledge(self) -> None:
        """Everything went out before the result was stored; only a chord may not have counted it.

        A chord counts a part after its result is stored, and deduplicates by id and index: so in a
        chord the result is returned once more, with nothing else attached.

        Raises:
            celery.exceptions.Ignore: Outside a chord.
        """
        if not self.request.chord:
            raise Ignore(f"{self.call.id} has its result already")
        self.request.callbacks = self.request.errbacks = self.request.chain = None

    def _was_handed_on(self, ended: Ended) -> bool:
        """Whether an earlier delivery of this very task has stored its result, the last thing it does."""
        return ended.again and self._stored_state() == (states.FAILURE if ended.failed else states.SUCCESS)

    def _claimed(self, claimed: Claimed) -> NoReturn:
        """Another delivery of this task is handing the result on, or has done so under a claim that lasts."""
        if not self.request.chord and self._stored_state() in {states.SUCCESS, states.FAILURE}:
            raise Ignore(f"{self.call.id} has its result already")
        delay = min(claimed.left + 0.01, backoff(self.call, 2.0, 0.2))
        self._wait(claimed.owner, delay, "hands its result on")

    def _stored_state(self) -> str | None:
        """The state of this task in the result backend; ``None`` where none is kept."""
        request, backend = self.request, self.call.task.backend
        if request.is_eager or request.ignore_result:
            return None
        if isinstance(backend, DisabledBackend) or not backend.persistent:
            return None
        try:
            return str(backend.get_state(request.id))
        except Exception as error:  # noqa: BLE001 - whatever the user's backend raises when it is away
            self._out_of_reach(error)

    # --- the key is another's

    def _in_progress(self, running: Running) -> None:
        """Another delivery runs: do as ``on_in_progress`` says, or wait unseen if it is this very task."""
        if not self._is_own(running.owner):
            if self.policy.on_in_progress == "raise":
                self._refuse(self._reason(running.owner, "is running", running.left))
            if self.policy.on_in_progress == "skip" and not self.call.in_canvas:
                self._tell("skipped", holder=task_id_of(running.owner))
                return
            if self.request.is_eager and keeper.holds(running.owner):
                self._refuse(self._reason(running.owner, "runs in this very process and cannot end", None))
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
            self._refuse(reason)
        self._tell("held", holder=holder)
        postpone(self.call, backoff(self.call, LONGEST_HOLD, 5.0), reason, policy=KIND, key=self.key)

    def _reused(self, reused: Reused) -> NoReturn:
        """The caller has a bug: two different calls with one key."""
        self._refuse(
            IdempotencyKeyReused(
                f"{self.call.name}[{self.call.id}]: key {self.key} was used by {task_id_of(reused.owner)} "
                "with other arguments"
            )
        )

    def _out_of_reach(self, error: Exception) -> NoReturn:
        """Nobody knows what became of the key: never go ahead blind."""
        self._store_error("begin", self.policy.on_store_error, error)
        unavailable = error if isinstance(error, StoreUnavailable) else StoreUnavailable(str(error))
        if self.policy.on_store_error == "raise":
            raise unavailable from error
        postpone(self.call, backoff(self.call, LONGEST_OUTAGE, 1.0), unavailable, policy=KIND, key=self.key)

    def _wait(self, owner: str, delay: float, what: str) -> NoReturn:
        put_off: Callable[..., NoReturn] = postpone_copy if self._is_own(owner) else postpone
        put_off(self.call, delay, self._reason(owner, what, delay), policy=KIND, key=self.key)

    def _is_own(self, owner: str) -> bool:
        """Whether ``owner`` is another delivery of this very task."""
        return task_id_of(owner) == self.call.id

    def _reason(self, owner: str, what: str, retry_after: float | None) -> IdempotencyInProgress:
        return IdempotencyInProgress(f"key {self.key}: {task_id_of(owner)} {what}", retry_after)

    def _refuse(self, error: PatternsError) -> NoReturn:
        self._tell("refused", error=type(error).__name__)
        raise error

    def _store_error(self, at: str, then: str, error: Exception) -> None:
        logger.warning(
            "%s[%s], key %s, at its %s: %s; %s", self.call.name, self.call.id, self.key, at, error, then
        )
        self._tell("store_error", at=at, error=str(error))

    def _tell(self, kind: str, **detail: Any) -> None:
        call = self.call
        emit(Event(kind=kind, policy=KIND, task=call.name, task_id=call.id, key=self.key, detail=detail))


def _is_final(error: BaseException) -> bool:
    """Whether the body failed; a retry, a postponement, Ignore and Reject say nothing of that kind."""
    return isinstance(error, Exception) and not isinstance(error, (Retry, Ignore, Reject))
