"""Every way to declare a task wrongly fails at once, and never runs unguarded."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, Task, shared_task

from celery_patterns import Idempotency, IdempotentTask, PolicyTask, attach, idempotent
from celery_patterns.errors import PolicyError
from tests.apps.witness import Witness, WitnessTask, alone, new_app, witnessed
from tests.core.declaring import current, double, policies


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with alone():
        yield


@pytest.fixture
def app() -> Celery:
    """An app that has made none of its tasks yet."""
    return new_app()


def test_below_the_task_decorator_is_refused(app: Celery) -> None:
    """A decorator on the bare function would be lost, and the task run unguarded."""
    with pytest.raises(TypeError, match=r"not a Celery task: write it above @app\.task or @shared_task"):
        app.task(witnessed()(double))


@pytest.mark.parametrize("thing", [None, 7, "task", Witness, Task, SimpleNamespace(name="task")])
def test_what_is_no_task_is_refused(thing: Any) -> None:
    """A policy on something else would be lost."""
    with pytest.raises(PolicyError, match="not a Celery task"):
        attach(thing, Witness())


def test_after_the_tracer_was_built_is_refused(app: Celery) -> None:
    """The worker would go on without the policy, since it took hold of `run` when it started."""
    task = app.task(name="late")(double)
    task.__trace__ = lambda *_: None

    with pytest.raises(PolicyError, match=r"late: .* after the worker had built the task"):
        witnessed()(task)

    assert task.apply((1,)).get() == 2


def test_forgotten_arguments_are_named(app: Celery) -> None:
    """`@idempotent` without its brackets would make the task itself the key."""
    with pytest.raises(PolicyError, match='@idempotent\\(key="order_id"\\)'):
        idempotent(app.task(double))


def unknown_argument_by_base(app: Celery) -> Any:
    return app.task(base=PolicyTask, once=Idempotency("nope"), name="wrong")(double)


def unknown_argument_by_decorator(app: Celery) -> Any:
    return idempotent("nope")(app.task(name="wrong")(double))


def unknown_argument_on_shared(app: Celery) -> Any:
    app.set_current()
    return idempotent("nope")(shared_task(name="wrong")(double))


def two_by_decorators(app: Celery) -> Any:
    return witnessed("a")(witnessed("b")(app.task(name="wrong")(double)))


def two_by_base_and_decorator(app: Celery) -> Any:
    return witnessed("a")(app.task(base=PolicyTask, w=Witness("b"), name="wrong")(double))


def two_on_shared(app: Celery) -> Any:
    app.set_current()
    return witnessed("a")(witnessed("b")(shared_task(name="wrong")(double)))


def base_without_value(app: Celery) -> Any:
    return app.task(base=IdempotentTask, name="wrong")(double)


def base_with_wrong_value(app: Celery) -> Any:
    return app.task(base=WitnessTask, witness="always", name="wrong")(double)


WRONG = {
    unknown_argument_by_base: "key names 'nope', but the task's arguments are n",
    unknown_argument_by_decorator: "key names 'nope', but the task's arguments are n",
    unknown_argument_on_shared: "key names 'nope', but the task's arguments are n",
    two_by_decorators: "two witness policies on one task, .*'b'.* and .*'a'.*; keep one",
    two_by_base_and_decorator: "two witness policies on one task, .*'b'.* and .*'a'.*; keep one",
    two_on_shared: "two witness policies on one task",
    base_without_value: r"IdempotentTask needs the attribute 'idempotency', as in @app.task\(base=Idempot",
    base_with_wrong_value: "WitnessTask needs the attribute 'witness', .* it is 'always'",
}
wrongly = pytest.mark.parametrize(
    ("declare", "message"), WRONG.items(), ids=[form.__name__ for form in WRONG]
)


@wrongly
def test_wrong_declaration_fails_when_the_app_is_made(
    app: Celery, declare: Callable[[Celery], Any], message: str
) -> None:
    """A worker would start, and the mistake show with the first call, or never."""
    with current(app):
        declare(app)

        with pytest.raises(PolicyError, match=f"(?s)wrong: .*{message}|{message}"):
            app.finalize()


@wrongly
def test_wrong_declaration_fails_at_once_when_the_app_is_ready(
    app: Celery, declare: Callable[[Celery], Any], message: str
) -> None:
    """In a process whose app is finalised nothing would notice the mistake any more."""
    app.finalize()
    with current(app), pytest.raises(PolicyError, match=message):
        declare(app)


@wrongly
@pytest.mark.parametrize("ready", [True, False])
def test_wrongly_declared_task_never_runs(
    app: Celery, declare: Callable[[Celery], Any], message: str, ready: bool
) -> None:
    """Celery keeps a task that failed to bind: the second try would run it without its policy."""
    with current(app):
        if ready:
            app.finalize()
        with pytest.raises(PolicyError):
            declare(app).apply_async((1,))

        task = app._tasks["wrong"]
        uses = [lambda: task.apply_async((1,)), lambda: task.delay(1), lambda: task(1), task.s(1).delay]
        for use in uses:
            with pytest.raises(PolicyError, match="wrong was declared wrongly"):
                use()
        assert isinstance(task.apply((1,)).result, PolicyError)


def test_a_policy_without_a_base_is_refused(app: Celery) -> None:
    """A task whose author forgot its base would run unguarded, and nobody be told."""
    forgotten = app.task(idempotency=Idempotency("n"), name="forgotten")(double)
    unguarded = app.task(name="unguarded")(double)

    with pytest.raises(PolicyError, match=r"forgotten: Idempotency.*would not be obeyed.*base=PolicyTask"):
        app.finalize()

    with pytest.raises(PolicyError, match="would not be obeyed"):
        forgotten.delay(1)
    assert unguarded.apply((1,)).get() == 2


def test_one_wrong_declaration_does_not_disarm_others(app: Celery) -> None:
    """The tasks behind the wrong one would lose their policies."""
    with current(app):
        unknown_argument_on_shared(app)
        witnessed()(shared_task(name="right")(double))
        with pytest.raises(PolicyError):
            app.finalize()

        assert policies(app.tasks["right"]) == (Witness(),)
        assert policies(witnessed()(app.task(name="later")(double))) == (Witness(),)


def test_two_of_a_kind_on_a_class_fail_with_its_statement() -> None:
    """One of them would win by chance."""
    with pytest.raises(PolicyError, match=r"Twice: two witness policies .* keep one"):
        type("Twice", (PolicyTask,), {"a": Witness("a"), "b": Witness("b")})


@pytest.mark.parametrize("name", ["rate_limit", "acks_late", "retry", "priority"])
def test_policy_in_place_of_celerys_own_attribute(name: str) -> None:
    """Celery would read the policy as its own setting."""
    with pytest.raises(PolicyError, match=f"Wrong.{name} is Celery's own attribute .* name it witness"):
        type("Wrong", (PolicyTask,), {name: Witness()})


def test_policy_in_place_of_celerys_own_attribute_as_keyword(app: Celery) -> None:
    """The same, written as an option of the task."""
    app.task(base=PolicyTask, rate_limit=Witness())(double)

    with pytest.raises(PolicyError, match="rate_limit is Celery's own attribute"):
        app.finalize()
