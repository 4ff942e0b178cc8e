"""Idempotency around a task: one run per key, and its result for everyone who asks again.

The promise: at most one recorded effect per key and TTL; effects outside are at most once only
where the callee checks the key or the fence.

A delivery meets the record in one of these states, and this is what it does:

==========================  ================================================================
absent, or lapsed (rerun)   runs the body under a lease, then records the result
running, another task id    a duplicate: waits, is skipped, or raises (``on_in_progress``)
running, this task id       a redelivered copy: waits without showing, in case the other dies
completed, another task id  returns the recorded result: replayed
completed, this task id     the earlier delivery may have died before it handed the result on:
                            hands it on if nobody did, else only acknowledges
lapsed (hold, dead_letter)  waits for a person; fails with ``RunLapsed``
==========================  ================================================================
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, cast

from celery import states
from celery.app.task import Task
from celery.exceptions import Ignore, Reject, Retry
from celery.local import PromiseProxy, Proxy

from celery_patterns.core.durations import Seconds, one_of, seconds
from celery_patterns.core.events import Event, emit
from celery_patterns.core.keys import KeySpec, check_key
from celery_patterns.core.lease import Lease, keeper, lapse
from celery_patterns.core.policy import Call, Policy, Publish, Run
from celery_patterns.core.postpone import backoff, postpone, postpone_copy
from celery_patterns.core.store import store_of, tag
from celery_patterns.core.task import PolicyTask, as_decorator
from celery_patterns.errors import (
    IdempotencyInProgress,
    IdempotencyKeyReused,
    PatternsError,
    PolicyError,
    RunLapsed,
    StoreUnavailable,
)
from celery_patterns.policies.idempotency.record import (
    KIND,
    Ended,
    Lapsed,
    Record,
    Reused,
    Running,
    Started,
    pack,
    pack_error,
    record_key,
    task_id_of,
    unpack,
    unpack_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.result import AsyncResult

LONGEST_POLL = 15.0
"""Seconds between two looks of a waiting duplicate, at the most."""
LONGEST_HOLD = 300.0
"""Seconds between two looks at a run that a person must decide about."""

_NOT_A_FAILURE = (Retry, Ignore, Reject)
"""How a body ends that was put off, or has nothing to say: nothing is recorded."""


@dataclass(frozen=True, slots=True)
class Idempotency(Policy):
    """Run a task once per key, and give every duplicate the first run's result.

    Use it where a task may be sent or delivered twice and must have its effect once: payments,
    mails, imports. Do not use it to thin out work that is merely redundant (that is a singleton),
    nor for tasks without an effect (they may simply run twice).

    Args:
        key: Which calls are the same; see :mod:`celery_patterns.core.keys`. There is no default:
            all arguments would make a task without any run once a day.
        name: Whose keys these are; default: the task's name. Tasks with one name share keys.
        ttl: For how long a result is remembered, in seconds or as ``timedelta``.
        lease: After how many seconds without a sign of life a run counts as lapsed. It is renewed
            while the body runs, so it need not be longer than the body.
        on_in_progress: What a duplicate does while the first run is under way: ``"defer"`` waits
            for its result, ``"skip"`` ends with ``None`` (and waits in a canvas), ``"raise"``
            fails with :class:`IdempotencyInProgress`.
        on_lapsed: What happens when a run vanished: ``"rerun"``; ``"hold"`` until a person has
            looked and ``forget`` the key; ``"dead_letter"`` fails with :class:`RunLapsed`.
        cache_errors: Whether a final failure is remembered, and given to duplicates, as well.
        max_result: The largest result that is recorded, in bytes; of a larger one only the fact.
        on_store_error: What a call does when the store is out of reach: ``"defer"`` or
            ``"raise"`` :class:`StoreUnavailable`. It never runs unguarded.

    Raises:
        PolicyError: An option is out of range; said when declared.
    """

    key: KeySpec
    _: KW_ONLY
    name: str | None = None
    ttl: Seconds = 86_400
    lease: Seconds = 60
    on_in_progress: Literal["defer", "skip", "raise"] = "defer"
    on_lapsed: Literal["rerun", "hold", "dead_letter"] = "rerun"
    cache_errors: bool = False
    max_result: int = 1_000_000
    on_store_error: Literal["defer", "raise"] = "defer"

    kind: ClassVar[str] = KIND
    order: ClassVar[int] = 40
    late_acks: ClassVar[Literal["set", "warn"]] = "set"

    def __post_init__(self) -> None:
        if isinstance(self.key, Task) or type(self.key) in (Proxy, PromiseProxy):
            raise PolicyError(
                '@idempotent needs to know which calls are the same: @idempotent(key="order_id")'
            )
        check_key(self.key)
        if self.name is not None and (not isinstance(self.name, str) or not self.name):
            raise PolicyError(f"name={self.name!r}: give a string that is not empty")
        object.__setattr__(self, "ttl", seconds("ttl", self.ttl, least=1))
        object.__setattr__(self, "lease", seconds("lease", self.lease, least=0.1))
        one_of("on_in_progress", self.on_in_progress, ("defer", "skip", "raise"))
        one_of("on_lapsed", self.on_lapsed, ("rerun", "hold", "dead_letter"))
        one_of("on_store_error", self.on_store_error, ("defer", "raise"))
        if isinstance(self.max_result, bool) or not isinstance(self.max_result, int) or self.max_result < 0:
            raise PolicyError(f"max_result={self.max_result!r}: give a number of bytes, 0 or more")

    def publish(self, call: Call, proceed: Publish) -> AsyncResult[Any]:
        """Refuse a call whose key cannot be made, where the caller can still mend it."""
        call.key(self.key)
        return proceed(call)

    def run(self, call: Call, proceed: Run) -> Any:
        """Run the body if the key is free; else whatever the record says."""
        return _Delivery(self, call).run(proceed)

    def lost(self, call: Call, grace: float) -> None:
        """Its process is gone: end the lease, so that the next delivery need not wait for it."""
        try:
            store = store_of(call.app)
            lapse(store, self._record_key(call), call.owner, grace)
        except StoreUnavailable as error:
            _tell("store_error", call, None, at="lost", error=str(error))

    def _record_key(self, call: Call) -> str:
        return record_key(store_of(call.app), self.name or call.name, call.key(self.key))


class _Delivery:
    """One delivery of a call, on its way through the record's states."""

    def __init__(self, policy: Idempotency, call: Call) -> None:
        self.policy = policy
        self.call = call
        self.ttl = cast("float", policy.ttl)
        self.lease_length = cast("float", policy.lease)
        key = call.key(policy.key)
        name = policy.name or call.name
        store = store_of(call.app)
        self.shown_key = f"{tag(name)}:{key}"
        self.record = Record(
            store=store,
            key=record_key(store, name, key),
            owner=call.owner,
            fingerprint=call.fingerprint(policy.key),
            attempt=call.request.retries or 0,
        )

    def run(self, proceed: Run) -> Any:
        policy = self.policy
        try:
            begun = self.record.begin(lease=self.lease_length, ttl=self.ttl, on_lapsed=policy.on_lapsed)
        except StoreUnavailable as error:
            return self._without_store(error)
        match begun:
            case Started():
                return self._first(begun, proceed)
            case Ended():
                return self._again(begun)
            case Running():
                return self._in_progress(begun)
            case Lapsed():
                return self._lapsed(begun)
            case Reused():
                raise self._refused(
                    IdempotencyKeyReused(
                        f"{self.call.name}[{self.call.id}]: key {self.shown_key} was used by "
                        f"{task_id_of(begun.owner)} with other arguments"
                    )
                )

    def _first(self, started: Started, proceed: Run) -> Any:
        """Run the body under the lease, and record how it ended."""
        if started.lapsed:
            self._tell("lapsed", holder=task_id_of(started.lapsed), fence=started.fence)
        lease = self._lease(started.fence)
        request = self.call.request
        request.fence, request.lease = started.fence, lease
        keeper.hold(lease)
        try:
            result = proceed(self.call)
        except BaseException as error:
            keeper.drop(lease)
            self._not_completed(started.fence, error)
            raise
        keeper.drop(lease)
        form, body = pack(self.call, result, self.policy.max_result)
        self._complete(lease, form, body)
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

    def _complete(self, lease: Lease, form: str, body: bytes) -> None:
        """Record the result. The effect has happened, so nothing that fails here fails the task."""

        def report() -> None:
            lost = self.record.complete(lease.fence, form, body, self.ttl)
            if lost:
                self._tell("superseded", by=task_id_of(lost.owner), fence=lease.fence)

        try:
            lost = self.record.complete(lease.fence, form, body, self.ttl)
        except StoreUnavailable as error:
            self._tell("store_error", at="completion", error=str(error))
            keeper.finish(lease, report, lambda: self._tell("unrecorded", fence=lease.fence))
            return
        if lost:
            self._superseded(lost.owner, lease.fence)

    def _not_completed(self, fence: int, error: BaseException) -> None:
        """The body failed, or was put off: forget the run, or remember the failure."""
        final = isinstance(error, Exception) and not isinstance(error, _NOT_A_FAILURE)
        try:
            if final and self.policy.cache_errors:
                self.record.fail(fence, *pack_error(self.call, error), self.ttl)
            else:
                self.record.release(fence)
        except StoreUnavailable as trouble:
            self._tell("store_error", at="release", error=str(trouble))

    def _superseded(self, owner: str, fence: int) -> NoReturn:
        """The lease lapsed and another run took over: its result counts, so wait for it as a duplicate."""
        self._tell("superseded", by=task_id_of(owner), fence=fence)
        self._wait(owner, backoff(self.call, LONGEST_POLL), f"was superseded by {task_id_of(owner)}")

    def _again(self, ended: Ended) -> Any:
        """The key ended before: hand its result on, once."""
        if self._was_handed_on(ended):
            if not self.call.request.chord:
                raise Ignore(f"{self.call.id} has its result already")
            # A chord's part must be counted even if the earlier delivery died before it was; parts
            # are deduplicated by id and index. Links and chain went out before the result did.
            self.call.request.callbacks = self.call.request.chain = None
        elif self._is_own(ended.owner) and ended.handing_on > 0:
            self._wait(
                ended.owner, min(ended.handing_on, backoff(self.call, 2.0, 0.2)), "hands its result on"
            )
        if ended.failed:
            self._tell("replayed", holder=task_id_of(ended.owner), failed=True)
            raise unpack_error(self.call, ended)
        value = unpack(self.call, ended)
        self._tell("replayed", holder=task_id_of(ended.owner), failed=False)
        return value

    def _was_handed_on(self, ended: Ended) -> bool:
        """Whether an earlier delivery of this very task has stored its result, the last thing it does.

        Asked only of what may be such a delivery, since it costs a round trip.
        """
        request = self.call.request
        redelivered = (request.delivery_info or {}).get("redelivered")
        if request.is_eager or not (self._is_own(ended.owner) or redelivered or backoff(self.call, 2, 1) > 1):
            return False
        backend = self.call.task.backend
        stored = backend.get_state(request.id) if backend.persistent or hasattr(backend, "get") else None
        return stored == (states.FAILURE if ended.failed else states.SUCCESS)

    def _in_progress(self, running: Running) -> Any:
        if not self._is_own(running.owner):
            if self.policy.on_in_progress == "raise":
                raise self._refused(self._reason(running.owner, "is running", running.left))
            if self.policy.on_in_progress == "skip" and not self.call.in_canvas:
                self._tell("skipped", holder=task_id_of(running.owner))
                return None
            if self.call.request.is_eager and keeper.holds(running.owner):
                raise self._refused(self._reason(running.owner, "runs in this very process", None))
        self._wait(running.owner, min(running.left, backoff(self.call, LONGEST_POLL)), "is running")

    def _lapsed(self, lapsed: Lapsed) -> NoReturn:
        """The run vanished, and nobody may rerun it blindly."""
        holder = task_id_of(lapsed.owner)
        reason = RunLapsed(
            f"key {self.shown_key}: the run of {holder} ended without a report, so nobody knows whether "
            "it had its effect; find out, then forget the key to have it run"
        )
        if self.policy.on_lapsed == "dead_letter":
            raise self._refused(reason)
        self._tell("held", holder=holder)
        postpone(self.call, backoff(self.call, LONGEST_HOLD, 5.0), reason, policy=KIND, key=self.shown_key)

    def _without_store(self, error: StoreUnavailable) -> NoReturn:
        self._tell("store_error", at="begin", error=str(error))
        if self.policy.on_store_error == "raise":
            raise error
        postpone(self.call, backoff(self.call, 30.0, 1.0), error, policy=KIND, key=self.shown_key)

    def _wait(self, owner: str, delay: float, what: str) -> NoReturn:
        reason = self._reason(owner, what, delay)
        put_off: Callable[..., NoReturn] = postpone_copy if self._is_own(owner) else postpone
        put_off(self.call, delay, reason, policy=KIND, key=self.shown_key)

    def _is_own(self, owner: str) -> bool:
        """Whether ``owner`` is another delivery of this very task."""
        return task_id_of(owner) == self.call.id

    def _reason(self, owner: str, what: str, retry_after: float | None) -> IdempotencyInProgress:
        return IdempotencyInProgress(f"key {self.shown_key}: {task_id_of(owner)} {what}", retry_after)

    def _refused(self, error: PatternsError) -> PatternsError:
        self._tell("refused", error=type(error).__name__)
        return error

    def _tell(self, kind: str, **detail: Any) -> None:
        _tell(kind, self.call, self.shown_key, **detail)


def _tell(kind: str, call: Call, key: str | None, **detail: Any) -> None:
    emit(Event(kind=kind, policy=KIND, task=call.name, task_id=call.id, key=key, detail=detail))


class IdempotentTask(PolicyTask):
    """A task with ``idempotency = Idempotency(...)``: runs once per key.

    Sets ``acks_late`` and ``reject_on_worker_lost`` unless the task says otherwise, since a task
    that is acknowledged before it runs is lost when its process is killed.
    """

    abstract = True
    needs_policy: ClassVar[str | None] = "idempotency"
    idempotency: Idempotency | None = None


idempotent = as_decorator(Idempotency)
