"""Retry policies in eager mode: what is tried again, when, and what never is."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from tenacity import retry_if_exception_message, stop_after_attempt, wait_fixed

from celery_patterns import PolicyError, RetryableTask, RetryBudget, RetryPolicy, retryable, simulate
from celery_patterns.core import postpone
from celery_patterns.core.store import Store
from celery_patterns.errors import IdempotencyKeyReused, PoisonMessage, Refused
from celery_patterns.testing import CapturedEvents, MovableClock, capture, memory_store

SOON = {"wait": wait_fixed(5), "stop": stop_after_attempt(3)}


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with memory_store(store_url) as store:
        yield store


@pytest.fixture
def events() -> Iterator[CapturedEvents]:
    with capture() as events:
        yield events


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What an eager call would have slept."""
    slept: list[float] = []
    monkeypatch.setattr(postpone, "sleep", slept.append)
    return slept


@pytest.fixture
def app() -> Celery:
    return Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)


Make = Callable[..., Any]


@pytest.fixture
def make(app: Celery) -> Make:
    """`make(errors, on, ...)`: a task that fails with each of the errors in turn, then succeeds."""

    def make(errors: list[BaseException], *args: Any, **options: Any) -> Any:
        left = list(errors)

        def fetch(self: Any) -> int:
            if left:
                raise left.pop(0)
            return int(self.request.retries)

        value = RetryPolicy(*args, **options)
        name = f"shop.fetch{len(app.tasks)}"
        return app.task(bind=True, base=RetryableTask, retry_policy=value, name=name)(fetch)

    return make


def test_a_passing_error_is_tried_again(make: Make, slept: list[float], events: CapturedEvents) -> None:
    """A broken connection would fail the task."""
    task = make([OSError(), TimeoutError()], OSError, **SOON)
    assert task.apply().get() == 2
    assert slept == [5, 5]
    assert [one.detail["attempt"] for one in events.of("retried")] == [1, 2]


def test_it_gives_up_with_the_error_itself(make: Make, slept: list[float], events: CapturedEvents) -> None:
    """Errbacks and callers would see tenacity's RetryError instead of what went wrong."""
    task = make([OSError(str(n)) for n in range(9)], OSError, **SOON)
    with pytest.raises(OSError, match="2"):
        task.apply().get()
    assert slept == [5, 5]
    assert "3 attempts" in events.of("gave_up")[0].detail["reason"]


@pytest.mark.parametrize(
    "error", [ValueError(), PermissionError(), IdempotencyKeyReused(), PoisonMessage(), MemoryError()]
)
def test_what_will_not_pass_fails_at_once(make: Make, slept: list[float], error: BaseException) -> None:
    """A declined card would be tried eight times, a caller's bug or a poison message as well."""
    task = make(
        [error],
        (OSError, Exception) if not isinstance(error, ValueError) else OSError,
        never_on=PermissionError,
        **SOON,
    )
    with pytest.raises(type(error)):
        task.apply().get()
    assert slept == []


def test_tenacitys_predicates_decide_as_well(make: Make, slept: list[float]) -> None:
    """A predicate on the message would be ignored."""
    on = retry_if_exception_message(match="503")
    assert make([RuntimeError("503")], on, **SOON).apply().get() == 1
    with pytest.raises(RuntimeError):
        make([RuntimeError("404")], on, **SOON).apply().get()


class Busy(Refused):
    pass


def test_an_error_may_name_the_least_delay(make: Make, slept: list[float]) -> None:
    """A service that said when to come back would be asked too soon."""
    make([Busy("no", 60), Busy("no", 1), Busy("no")], Busy, wait=wait_fixed(5)).apply().get()
    assert slept == [60, 5, 5]
    slept.clear()
    option = {"retry_after": lambda error: timedelta(minutes=2)}
    make([OSError()], OSError, wait=wait_fixed(5), **option).apply().get()
    assert slept == [120]


def test_no_attempt_begins_after_the_deadline(make: Make, slept: list[float]) -> None:
    """A task would be tried for ever, long after anybody cares."""
    with pytest.raises(OSError, match="late"):
        make([OSError("late")] * 9, OSError, wait=wait_fixed(50), deadline=30).apply().get()
    assert slept == []


def test_the_defaults_are_full_jitter_eight_attempts_and_ten_minutes() -> None:
    """A crowd of tasks would come back together, or a task wait for hours."""
    found = simulate(RetryPolicy(OSError), calls=300)
    assert len(found.steps) == 7
    assert all(step.highest <= min(600, 2 ** (step.attempt - 1) + 1e-9) for step in found.steps)
    assert found.steps[-1].lowest < found.steps[-1].highest / 2
    assert max(s.highest for s in simulate(RetryPolicy(OSError, stop=stop_after_attempt(30))).steps) <= 600


def test_a_spent_budget_stretches_delays_and_kills_nothing(
    make: Make, slept: list[float], store: Store
) -> None:
    """When a service is down, retries would become most of its load."""
    budget = RetryBudget("stripe", share=0.0, per_second=1)
    app = make([], OSError).app
    delays = [budget.delay(app) for _ in range(14)]
    assert delays[:10] == [0] * 10
    assert [round(delay) for delay in delays[10:]] == [1, 2, 3, 4]
    MovableClock(store).advance(5)
    assert round(budget.delay(app)) == 0
    task = make(
        [OSError()], OSError, wait=wait_fixed(0), budget=RetryBudget("stripe", share=0.0, per_second=0.01)
    )
    assert task.apply().get() == 1
    assert slept[-1] > 50


def test_calls_pay_for_retries(make: Make, store: Store) -> None:
    """A busy task would have no more retries than an idle one."""
    budget = RetryBudget("mail", share=0.5, per_second=1)
    app = make([], OSError).app
    for _ in range(20):
        budget.delay(app)
    for _ in range(24):
        budget.pay_in(app)
    assert budget.delay(app) == 0


def test_a_store_that_is_away_spends_no_budget(make: Make, slept: list[float]) -> None:
    """Retries would fail because their budget cannot be asked."""
    with memory_store("redis://127.0.0.1:1/0"):
        task = make([OSError()], OSError, wait=wait_fixed(1), budget=RetryBudget("stripe"))
        assert task.apply().get() == 1


def test_the_decorator_is_the_same(app: Celery, slept: list[float]) -> None:
    """Two ways to write it would be two ways to behave."""
    runs = []

    @retryable(OSError, **SOON)
    @app.task
    def fetch() -> str:
        runs.append(1)
        if len(runs) < 3:
            raise OSError
        return "done"

    assert fetch.apply().get() == "done"
    assert slept == [5, 5]


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((), {}, "on"),
        (("OSError",), {}, "on='OSError'"),
        ((int,), {}, "on=<class 'int'>"),
        (((),), {"never_on": "x"}, "never_on='x'"),
        ((OSError,), {"wait": 5}, "wait=5"),
        ((OSError,), {"wait": wait_fixed}, "wait="),
        ((OSError,), {"stop": 3}, "stop=3"),
        ((OSError,), {"retry_after": 5}, "retry_after=5"),
        ((OSError,), {"deadline": 0}, "deadline=0"),
        ((OSError,), {"budget": "stripe"}, "budget='stripe'"),
    ],
)
def test_a_wrong_option_fails_when_declared(args: Any, options: Any, message: str) -> None:
    """A typo would be found in an outage."""
    with pytest.raises(TypeError, match=message):
        RetryPolicy(*args, **options)


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [(("",), {}, "name=''"), (("a",), {"share": 2}, "share=2"), (("a",), {"per_second": 0}, "per_second=0")],
)
def test_a_wrong_budget_fails_when_declared(args: Any, options: Any, message: str) -> None:
    """A budget of nothing would stretch every retry to infinity."""
    with pytest.raises(PolicyError, match=message):
        RetryBudget(*args, **options)
