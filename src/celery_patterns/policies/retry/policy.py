"""Retries as a value, a base class and a decorator."""

from __future__ import annotations

import time
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from celery.exceptions import Ignore, Reject, Retry
from tenacity import RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from celery_patterns.core.durations import Seconds, seconds
from celery_patterns.core.events import Event, emit
from celery_patterns.core.history import FIRST_HEADER, SLEPT_HEADER, remember
from celery_patterns.core.outcome import is_settled
from celery_patterns.core.policy import Call, Policy, Run
from celery_patterns.core.postpone import try_again
from celery_patterns.core.task import PolicyTask, as_decorator
from celery_patterns.errors import (
    DeferralExpired,
    IdempotencyKeyReused,
    KeyArgumentError,
    PoisonMessage,
    PolicyError,
    RunLapsed,
    StoreVersionError,
)
from celery_patterns.policies.retry.budget import RetryBudget
from celery_patterns.policies.retry.decide import Again, Failure, Rules, decide

if TYPE_CHECKING:
    from collections.abc import Callable

KIND = "retry_policy"

Errors = type[BaseException] | tuple[type[BaseException], ...]

_NOT_FAILURES = (Retry, Ignore, Reject)
_NEVER: tuple[type[BaseException], ...] = (
    MemoryError,
    PoisonMessage,
    DeferralExpired,
    IdempotencyKeyReused,
    KeyArgumentError,
    PolicyError,
    RunLapsed,
    StoreVersionError,
)
"""What another attempt cannot mend, whatever ``on`` says."""

DEFAULT_WAIT = wait_random_exponential(multiplier=1, max=600)
"""Full jitter: anything between 0 and 1, 2, 4... seconds, up to 600."""
DEFAULT_STOP = stop_after_attempt(8)


@dataclass(frozen=True, slots=True)
class RetryPolicy(Policy):
    """Try a failed task again, as tenacity's objects decide, without holding a worker slot meanwhile.

    Use it for errors that pass by themselves: a network, a busy database, a service under load. Do
    not use it for errors that stay (a declined card, an invalid address): name them in ``never_on``,
    or leave them out of ``on``.

    Celery's own ways work beside it and come first, since they are inside: a ``Retry`` that leaves
    the body (``self.retry``, ``autoretry_for``) passes through untouched. When Celery gives up, the
    error reaches this policy, which goes on counting where Celery stopped.

    Args:
        on: Which errors: a class, a tuple of classes, or one of tenacity's ``retry_if_...`` objects.
        never_on: Classes that fail at once, also where ``on`` includes them.
        wait: How long: one of tenacity's ``wait_...`` objects, or a sum of them.
        stop: When to give up: one of tenacity's ``stop_...`` objects, or ``|`` or ``&`` of them.
        retry_after: The least delay that an error asks for, in seconds or as ``timedelta``, or
            ``None``; default: its attribute ``retry_after``.
        deadline: Seconds after the beginning of the first attempt (or a ``timedelta``) at which no
            other may begin.
        budget: A budget that this task shares with others.

    Raises:
        PolicyError: An option cannot be what it says; said when declared.
    """

    on: Errors | Callable[[RetryCallState], bool]
    _: KW_ONLY
    never_on: Errors = ()
    wait: Callable[[RetryCallState], float] = DEFAULT_WAIT
    stop: Callable[[RetryCallState], bool] = DEFAULT_STOP
    retry_after: Callable[[BaseException], Seconds | None] | None = None
    deadline: Seconds = 86_400
    budget: RetryBudget | None = None

    kind: ClassVar[str] = KIND
    order: ClassVar[int] = 20
    keys: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not _are_errors(self.on) and (isinstance(self.on, type) or not callable(self.on)):
            raise PolicyError(
                f"on={self.on!r}: give an exception class, a tuple of them, or retry_if_...(...)"
            )
        if not _are_errors(self.never_on):
            raise PolicyError(f"never_on={self.never_on!r}: give an exception class or a tuple of them")
        for name in ("wait", "stop"):
            value = getattr(self, name)
            if isinstance(value, type) or not callable(value):
                raise PolicyError(f"{name}={value!r}: give one of tenacity's {name}_... objects")
        if self.retry_after is not None and not callable(self.retry_after):
            raise PolicyError(f"retry_after={self.retry_after!r}: give a function of the exception")
        if self.budget is not None and not isinstance(self.budget, RetryBudget):
            raise PolicyError(f'budget={self.budget!r}: give a RetryBudget, as RetryBudget("stripe")')
        object.__setattr__(self, "deadline", seconds("deadline", self.deadline, least=1))

    @property
    def _never(self) -> tuple[type[BaseException], ...]:
        return self.never_on if isinstance(self.never_on, tuple) else (self.never_on,)

    @property
    def rules(self) -> Rules:
        """What decides."""
        on = self.on
        return Rules(
            retry=retry_if_exception_type(on) if _are_errors(on) else on,  # type: ignore[arg-type]
            wait=self.wait,
            stop=self.stop,
            floor=self._floor,
            deadline=self.deadline,  # type: ignore[arg-type]
        )

    def run(self, call: Call, proceed: Run) -> Any:
        """Run the body; if it fails, have it run again later, or give up."""
        began = time.time()
        if self.budget is not None and not call.request.retries:
            self.budget.pay_in(call.app)
        try:
            return proceed(call)
        except _NOT_FAILURES:
            raise
        except Exception as error:
            if isinstance(error, (*_NEVER, *self._never)) or is_settled(call):
                raise
            self._after(call, error, began)
            raise

    def _after(self, call: Call, error: Exception, began: float) -> None:
        """Put the next attempt on its way; or return, and the error is final."""
        first = float(call.headers.get(FIRST_HEADER) or began)
        slept = float(call.headers.get(SLEPT_HEADER) or 0.0)
        attempt = int(call.request.retries or 0) + 1
        failure = Failure(error=error, attempt=attempt, elapsed=time.time() - first, slept=slept)
        decision = decide(self.rules, failure, fn=call.seam.body, args=call.args, kwargs=call.kwargs)
        if not isinstance(decision, Again):
            self._tell(call, "gave_up", attempt=attempt, error=type(error).__name__, reason=decision.why)
            return
        delay = decision.delay
        if self.budget is not None:
            delay = max(delay, self.budget.delay(call.app))
        self._tell(call, "retried", attempt=attempt, error=type(error).__name__, delay=delay)
        headers = {**remember(call.headers, error), FIRST_HEADER: first, SLEPT_HEADER: slept + delay}
        try_again(call, delay, error, headers)

    def _floor(self, error: BaseException) -> float:
        asked = self.retry_after(error) if self.retry_after else getattr(error, "retry_after", None)
        if isinstance(asked, timedelta):
            return asked.total_seconds()
        return max(0.0, float(asked)) if isinstance(asked, (int, float)) else 0.0

    def _tell(self, call: Call, kind: str, **detail: Any) -> None:
        emit(Event(kind=kind, policy=KIND, task=call.name, task_id=call.id, detail=detail))


def _are_errors(value: object) -> bool:
    """Whether it is an exception class, or a tuple of them."""
    kinds = value if isinstance(value, tuple) else (value,)
    return all(isinstance(one, type) and issubclass(one, BaseException) for one in kinds)


class RetryableTask(PolicyTask):
    """A task with ``retry_policy = RetryPolicy(...)``: failed attempts are followed by others."""

    abstract = True
    needs_policy: ClassVar[str | None] = "retry_policy"
    retry_policy: RetryPolicy | None = None


retryable = as_decorator(RetryPolicy)
