"""Tasks in lazy apps, finalised apps, and several apps of one process."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, Task, shared_task

from celery_patterns import PolicyTask, idempotent
from tests.apps.witness import (
    Witness,
    WitnessTask,
    alone,
    new_app,
    witnessed,
)
from tests.core.declaring import DOUBLE, current, double, finalised, policies


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with alone():
        yield


@pytest.fixture
def app() -> Celery:
    """An app that has made none of its tasks yet."""
    return new_app()


@pytest.mark.parametrize("decorate", [lambda app: app.task(double), lambda _: shared_task(double)])
def test_declaring_does_not_finalise(decorate: Callable[[Celery], Any]) -> None:
    """A module of tasks that is imported before the app is set up would freeze half of the app."""
    app = new_app(autofinalize=False)
    with current(app):
        witnessed()(decorate(app))
        app.task(base=WitnessTask, witness=Witness(), name="lazy")(double)

        assert not app.finalized
        assert "lazy" not in app._tasks

        app.finalize()
        assert policies(app.tasks["lazy"]) == policies(app.tasks[DOUBLE]) == (Witness(),)


def test_settings_may_come_after_the_tasks() -> None:
    """A decorated task would read the app's settings before they are there."""
    app = new_app()
    task = idempotent("n")(app.task(double))
    app.conf.update(task_serializer="pickle", accept_content=["pickle"])

    task.apply_async((1,), task_id="t-1", serializer="pickle")

    assert task.__patterns__.keys("n").serializer == "pickle"


@pytest.mark.parametrize("name", [None, "explicit"])
@pytest.mark.parametrize("second", ["finalised before", "finalised after", "lazy"])
@pytest.mark.parametrize("first", ["lazy", "finalised", "shared"])
def test_two_apps_in_one_process(first: str, second: str, name: str | None) -> None:
    """The second app of a process would run the same function without its policy."""
    one = finalised("one") if first == "finalised" else new_app("one")
    two = finalised("two") if second == "finalised before" else new_app("two")
    options = {} if name is None else {"name": name}
    with current(one):
        task = shared_task(**options)(double) if first == "shared" else one.task(**options)(double)
        witnessed()(task)
        if second == "finalised after":
            two.finalize()

        full_name = name or DOUBLE
        assert policies(one.tasks[full_name]) == (Witness(),)
        if second != "finalised before" or first == "shared":  # else Celery gives it none
            assert policies(two.tasks[full_name]) == (Witness(),)
            assert two.tasks[full_name] is not one.tasks[full_name]


def test_generated_names_differ_between_apps() -> None:
    """A task of the main module is called after its app, and would be unguarded in the second one."""
    one, two = finalised("one"), new_app("two")

    def script(n: int) -> int:
        return n

    script.__module__ = "__main__"
    assert witnessed()(one.task(script)).name == "one.script"

    assert policies(two.tasks["two.script"]) == (Witness(),)


@pytest.mark.parametrize("kind", ["lazy", "finalised", "shared"])
def test_one_function_under_two_names(kind: str) -> None:
    """A policy would reach a task that it was not put on."""
    app = finalised() if kind == "finalised" else new_app()
    make: Callable[..., Any] = shared_task if kind == "shared" else app.task
    with current(app):
        make(name="plain")(double)
        witnessed()(make(name="watched")(double))
        make(name="again")(double)
        later = finalised("later")

        names = ("plain", "watched", "again")
        for each in (app, later):
            assert {name for name in names if policies(each.tasks[name])} == {"watched"}


@pytest.mark.parametrize("kind", ["lazy", "finalised", "shared"])
def test_function_with_decorators_of_its_own(kind: str) -> None:
    """A tracing decorator below the task would hide the function that the policy was put on."""
    app = finalised() if kind == "finalised" else new_app()
    make: Callable[..., Any] = shared_task if kind == "shared" else app.task

    @functools.wraps(double)
    def traced(*args: Any) -> int:
        return double(*args) + 1

    @functools.wraps(double)
    def renamed(*args: Any) -> int:
        return double(*args) + 2

    renamed.__name__ = "renamed"
    with current(app):
        witnessed("traced")(make(traced))
        witnessed("renamed")(make(renamed))
        later = new_app("later")
        later.finalize()

        for each in (app, later) if kind == "shared" else (app,):
            traced_task, renamed_task = each.tasks[DOUBLE], each.tasks[f"{double.__module__}.renamed"]
            assert policies(traced_task) == (Witness("traced"),)
            assert policies(renamed_task) == (Witness("renamed"),)
            assert (traced_task.apply((1,)).get(), renamed_task.apply((1,)).get()) == (3, 4)


def test_pydantic_task_is_known_in_the_second_app() -> None:
    """Celery wraps such a function, and the second app's task would not be recognised."""
    one, two = new_app("one"), new_app("two")
    witnessed()(one.task(pydantic=True)(double))

    assert policies(two.tasks[DOUBLE]) == (Witness(),)


def test_task_that_is_not_shared_stays_alone() -> None:
    """A policy on one app's own task would look for it in others, and fail."""
    one, two = new_app("one"), new_app("two")
    witnessed()(one.task(shared=False)(double))

    assert policies(one.tasks[DOUBLE]) == (Witness(),)
    assert DOUBLE not in two.tasks


def test_a_task_without_policy_pays_nothing(app: Celery) -> None:
    """Every task of a project would be slower because one of them has a policy."""

    class Bare(Task):
        def run(self, n: int) -> int:
            return n

    with current(app):
        witnessed()(app.task(name="watched")(double))
        plain = app.task(name="plain")(double)
        base = app.task(name="base", base=PolicyTask)(double)
        shared_task(name="shared")(double)
        bare = app.register_task(Bare())
        app.finalize()

        for task in (plain, base, bare, app.tasks["shared"], app.tasks["celery.chord"]):
            assert not {"run", "apply_async", "Request", "__patterns__"} & set(vars(task)) - {"__qualname__"}
            assert task.Request == Task.Request
