"""The two ways in: every way to declare a task is obeyed."""

import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, Task, shared_task
from pydantic import BaseModel

from celery_patterns import Idempotency, IdempotentTask, PolicyTask, as_decorator, attach, idempotent
from tests.apps.witness import (
    SEEN,
    Inner,
    Outer,
    Witness,
    WitnessTask,
    alone,
    inner,
    new_app,
    outer,
    seen,
    witnessed,
)
from tests.core.declaring import current, double, policies


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with alone():
        yield


@pytest.fixture
def app() -> Celery:
    """An app that has made none of its tasks yet."""
    return new_app()


def by_keyword(app: Celery) -> Any:
    return app.task(base=WitnessTask, witness=Witness())(double)


def by_attribute(app: Celery) -> Any:
    class Watched(WitnessTask):
        abstract = True
        witness = Witness()

    return app.task(base=Watched)(double)


def by_plain_base(app: Celery) -> Any:
    return app.task(base=PolicyTask, whatever_it_is_called=Witness())(double)


def by_decorator(app: Celery) -> Any:
    return witnessed()(app.task(double))


def by_decorator_with_options(app: Celery) -> Any:
    return witnessed()(app.task(max_retries=1, name="with_options")(double))


def by_attach(app: Celery) -> Any:
    return attach(app.task(double), Witness())


def on_a_finalised_app(app: Celery) -> Any:
    app.finalize()
    return witnessed()(app.task(double))


def on_an_evaluated_proxy(app: Celery) -> Any:
    task = app.task(double)
    assert task.name
    return witnessed()(task)


def on_a_shared_task(app: Celery) -> Any:
    app.set_current()
    return witnessed()(shared_task(double))


def on_a_shared_task_with_options(app: Celery) -> Any:
    app.set_current()
    return witnessed()(shared_task(name="shared_with_options", max_retries=1)(double))


def by_shared_base(app: Celery) -> Any:
    app.set_current()
    return shared_task(base=WitnessTask, witness=Witness())(double)


class NamedClass(WitnessTask):
    name = "named_class"
    witness = Witness()

    def run(self, n: int) -> int:  # noqa: D102
        return n * 2


class NamelessClass(WitnessTask):
    witness = Witness()

    def run(self, n: int) -> int:  # noqa: D102
        return n * 2


class BareClass(Task):
    def run(self, n: int) -> int:  # noqa: D102
        return n * 2


def by_class(app: Celery) -> Any:
    class Own(NamedClass):
        """Celery binds classes: each app of these tests takes one of its own."""

    return app.register_task(Own())


def by_nameless_class(app: Celery) -> Any:
    class Own(NamelessClass):
        """See above."""

    return app.register_task(Own)


def not_lazy(app: Celery) -> Any:
    task = witnessed()(app.task(lazy=False)(double))
    assert not app.finalized
    return task


def on_a_registered_class(app: Celery) -> Any:
    class Own(BareClass):
        """See above."""

    return witnessed()(app.register_task(Own()))


def by_decorator_and_base(app: Celery) -> Any:
    return witnessed()(app.task(base=IdempotentTask, idempotency=Idempotency("n"))(double))


FORMS = [
    by_keyword,
    by_attribute,
    by_plain_base,
    by_decorator,
    by_decorator_with_options,
    by_attach,
    on_a_finalised_app,
    on_an_evaluated_proxy,
    on_a_shared_task,
    on_a_shared_task_with_options,
    by_shared_base,
    by_class,
    by_nameless_class,
    on_a_registered_class,
    not_lazy,
    by_decorator_and_base,
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@pytest.mark.parametrize("finalise", ["before", "by use"])
def test_every_form_of_declaration_is_obeyed(
    app: Celery, form: Callable[[Celery], Any], finalise: str, patterns_store: Any
) -> None:
    """A task would run without the policy that its author has put on it."""
    with current(app):
        task = form(app)
        if finalise == "before":
            app.finalize()

        assert task.apply((4,)).get() == 8
        assert app.tasks[task.name].apply((5,)).get() == 10

        assert seen("enter") == ["witness"] * 2
        assert Witness() in policies(task)


def test_two_tasks_of_one_class(app: Celery) -> None:
    """A class that is registered twice, under two names, would be guarded once."""

    class Own(PolicyTask):
        witness = Witness()

        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, n: int) -> int:
            return n * 2

    first, second = app.register_task(Own("first")), app.register_task(Own("second"))
    app.finalize()

    assert (first.apply((1,)).get(), second.apply((2,)).get()) == (2, 4)
    assert [entry["task"] for entry in SEEN if entry["event"] == "enter"] == ["first", "second"]


def test_task_class_of_an_app_may_obey_policies() -> None:
    """A project with a base of its own for all tasks could not use plain attributes."""
    app = new_app(task_cls="celery_patterns:PolicyTask")
    plain = app.task(name="plain")(double)
    watched = app.task(name="watched", witness=Witness())(double)

    assert (plain.apply((1,)).get(), watched.apply((2,)).get()) == (2, 4)

    assert policies(plain) == ()
    assert policies(watched) == (Witness(),)


class OuterTask(PolicyTask):
    abstract = True
    outer: Outer | None = None


class InnerTask(PolicyTask):
    abstract = True
    inner: Inner | None = None


MIXINS = {OuterTask: {"outer": Outer()}, InnerTask: {"inner": Inner()}, WitnessTask: {"witness": Witness()}}


@pytest.mark.parametrize("bases", list(itertools.permutations(MIXINS)), ids=lambda bases: bases[0].__name__)
def test_mixins_may_stand_in_any_order(app: Celery, bases: tuple[type, ...]) -> None:
    """The order of bases in a class statement would decide what a refused call costs."""
    values = {name: value for base in bases for name, value in MIXINS[base].items()}
    mixed = type("Mixed", bases, {"abstract": True, **values})
    task = app.task(base=mixed)(double)

    assert task.apply((1,)).get() == 2

    assert seen("enter") == ["outer", "witness", "inner"]


@pytest.mark.parametrize("decorators", list(itertools.permutations([outer, inner, witnessed])))
def test_decorators_may_stand_in_any_order(app: Celery, decorators: tuple[Any, ...]) -> None:
    """The order of decorators would decide what a refused call costs."""
    task = app.task(double)
    for decorator in decorators:
        task = decorator()(task)

    assert task.apply((1,)).get() == 2

    assert seen("enter") == ["outer", "witness", "inner"]


def test_base_and_decorators_mix(app: Celery) -> None:
    """A decorator on a task whose base has policies would displace them."""
    task = outer()(inner()(app.task(base=WitnessTask, witness=Witness())(double)))

    assert task.apply((1,)).get() == 2

    assert seen("enter") == ["outer", "witness", "inner"]


def test_nearest_class_decides(app: Celery) -> None:
    """A task could not have another value than the base that it shares with others."""

    class Far(PolicyTask):
        abstract = True
        witness: Witness | None = Witness("far")
        outer = Outer()

    near = app.task(base=Far, witness=Witness("near"), name="near")(double)
    without = app.task(base=Far, witness=None, name="without")(double)

    assert policies(near) == (Outer(), Witness("near"))
    assert policies(without) == (Outer(),)


def test_policy_may_come_from_a_class_that_is_no_task(app: Celery) -> None:
    """A mixin that carries data alone would be ignored."""

    class Mixin:
        witness = Witness("mixin")

    task = app.task(base=type("Mixed", (Mixin, PolicyTask), {"abstract": True}))(double)

    assert policies(task) == (Witness("mixin"),)


def test_same_policy_twice_is_one(app: Celery) -> None:
    """A module that is imported twice, or a decorator repeated by a base, would run policies twice."""
    task = witnessed()(witnessed()(app.task(base=WitnessTask, witness=Witness())(double)))

    task.apply((1,))

    assert seen("enter") == ["witness"]


def test_own_on_bound_is_still_called(app: Celery) -> None:
    """A base that hooks into the binding of tasks would no longer work below ours."""
    bound = []

    class Hooked(WitnessTask):
        abstract = True

        @classmethod
        def on_bound(cls, app: Celery) -> None:
            super().on_bound(app)
            bound.append(cls.name)

    assert app.task(base=Hooked, witness=Witness(), name="hooked")(double).apply((1,)).get() == 2
    assert "hooked" in bound


@pytest.mark.parametrize("form", ["base", "decorator"])
def test_bound_tasks(app: Celery, form: str) -> None:
    """`self` would be taken for an argument, or be another object than the task."""

    def who(self: Any, order: str) -> Any:
        return self.name, self.request.id, order

    if form == "base":
        task = app.task(bind=True, base=PolicyTask, once=Idempotency("order"), name="who")(who)
    else:
        task = idempotent("order")(app.task(bind=True, name="who")(who))

    assert list(inspect.signature(task.run).parameters) == ["order"]
    assert task("A")[::2] == ("who", "A")


class Order(BaseModel):
    number: int
    amount: int = 1


@pytest.mark.parametrize("form", ["base", "decorator"])
@pytest.mark.parametrize("bind", [True, False])
def test_pydantic_tasks(app: Celery, form: str, bind: bool, patterns_store: Any) -> None:
    """Tasks with models as arguments could have no key, or would get plain dicts."""

    def bound(self: Any, order: Order) -> Order:
        return Order(number=order.number, amount=order.amount + 1)

    def free(order: Order) -> Order:
        return bound(None, order)

    options = {"bind": bind, "pydantic": True, "name": "add_one"}
    if form == "base":
        task = app.task(base=IdempotentTask, idempotency=Idempotency("order.number"), **options)
        task = task(bound if bind else free)
    else:
        task = idempotent("order.number")(app.task(**options)(bound if bind else free))

    assert task.apply(({"number": 7},)).get() == {"number": 7, "amount": 2}


def test_decorator_says_what_it_is() -> None:
    """Help and tracebacks would show a nameless closure."""
    assert witnessed.__name__ == "Witness"
    assert "@app.task" in (witnessed.__doc__ or "")
    assert as_decorator(Outer)("other")
