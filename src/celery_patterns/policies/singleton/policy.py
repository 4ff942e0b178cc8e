"""At most one: the singleton as a value, its base classes and its decorators.

The promise: at most one holder per key, from the moment that the scope names to its end. Two bodies
overlap only where a holder lost its lease and went on all the same; what they write to can tell
them apart by the fence.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from celery.app.task import Task
from celery.local import PromiseProxy, Proxy

from celery_patterns.core.durations import Seconds, one_of, seconds
from celery_patterns.core.ending import is_out_of_reach
from celery_patterns.core.keys import ALL_ARGS, KeySpec, check_key
from celery_patterns.core.policy import Call, Policy, Publish, Run
from celery_patterns.core.redelivery import redelivery_timeout
from celery_patterns.core.store import store_of, tag
from celery_patterns.core.task import PolicyTask, as_decorator
from celery_patterns.core.waits import deferrals
from celery_patterns.errors import KeyArgumentError, PolicyError
from celery_patterns.policies.singleton.delivery import Delivery
from celery_patterns.policies.singleton.lock import KIND, Lock, lock_key
from celery_patterns.policies.singleton.publication import Publication

if TYPE_CHECKING:
    from celery.result import AsyncResult

    from celery_patterns.core.script import Ask

Scope = Literal["until_executing", "until_executed", "while_executing"]
OnConflict = Literal["use_existing", "skip", "raise", "defer", "replace", "keep_latest"]


def _is_a_task(key: Any) -> bool:
    """Whether a decorator was put on a task without being called: then the task is its first argument."""
    return type(key) in {Proxy, PromiseProxy} or isinstance(key, Task)


@dataclass(frozen=True, slots=True)
class Singleton(Policy):
    """Let a task be there at most once per key.

    Use it where a second call adds nothing while the first is under way: a report, an index, a
    synchronisation. Do not use it to have an effect once for all time (that is idempotency: a
    singleton forgets a call when it has ended), nor to have ``n`` at a time (a concurrency limit).

    Args:
        key: Which calls are the same; see :mod:`celery_patterns.core.keys`. Default: all arguments.
        name: Whose keys these are; default: the task's name. Tasks with one name share keys.
        scope: From when to when: ``"until_executed"`` from publishing to the final end, over retries
            and deferrals; ``"until_executing"`` from publishing until the body begins;
            ``"while_executing"`` while the body runs.
        on_conflict: What a second call does. ``"use_existing"``: it is the first call;
            ``apply_async`` returns that one's ``AsyncResult``, and in a canvas it ends with that
            one's result. ``"skip"``: it ends with ``None``, in a canvas with the first one's result.
            ``"raise"``: it fails with :class:`~celery_patterns.errors.SingletonConflict`.
            ``"defer"``: it waits, and runs afterwards. ``"replace"``: it takes the place of a call
            that has not begun, and waits for one that has. ``"keep_latest"``: the first one runs,
            and of those that come meanwhile the last one runs after it.
        queued_ttl: For how long after it was due a message may stay in the queue without losing its
            lock, in seconds or as ``timedelta``. A publisher that is killed before it has sent the
            message blocks the key for as long.
        lease: After how many seconds without a sign of life a run counts as lapsed. It is renewed
            while the body runs, so it need not be longer than the body.
        on_store_error: What a call does when the store is out of reach: ``"defer"`` (it is published
            without its lock, and waits at its start) or ``"raise"``
            :class:`~celery_patterns.errors.StoreUnavailable`. It never runs unguarded.

    Raises:
        PolicyError: An option is out of range; said when declared.
    """

    key: KeySpec = ALL_ARGS
    _: KW_ONLY
    name: str | None = None
    scope: Scope = "until_executed"
    on_conflict: OnConflict = "use_existing"
    queued_ttl: Seconds = 3_600
    lease: Seconds = 60
    on_store_error: Literal["defer", "raise"] = "defer"

    kind: ClassVar[str] = KIND
    order: ClassVar[int] = 60

    def __post_init__(self) -> None:
        if _is_a_task(self.key):
            raise PolicyError("@singleton is called: write @singleton() above @app.task")
        check_key(self.key)
        if self.name is not None and (not isinstance(self.name, str) or not self.name):
            raise PolicyError(f"name={self.name!r}: give a string that is not empty")
        one_of("scope", self.scope, ("until_executing", "until_executed", "while_executing"))
        one_of(
            "on_conflict",
            self.on_conflict,
            ("use_existing", "skip", "raise", "defer", "replace", "keep_latest"),
        )
        object.__setattr__(self, "queued_ttl", seconds("queued_ttl", self.queued_ttl, least=1))
        object.__setattr__(self, "lease", seconds("lease", self.lease, least=0.1))
        one_of("on_store_error", self.on_store_error, ("defer", "raise"))

    def publish(self, call: Call, proceed: Publish) -> AsyncResult[Any]:
        """Take the lock for the message, or do what the policy says about a conflict."""
        lock, key = self._lock(call)
        if call.app.conf.task_always_eager:
            return proceed(call)
        return Publication(self, call, lock, key).send(proceed)

    def run(self, call: Call, proceed: Run) -> Any:
        """Run the body if the lock can be had; else do what the policy says."""
        return (call.kept.pop(KIND, None) or self._delivery(call)).run(proceed)

    def entering(self, call: Call) -> Ask[Any] | None:
        """Whether the lock can be had."""
        delivery = call.kept[KIND] = self._delivery(call)
        return delivery.entering()

    def passed_over(self, call: Call, outcome: BaseException | None) -> None:
        """It was answered, or put off, by a policy further out: its lock must know, or the line for it."""
        may_have_it = KIND in call.answers or (deferrals(call) and not is_out_of_reach(outcome))
        if not call.request.is_eager and (self.scope != "while_executing" or may_have_it):
            with suppress(KeyArgumentError):  # a call without a key never held one
                self._delivery(call).passed_over(outcome)

    def failed(self, call: Call, error: BaseException) -> None:  # noqa: ARG002 - any error is final here
        """It failed for good, was revoked or has expired: let go of the lock."""
        with suppress(KeyArgumentError):  # likewise
            self._delivery(call).failed()

    def lost(self, call: Call, grace: float) -> None:
        """Its process is gone: the lock is the task's again, or lapses."""
        self._delivery(call).lost(grace)

    def _delivery(self, call: Call) -> Delivery:
        lock, key = self._lock(call)
        return Delivery(self, call, lock, key)

    def _lock(self, call: Call) -> tuple[Lock, str]:
        key, name, store = call.key(self.key), self.name or call.name, store_of(call.app)
        lock = Lock(
            store=store,
            key=lock_key(store, name, key),
            on_conflict=self.on_conflict,
            lease=float(self.lease),  # type: ignore[arg-type]  # seconds since __post_init__
            remember=max(float(self.queued_ttl), redelivery_timeout(call.app)),  # type: ignore[arg-type]
            host=getattr(call.request, "hostname", None) or "",
        )
        return lock, f"{tag(name)}:{key}"


class SingletonTask(PolicyTask):
    """A task with ``singleton = Singleton(...)``: there at most once per key."""

    abstract = True
    needs_policy: ClassVar[str | None] = "singleton"
    singleton: Singleton | None = None


class NonOverlappingTask(PolicyTask):
    """A task whose runs with equal arguments never overlap: one that would is skipped, which is an event.

    For what beat sends, and for cron jobs: a run that takes longer than its schedule must not be
    joined by the next. To choose another key or name, use ``@without_overlapping(key, name=...)``, or give
    it a ``singleton`` with the same scope and choice:
    ``Singleton("tenant", scope="while_executing", on_conflict="skip")``. With a ``key`` that is the same for
    all calls, such as ``key=lambda: "all"``, no two runs overlap, whatever their arguments.

    Raises:
        PolicyError: Its ``singleton`` is another kind of singleton.
    """

    abstract = True
    needs_policy: ClassVar[str | None] = "singleton"
    singleton: Singleton = Singleton(scope="while_executing", on_conflict="skip")

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = cls.singleton
        if isinstance(own, Singleton) and (own.scope, own.on_conflict) != ("while_executing", "skip"):
            raise PolicyError(
                f"{cls.__qualname__}: a NonOverlappingTask skips what would overlap while it runs: write "
                'Singleton(..., scope="while_executing", on_conflict="skip"), or base=SingletonTask for '
                f"{own!r}"
            )


def _no_overlap(
    key: KeySpec = ALL_ARGS,
    *,
    name: str | None = None,
    lease: Seconds = 60,
    on_store_error: Literal["defer", "raise"] = "defer",
) -> Singleton:
    if _is_a_task(key):
        raise PolicyError("@without_overlapping is called: write @without_overlapping() above @app.task")
    return Singleton(
        key,
        name=name,
        scope="while_executing",
        on_conflict="skip",
        lease=lease,
        on_store_error=on_store_error,
    )


_no_overlap.__qualname__ = _no_overlap.__name__ = "without_overlapping"  # as errors shall call it
singleton = as_decorator(Singleton)
without_overlapping = as_decorator(_no_overlap)
without_overlapping.__doc__ = (
    "Put Singleton(scope='while_executing', on_conflict='skip') around a task: write it above ``@app.task``."
)
