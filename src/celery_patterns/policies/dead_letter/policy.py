"""Dead letters as a value, a mixin, a base class and a decorator."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from celery import Task

from celery_patterns.core.durations import Seconds, seconds
from celery_patterns.core.policy import Call, Policy, Run
from celery_patterns.core.task import PolicyTask, as_decorator
from celery_patterns.deadletters.store import KIND
from celery_patterns.deadletters.unroutable import watch_worker
from celery_patterns.errors import PolicyError
from celery_patterns.policies.dead_letter.delivery import Delivery

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_QUEUE = "dead"
"""The dead-letter queue of a policy that names none."""


@dataclass(frozen=True, slots=True)
class DeadLetter(Policy):
    """Keep a task that failed for good, with all that is needed to run it again.

    Use it for every task whose loss somebody would notice. Do not use it for tasks that are
    repeated anyway (a poll, a periodic refresh): their dead letters would only be noise.

    Args:
        queue: The dead-letter queue: a name by which operators tell apart whose letters these are;
            default ``"dead"``. It is a label in the store, and no queue of the broker.
        retention: For how long an entry is kept once it is resolved or archived, in seconds or as
            ``timedelta``. Open ones are kept until a person decides.
        max_deliveries: How many deliveries may begin the body and vanish with their process,
            before the task counts as poison and is not run again.
        redact: Names of arguments whose values operators shall not see. They are part of what is
            stored and replayed.

    Raises:
        PolicyError: An option is out of range; said when declared.
    """

    queue: str | None = None
    _: KW_ONLY
    retention: Seconds = 30 * 86_400
    max_deliveries: int = 5
    redact: Iterable[str] = ()

    kind: ClassVar[str] = KIND
    order: ClassVar[int] = 10
    late_acks: ClassVar[Literal["set", "warn"]] = "set"
    keys: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.queue is not None and (not isinstance(self.queue, str) or not self.queue):
            raise PolicyError(
                f"dead letters: queue={self.queue!r} is no name; "
                'write @dead_letter() or @dead_letter("payments") above @app.task'
            )
        object.__setattr__(self, "queue", self.queue or DEFAULT_QUEUE)
        object.__setattr__(self, "retention", seconds("retention", self.retention, least=1))
        most = self.max_deliveries
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise PolicyError(f"max_deliveries={most!r}: give a number of deliveries, 1 or more")
        if isinstance(self.redact, str):
            raise PolicyError(f"redact={self.redact!r}: give a tuple of arguments' names")
        object.__setattr__(self, "redact", tuple(self.redact))
        watch_worker()

    def run(self, call: Call, proceed: Run) -> Any:
        """Run the body; if that fails for good, store the message before Celery hears of it."""
        return Delivery(self, call).run(proceed)

    def succeeded(self, call: Call) -> None:
        """Its result is stored: if it is a replay, its entry is resolved."""
        if call.replay:
            Delivery(self, call).succeeded()

    def failed(self, call: Call, error: BaseException) -> None:
        """It failed where the body could not tell: in the worker's parent, or after the body."""
        Delivery(self, call).failed(error)

    def lost(self, call: Call, grace: float) -> None:  # noqa: ARG002 - the hook's signature
        """Its process is gone: remember that this delivery vanished."""
        Delivery(self, call).lost()


class DeadLetterMixin:
    """Gives a task ``dead_letter = DeadLetter()``; mix it with the base of any other pattern."""

    dead_letter: DeadLetter | None = DeadLetter()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        bases = cls.__mro__
        if Task in bases and PolicyTask not in bases:
            raise PolicyError(
                f"{cls.__qualname__}: DeadLetterMixin needs a base that obeys policies; "
                "use DeadLetterTask instead, or PolicyTask in place of Task"
            )


class DeadLetterTask(DeadLetterMixin, PolicyTask):
    """A task with ``dead_letter = DeadLetter()``: kept when it fails for good.

    Sets ``acks_late`` and ``reject_on_worker_lost`` unless the task says otherwise.
    """

    abstract = True
    needs_policy: ClassVar[str | None] = "dead_letter"


dead_letter = as_decorator(DeadLetter)
