"""Idempotency as a value, a base class and a decorator.

The promise: at most one recorded effect per key and TTL; effects outside are at most once only
where the callee checks the key or the fence.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from celery.app.task import Task
from celery.local import PromiseProxy, Proxy

from celery_patterns.core.durations import Seconds, one_of, seconds
from celery_patterns.core.keys import KeySpec, check_key
from celery_patterns.core.policy import Call, Policy, Publish, Run
from celery_patterns.core.task import PolicyTask, as_decorator
from celery_patterns.errors import PolicyError
from celery_patterns.policies.idempotency.delivery import Delivery
from celery_patterns.policies.idempotency.record import KIND

if TYPE_CHECKING:
    from celery.result import AsyncResult

    from celery_patterns.core.script import Ask


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
            fails with :class:`~celery_patterns.errors.IdempotencyInProgress`.
        on_lapsed: What happens when a run vanished: ``"rerun"``; ``"hold"`` until a person has
            looked and made the key forgotten; ``"dead_letter"`` fails with
            :class:`~celery_patterns.errors.RunLapsed`.
        cache_errors: Whether a final failure is remembered, and given to duplicates, as well.
        max_result: The largest result that is recorded, in bytes; of a larger one only the fact.
        on_store_error: What a call does when the store is out of reach: ``"defer"``, or ``"raise"``
            :class:`~celery_patterns.errors.StoreUnavailable`. It never runs unguarded.

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
        if type(self.key) in {Proxy, PromiseProxy} or isinstance(self.key, Task):
            raise PolicyError(
                '@idempotent needs to know which calls are the same: write @idempotent(key="order_id")'
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
        """Run the body if the key is free; else do what its record says."""
        return (call.kept.pop(KIND, None) or Delivery(self, call)).run(proceed)

    def entering(self, call: Call) -> Ask[Any]:
        """Whether the key is free."""
        delivery = call.kept[KIND] = Delivery(self, call)
        return delivery.beginning()

    def lost(self, call: Call, grace: float) -> None:
        """Its process is gone: end the lease, so that the next delivery need not wait for it."""
        Delivery(self, call).lost(grace)


class IdempotentTask(PolicyTask):
    """A task with ``idempotency = Idempotency(...)``: runs once per key.

    Sets ``acks_late`` and ``reject_on_worker_lost`` unless the task says otherwise, since a task
    that is acknowledged before it runs is lost when its process is killed.
    """

    abstract = True
    needs_policy: ClassVar[str | None] = "idempotency"
    idempotency: Idempotency | None = None


idempotent = as_decorator(Idempotency)
