"""Late acknowledgement: set where a policy needs it, and the task's author has not decided."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, Task, shared_task

from celery_patterns import Idempotency, IdempotentTask, idempotent
from tests.apps.witness import alone, new_app, witnessed
from tests.core.declaring import current, double


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with alone():
        yield


@pytest.fixture
def app() -> Celery:
    """An app that has made none of its tasks yet."""
    return new_app()


SETS = {"acks_late": True, "reject_on_worker_lost": True}


def ack_settings(task: Any) -> dict[str, Any]:
    return {name: getattr(task, name) for name in SETS}


def ack_by_base(app: Celery, **options: Any) -> Any:
    return app.task(base=IdempotentTask, idempotency=Idempotency("n"), name="acks", **options)(double)


def ack_by_decorator(app: Celery, **options: Any) -> Any:
    return idempotent("n")(app.task(name="acks", **options)(double))


def ack_on_shared(app: Celery, **options: Any) -> Any:
    return idempotent("n")(shared_task(name="acks", **options)(double))


def ack_on_finalised(app: Celery, **options: Any) -> Any:
    app.finalize()
    return idempotent("n")(app.task(name="acks", **options)(double))


ack_forms = pytest.mark.parametrize("form", [ack_by_base, ack_by_decorator, ack_on_shared, ack_on_finalised])


@ack_forms
@pytest.mark.parametrize(
    "conf",
    [
        {},
        {"task_acks_late": True},
        {"task_acks_late": False},
        {"task_reject_on_worker_lost": False},
        {"task_acks_late": True, "task_reject_on_worker_lost": True},
    ],
    ids=str,
)
def test_late_acks_are_set_whatever_the_app_says(
    app: Celery, form: Callable[..., Any], conf: dict[str, Any]
) -> None:
    """A killed process would take its task along, since it was acknowledged before it ran."""
    app.conf.update(conf)
    with current(app):
        assert ack_settings(form(app)) == SETS


@ack_forms
@pytest.mark.parametrize(
    "says",
    [
        {"acks_late": False},
        {"reject_on_worker_lost": False},
        {"acks_late": False, "reject_on_worker_lost": False},
        {"acks_late": True},
    ],
    ids=str,
)
def test_late_acks_are_the_tasks_to_decide(
    app: Celery, form: Callable[..., Any], says: dict[str, bool]
) -> None:
    """An author who wants early acknowledgement for one task could not have it."""
    with current(app):
        assert ack_settings(form(app, **says)) == {**SETS, **says}


def test_late_acks_of_a_base_count(app: Celery) -> None:
    """A project's base class that says how its tasks are acknowledged would be overruled."""

    class Early(IdempotentTask):
        abstract = True
        acks_late = False

    class EarlyPlain(Task):
        abstract = True
        acks_late = False

    by_base = app.task(base=Early, idempotency=Idempotency("n"), name="a")(double)
    by_decorator = idempotent("n")(app.task(base=EarlyPlain, name="b")(double))

    assert ack_settings(by_base) == ack_settings(by_decorator) == {**SETS, "acks_late": False}


def test_late_acks_of_a_class_based_task(app: Celery) -> None:
    """The same, for tasks that are classes."""

    class Late(IdempotentTask):
        name = "late"
        idempotency = Idempotency("n")

        def run(self, n: int) -> int:
            return n

    class Early(Late):
        name = "early"
        acks_late = False

    assert ack_settings(app.register_task(Late())) == SETS
    assert ack_settings(app.register_task(Early())) == {**SETS, "acks_late": False}


@pytest.mark.parametrize("form", [ack_by_base, ack_by_decorator, ack_on_shared])
@pytest.mark.parametrize("pattern", ["acks", "*"])
def test_late_acks_of_an_annotation_count(app: Celery, form: Callable[..., Any], pattern: str) -> None:
    """An operator's `task_annotations` would be overruled."""
    app.conf.task_annotations = {pattern: {"acks_late": False}}
    with current(app):
        assert ack_settings(form(app)) == {**SETS, "acks_late": False}


def test_base_that_was_bound_before_says_nothing(app: Celery) -> None:
    """Celery writes its defaults into a bound base, which would pass for the author's word."""
    assert app.Task.app is app  # binds the app's own base class

    assert ack_settings(ack_by_decorator(app)) == SETS


def test_other_policies_leave_acknowledgement_alone(app: Celery) -> None:
    """A policy that needs no late acknowledgement would change how a task is redelivered."""
    assert ack_settings(witnessed()(app.task(double))) == {
        "acks_late": False,
        "reject_on_worker_lost": None,
    }
