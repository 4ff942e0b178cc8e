"""The two ways in: every way to declare a task, and every way to declare it wrongly."""

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, Task, _state, shared_task
from pydantic import BaseModel

from celery_patterns import Idempotency, IdempotentTask, Policy, PolicyTask, as_decorator, attach, idempotent
from celery_patterns.errors import PolicyError
from tests.apps.witness import (
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


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with alone():
        yield


@pytest.fixture
def app() -> Celery:
    """An app that has made none of its tasks yet."""
    return new_app()


@contextmanager
def current(app: Celery) -> Iterator[Celery]:
    """Make an app the current one meanwhile."""
    before = _state._tls.current_app
    app.set_current()
    try:
        yield app
    finally:
        _state._set_current_app(before)


def finalised(name: str = "proj", **options: Any) -> Celery:
    app = new_app(name, **options)
    app.finalize()
    return app


def policies(task: Any) -> tuple[Policy, ...]:
    seam = getattr(task, "__patterns__", None)
    return seam.policies if seam else ()


def double(n: int) -> int:
    return n * 2


# --- every form of declaration --------------------------------------------------------------------------


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


# --- several apps, lazy and finalised -------------------------------------------------------------------


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
        assert policies(app.tasks["lazy"]) == policies(app.tasks[f"{__name__}.double"]) == (Witness(),)


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

        full_name = name or f"{__name__}.double"
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

        for each in (app, later):
            found = {name for name, task in each.tasks.items() if policies(task)}
            assert found == ({"watched"} if each is app or kind != "finalised" else found)
            assert found <= {"watched"}


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
            traced_task, renamed_task = each.tasks[f"{__name__}.double"], each.tasks[f"{__name__}.renamed"]
            assert policies(traced_task) == (Witness("traced"),)
            assert policies(renamed_task) == (Witness("renamed"),)
            assert (traced_task.apply((1,)).get(), renamed_task.apply((1,)).get()) == (3, 4)


def test_pydantic_task_is_known_in_the_second_app() -> None:
    """Celery wraps such a function, and the second app's task would not be recognised."""
    one, two = new_app("one"), new_app("two")
    witnessed()(one.task(pydantic=True)(double))

    assert policies(two.tasks[f"{__name__}.double"]) == (Witness(),)


def test_task_that_is_not_shared_stays_alone() -> None:
    """A policy on one app's own task would look for it in others, and fail."""
    one, two = new_app("one"), new_app("two")
    witnessed()(one.task(shared=False)(double))

    assert policies(one.tasks[f"{__name__}.double"]) == (Witness(),)
    assert f"{__name__}.double" not in two.tasks


def test_a_task_without_policy_pays_nothing(app: Celery) -> None:
    """Every task of a project would be slower because one of them has a policy."""
    with current(app):
        witnessed()(app.task(name="watched")(double))
        plain = app.task(name="plain")(double)
        base = app.task(name="base", base=PolicyTask)(double)
        shared_task(name="shared")(double)
        bare = app.register_task(BareClass())
        app.finalize()

        for task in (plain, base, bare, app.tasks["shared"], app.tasks["celery.chord"]):
            assert not {"run", "apply_async", "Request", "__patterns__"} & set(vars(task)) - {"__qualname__"}
            assert task.Request == Task.Request


# --- wrong declarations ---------------------------------------------------------------------------------


def test_below_the_task_decorator_is_refused(app: Celery) -> None:
    """A decorator on the bare function would be lost, and the task run unguarded."""
    with pytest.raises(TypeError, match=r"not a Celery task: write it above @app\.task or @shared_task"):
        app.task(witnessed()(double))


@pytest.mark.parametrize("thing", [None, 7, "task", Witness, BareClass, SimpleNamespace(name="task")])
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


# --- acknowledgement ------------------------------------------------------------------------------------

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
