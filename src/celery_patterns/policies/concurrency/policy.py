"""At most n at once: the concurrency limit as a value, a base class and a decorator.

The promise: at most ``limit`` bodies hold a place, over all workers. More can be at work only where
one of them lost its lease and went on all the same.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from celery.app.task import Task
from celery.local import PromiseProxy, Proxy

from celery_patterns.core.durations import Seconds, one_of, seconds
from celery_patterns.core.ending import is_out_of_reach
from celery_patterns.core.keys import KeySpec, check_key
from celery_patterns.core.policy import Call, Policy, Publish, Run
from celery_patterns.core.redelivery import redelivery_timeout
from celery_patterns.core.store import store_of, tag
from celery_patterns.core.task import PolicyTask, as_decorator
from celery_patterns.core.waits import deferrals
from celery_patterns.errors import KeyArgumentError, PolicyError
from celery_patterns.policies.concurrency.delivery import Delivery
from celery_patterns.policies.concurrency.places import KIND, Places, limit_key

if TYPE_CHECKING:
    from celery.result import AsyncResult

    from celery_patterns.core.script import Ask


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit(Policy):
    """Let at most ``limit`` calls run at a time, over all workers.

    Use it where something can stand only so many at once: connections to a partner, licences,
    exports of one tenant. Do not use it to limit how many start per second (a rate limit), nor where
    a second call is superfluous (a singleton).

    Args:
        limit: How many; 1 is a queue with one server.
        key: Which calls share the limit; see :mod:`celery_patterns.core.keys`. Default: all of them.
        name: Whose limit it is; default: the task's name. Tasks with one name share it.
        on_conflict: What a call does that finds no place. ``"defer"``: it waits in line, and a place
            that becomes free is for those who have waited longest. ``"skip"``: it ends with ``None``,
            and waits in a canvas. ``"raise"``: it fails with
            :class:`~celery_patterns.errors.ConcurrencyLimitReached`.
        lease: After how many seconds without a sign of life a run has lost its place. It is renewed
            while the body runs, so it need not be longer than the body.
        on_store_error: What a call does when the store is out of reach: ``"defer"``, or ``"raise"``
            :class:`~celery_patterns.errors.StoreUnavailable`. It never runs unguarded.

    Raises:
        PolicyError: An option is out of range; said when declared.
    """

    limit: int
    _: KW_ONLY
    key: KeySpec | None = None
    name: str | None = None
    on_conflict: Literal["defer", "skip", "raise"] = "defer"
    lease: Seconds = 60
    on_store_error: Literal["defer", "raise"] = "defer"

    kind: ClassVar[str] = KIND
    order: ClassVar[int] = 61
    """Inside a singleton: a call that is turned away as a duplicate must not have taken a place."""

    def __post_init__(self) -> None:
        written: Any = self.limit
        if type(written) in {Proxy, PromiseProxy} or isinstance(written, Task):
            raise PolicyError(
                "@concurrency_limit needs to know how many may run at once: write @concurrency_limit(2) "
                "above @app.task"
            )
        if isinstance(self.limit, bool) or not isinstance(self.limit, int) or self.limit < 1:
            raise PolicyError(f"limit={self.limit!r}: give how many may run at once, 1 or more")
        if self.key is not None:
            check_key(self.key)
        if self.name is not None and (not isinstance(self.name, str) or not self.name):
            raise PolicyError(f"name={self.name!r}: give a string that is not empty")
        one_of("on_conflict", self.on_conflict, ("defer", "skip", "raise"))
        object.__setattr__(self, "lease", seconds("lease", self.lease, least=0.1))
        one_of("on_store_error", self.on_store_error, ("defer", "raise"))

    def publish(self, call: Call, proceed: Publish) -> AsyncResult[Any]:
        """Refuse a call whose key cannot be made, where the caller can still mend it.

        Raises:
            StoreUnavailable: As ``on_store_error`` says, where a task id is used again.
        """
        if call.has_chosen_id and not call.app.conf.task_always_eager:
            self._delivery(call).sent_anew()
        elif self.key is not None:
            call.key(self.key)
        return proceed(call)

    def run(self, call: Call, proceed: Run) -> Any:
        """Run the body if there is a place; else do what the policy says."""
        return (call.kept.pop(KIND, None) or self._delivery(call)).run(proceed)

    def entering(self, call: Call) -> Ask[Any]:
        """Whether there is a place."""
        delivery = call.kept[KIND] = self._delivery(call)
        return delivery.acquiring(again=False)

    def passed_over(self, call: Call, outcome: BaseException | None) -> None:
        """It was answered, or put off, by a policy further out: meanwhile others come before it."""
        if KIND in call.answers or (deferrals(call) and not is_out_of_reach(outcome)):
            with suppress(KeyArgumentError):  # a call without a key never held a place
                self._delivery(call).passed_over()

    def failed(self, call: Call, error: BaseException) -> None:  # noqa: ARG002 - any error is final here
        """It failed for good, was revoked or has expired: let go of its place."""
        with suppress(KeyArgumentError):  # likewise
            self._delivery(call).failed()

    def lost(self, call: Call, grace: float) -> None:
        """Its process is gone: so is its claim to a place."""
        self._delivery(call).lost(grace)

    def _delivery(self, call: Call) -> Delivery:
        name, store = self.name or call.name, store_of(call.app)
        key = None if self.key is None else call.key(self.key)
        places = Places(
            store=store,
            key=limit_key(store, name, key),
            limit=self.limit,
            lease=float(self.lease),  # type: ignore[arg-type]  # seconds since __post_init__
            remember=redelivery_timeout(call.app),
            host=getattr(call.request, "hostname", None) or "",
        )
        return Delivery(self, call, places, tag(name) if key is None else f"{tag(name)}:{key}")


class ConcurrencyLimitedTask(PolicyTask):
    """A task with ``concurrency_limit = ConcurrencyLimit(...)``: at most so many at once."""

    abstract = True
    needs_policy: ClassVar[str | None] = "concurrency_limit"
    concurrency_limit: ConcurrencyLimit | None = None


concurrency_limit = as_decorator(ConcurrencyLimit)
