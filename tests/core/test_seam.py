"""Where policies meet a task: what passes through them and what does not, in this process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from celery import Celery, Task
from celery.exceptions import Ignore, Reject
from celery.worker.request import Request
from typing_extensions import override

from celery_patterns import Call, Idempotency, Policy, PolicyTask, attach
from celery_patterns.core.postpone import postpone
from celery_patterns.core.waits import deferrals
from celery_patterns.errors import Refused
from tests.apps.witness import (
    SEEN,
    Inner,
    Outer,
    Witness,
    alone,
    inner,
    new_app,
    note,
    outer,
    seen,
    witnessed,
)


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with alone():
        yield


@pytest.fixture
def app() -> Celery:
    """An app that is ready."""
    app = new_app()
    app.finalize()
    return app


def same(n: int, other: int = 0) -> int:
    note("body", by=n)
    return n


# --- running --------------------------------------------------------------------------------------------


def test_run_in_eager_mode(app: Celery) -> None:
    """Tests of users that run tasks eagerly would show another behaviour than their workers."""
    task = witnessed()(app.task(same))
    app.conf.task_always_eager = True

    assert task.apply((1,)).get() == task.delay(1).get() == task.apply_async((1,)).get() == 1

    assert seen() == [*["witness", 1, "witness"], *["witness", "witness", 1, "witness"] * 2]


def test_eager_call_has_a_delivery_of_its_own(app: Celery) -> None:
    """Two eager calls with one id would pass for one owner of a lease."""
    task = witnessed()(app.task(same))

    task.apply((1,), task_id="t-1")
    task.apply((1,), task_id="t-1")

    first, second = (entry["nonce"] for entry in SEEN if entry["event"] == "enter")
    assert first
    assert second
    assert first != second


def test_direct_call_is_the_body_alone(app: Celery) -> None:
    """A plain function call would ask Redis, or be refused."""
    task = witnessed()(app.task(same))

    assert task(1) == task.run(1) == task(n=1) == 1

    assert seen() == [1, 1, 1]


@pytest.mark.parametrize("how", ["self", "self.run"])
def test_body_that_calls_itself(app: Celery, how: str) -> None:
    """A recursive body would be a duplicate of itself, and wait for itself for ever."""

    @witnessed()
    @app.task(bind=True)
    def factorial(self: Any, n: int) -> int:
        call = self if how == "self" else self.run
        return n * call(n - 1) if n else 1

    assert factorial.apply((5,)).get() == 120
    assert seen("enter") == ["witness"]


def test_body_that_calls_another_task(app: Celery) -> None:
    """What a body calls as a function would be held up, and what it runs eagerly would not."""
    other = outer()(app.task(name="other")(same))

    @witnessed()
    @app.task
    def first(n: int) -> list[int]:
        return [other(n), other.apply((n,)).get()]

    assert first.apply((3,)).get() == [3, 3]
    assert seen() == ["witness", 3, "outer", 3, "outer", "witness"]


def test_eager_run_of_the_same_task_inside_itself(app: Celery) -> None:
    """The inner call would be taken for the outer one and run unguarded, or the outer one end early."""

    @witnessed()
    @app.task(bind=True)
    def nested(self: Any, n: int) -> list[str]:
        inner_ids = nested.apply((n - 1,)).get() if n else []
        return [self.request.id, *inner_ids]

    ids = nested.apply((2,)).get()

    assert len(set(ids)) == 3
    assert [entry["id"] for entry in SEEN if entry["event"] == "enter"] == ids


class FlaskStyle(Task):
    """As Flask's documentation has it: without `super`."""

    abstract = True

    @override
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        note("context", by="context")
        return self.run(*args, **kwargs)


class SuperStyle(Task):
    """As others have it: with `super`."""

    abstract = True

    @override
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        note("context", by="context")
        return super().__call__(*args, **kwargs)


@pytest.mark.parametrize("base", [FlaskStyle, SuperStyle])
@pytest.mark.parametrize("form", ["task_cls", "base", "mixed with ours", "mixed, ours first"])
def test_base_that_overrides_call(base: type[Task], form: str) -> None:
    """In every project with an application context around its tasks policies would be ignored."""
    app = new_app(task_cls=base) if form == "task_cls" else new_app()
    match form:
        case "task_cls":
            task = witnessed()(app.task(same))
        case "base":
            task = witnessed()(app.task(base=base)(same))
        case "mixed with ours":
            task = app.task(base=type("Mixed", (base, PolicyTask), {"abstract": True, "w": Witness()}))(same)
        case _:
            task = app.task(base=type("Mixed", (PolicyTask, base), {"abstract": True, "w": Witness()}))(same)

    assert task.apply((1,)).get() == 1
    assert seen() == ["context", "witness", 1, "witness"]

    SEEN.clear()
    assert task(2) == 2
    assert seen() == ["context", 2]


@pytest.mark.parametrize("base", [FlaskStyle, SuperStyle])
def test_base_that_overrides_call_and_calls_itself(app: Celery, base: type[Task]) -> None:
    """The inner call would be a duplicate of the outer one."""

    @witnessed()
    @app.task(bind=True, base=base)
    def down(self: Any, n: int) -> int:
        return self(n - 1) if n > 1 else self.run(n - 1) if n else 0

    assert down.apply((3,)).get() == 0
    assert seen("enter") == ["witness"]


def test_class_based_task_may_use_super(app: Celery) -> None:
    """A class that refines the body of its base would pass through the policies twice."""

    class Base(PolicyTask):
        abstract = True
        witness = Witness()

        def run(self, n: int) -> int:
            return n + 1

    class Refined(Base):
        name = "refined"

        @override
        def run(self, n: int) -> int:
            return super().run(n) * 2

    assert app.register_task(Refined()).apply((1,)).get() == 4
    assert seen("enter") == ["witness"]


def test_handler_that_calls_the_body(app: Celery) -> None:
    """What a task's own `on_success` calls would count as a second run of the same call."""

    class Twice(PolicyTask):
        name = "twice"
        witness = Witness()

        def run(self, n: int) -> int:
            note("body", by=n)
            return n

        @override
        def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
            self.run(retval + 1)

    assert app.register_task(Twice()).apply((1,)).get() == 1
    assert seen() == ["witness", 1, "witness", 2]


@pytest.mark.parametrize("how", ["map", "starmap", "chunks"])
def test_mapped_calls_are_direct_calls(app: Celery, how: str) -> None:
    """`task.map(...)` calls the body as a function inside another task: it would fail or change meaning."""
    task = witnessed()(app.task(same))
    rows = [1, 2] if how == "map" else [(1,), (2,)]
    if how == "chunks":
        app.conf.task_always_eager = True
        results = [part.get() for part in task.chunks(rows, 1)().results]
    else:
        results = getattr(task, how)(rows).apply().get()

    assert results == ([[1], [2]] if how == "chunks" else [1, 2])
    assert seen() == [1, 2]


# --- retries --------------------------------------------------------------------------------------------


def test_policies_stay_outside_autoretry(app: Celery) -> None:
    """Policies would take a failure that is retried for a final one, or each attempt would skip them."""

    @app.task(autoretry_for=(ConnectionError,), max_retries=1, retry_backoff=False, default_retry_delay=0)
    def flaky() -> None:
        raise ConnectionError

    watched = app.task(
        base=PolicyTask, w=Witness(), autoretry_for=(ConnectionError,), max_retries=1, name="watched"
    )(flaky.run.__wrapped__)

    for task in (witnessed()(flaky), watched):
        SEEN.clear()
        assert isinstance(task.apply().result, ConnectionError)
        assert [entry["how"] for entry in SEEN if entry["event"] == "leave"] == ["Retry", "ConnectionError"]


def test_autoretry_of_a_registered_class(app: Celery) -> None:
    """The same, for tasks that are classes."""

    class Flaky(PolicyTask):
        witness = Witness()
        autoretry_for = (ConnectionError,)
        max_retries = 1

        def run(self) -> None:
            raise ConnectionError

    app.register_task(Flaky()).apply()

    assert [entry["how"] for entry in SEEN if entry["event"] == "leave"] == ["Retry", "ConnectionError"]


def test_eager_retry_passes_through_policies_again(app: Celery) -> None:
    """The second attempt would run unguarded."""

    @witnessed()
    @app.task(bind=True, max_retries=2)
    def thrice(self: Any) -> int:
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return self.request.retries

    assert thrice.apply().get() == 2
    entered = [entry for entry in SEEN if entry["event"] == "enter"]
    assert [entry["retries"] for entry in entered] == [0, 1, 2]
    assert len({entry["id"] for entry in entered}) == 1
    assert len({entry["nonce"] for entry in entered}) == 3


# --- how a run ends -------------------------------------------------------------------------------------


def ending(app: Celery, error: BaseException) -> Any:
    @witnessed()
    @app.task(bind=True, max_retries=1)
    def end(self: Any) -> None:
        raise error

    return end


@pytest.mark.parametrize("throw", [True, False])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError(), True),
        (Reject("no", requeue=False), True),
        (Reject("later", requeue=True), False),
        (Ignore(), False),
    ],
    ids=repr,
)
def test_failed_hook_in_eager_mode(app: Celery, error: Exception, told: bool, throw: bool) -> None:
    """What a failed eager call holds would stay held: a propagated error sends no signal."""
    task = ending(app, error)
    try:
        task.apply(throw=throw)
    except ValueError:
        assert throw

    assert [entry["error"] for entry in SEEN if entry["event"] == "failed"] == [type(error).__name__] * told


def test_failed_hook_comes_once_after_retries(app: Celery) -> None:
    """A task that will be retried would be let go of, or one that is given up would not."""

    @witnessed()
    @app.task(bind=True, max_retries=2)
    def hopeless(self: Any) -> None:
        raise self.retry(countdown=0, exc=ValueError())

    hopeless.apply()

    assert [entry["error"] for entry in SEEN if entry["event"] == "failed"] == ["ValueError"]


@dataclass(frozen=True)
class Answering(Policy):
    """Answers, or refuses, each call itself."""

    error: Exception | None = None

    kind: ClassVar[str] = "answering"
    order: ClassVar[int] = 15

    @override
    def run(self, call: Call, proceed: Callable[[Call], Any]) -> Any:
        call.at_exit.append(lambda outcome: note("exit", by="first", outcome=outcome))
        call.at_exit.append(lambda outcome: note("exit", by="second", outcome=outcome))
        if self.error is not None:
            raise self.error
        return "answered"


@dataclass(frozen=True)
class PassedOver(Policy):
    """Writes down how calls ended that did not come to it."""

    kind: ClassVar[str] = "passed_over"
    order: ClassVar[int] = 20

    @override
    def passed_over(self, call: Call, outcome: BaseException | None) -> None:
        note("exit", by="inside", outcome=outcome)
        raise RuntimeError("cannot clean up")


@pytest.mark.parametrize("error", [None, ValueError("no")], ids=repr)
def test_a_run_that_ends_further_out_is_told_inside_and_then_to_those_who_asked(
    app: Celery, error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    """What a policy took at publish would be kept by a call that never came to it."""
    policies = {"outer": Outer(), "answering": Answering(error), "inside": PassedOver()}
    task = app.task(base=PolicyTask, name="same", **policies)(same)

    result = task.apply((1,))

    assert result.result is (error or "answered")
    assert seen("exit") == ["inside", "second", "first"]
    assert all(entry["outcome"] is error for entry in SEEN if entry["event"] == "exit")
    assert "could not clean up at its exit" in caplog.text


@dataclass(frozen=True)
class Clumsy(Policy):
    """A policy whose clean-up fails."""

    kind: ClassVar[str] = "clumsy"
    order: ClassVar[int] = 1

    @override
    def failed(self, call: Call, error: BaseException) -> None:
        raise RuntimeError("cannot clean up")


def test_failing_clean_up_stops_nobody(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    """One policy's trouble would keep the others from letting go, and change how the task ended."""
    task = attach(ending(app, ValueError("the task's own")), Clumsy())

    result = task.apply()

    assert str(result.result) == "the task's own"
    assert seen("failed") == ["witness"]
    assert "clumsy could not clean up in 'failed'" in caplog.text


@dataclass(frozen=True)
class PutOff(Policy):
    """Puts a call off once."""

    kind: ClassVar[str] = "put_off"
    order: ClassVar[int] = 60

    @override
    def run(self, call: Call, proceed: Callable[[Call], Any]) -> Any:
        if not seen("put_off"):
            note("put_off", deferrals=deferrals(call))
            postpone(call, 0.25, Refused("busy", 0.25), policy=self.kind)
        return proceed(call)


def test_eager_call_that_is_put_off_waits_in_place(
    app: Celery, patterns_clock: Any, patterns_store: Any, patterns_events: Any
) -> None:
    """An eager call has no broker to wait in: it would be lost, or sent to a real one."""
    task = attach(witnessed()(app.task(same)), PutOff())
    before = patterns_store.now()

    assert task.apply((1,)).get() == 1

    assert patterns_store.now() - before >= 0.25
    assert seen() == ["witness", "put_off", "witness", "witness", 1, "witness"]
    assert [event.kind for event in patterns_events] == ["deferred"]


def test_policies_with_and_without_keys(app: Celery, patterns_store: Any) -> None:
    """A policy that has no key of its own could not read the arguments by name."""

    @dataclass(frozen=True)
    class Reading(Policy):
        kind: ClassVar[str] = "reading"
        order: ClassVar[int] = 1

        @override
        def run(self, call: Call, proceed: Callable[[Call], Any]) -> Any:
            note("read", by=dict(call.arguments))
            return proceed(call)

    attach(app.task(name="a")(same), Reading()).apply((1,))
    attach(attach(app.task(name="b")(same), Reading()), Idempotency("n")).apply((2,))

    assert seen("read") == [{"n": 1, "other": 0}, {"n": 2, "other": 0}]


def test_custom_request_class_is_kept(app: Celery) -> None:
    """A project with a `Request` class of its own would lose it, or the nonce of each delivery."""

    class Own(Request):
        """A project's own."""

    class Base(Task):
        abstract = True
        Request = Own

    task = witnessed()(app.task(base=Base)(same))

    assert issubclass(task.Request, Own)
    assert task.Request is not Own
    assert Base.Request is Own


def test_task_with_an_attribute_called_patterns(app: Celery) -> None:
    """A task that keeps, say, glob patterns on its class could have no policy."""
    task = witnessed()(app.task(patterns=["*.csv"])(same))

    assert task.apply((1,)).get() == 1
    assert task.patterns == ["*.csv"]


def test_order_of_installed_policies(app: Celery) -> None:
    """`call.seam.policies`, which tools show, would not be the order in which they stand."""
    task = inner()(outer()(app.task(same)))

    assert task.__patterns__.policies == (Outer(), Inner())
