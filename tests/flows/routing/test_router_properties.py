"""The router against a plain first-match model, and against Celery's own Router."""

import fnmatch
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from celery import Celery
from hypothesis import example, given
from hypothesis import strategies as st

from celery_patterns import Rule, TaskPriority, TaskRouter
from tests.flows.routing.conftest import REDIS

TASKS = ["a", "a.b", "a.c", "b", "b.a", "b.a.c"]
UNKNOWN = ["a.x", "c", "b.a.d"]
QUEUES = ["q1", "q2", "q3"]
TIERS = ["free", "gold"]
KOMBU_NUMBERS = dict(zip(TaskPriority, [9, 6, 6, 3, 0], strict=True))


def make_app(*routes: Any) -> Celery:
    app = Celery("model", broker=REDIS, set_as_current=False, fixups=[])
    app.conf.task_routes = list(routes)
    for name in TASKS:

        @app.task(name=name, shared=False)
        def task(amount: int = 0, urgent: bool = False) -> None: ...

    app.finalize()
    return app


@pytest.fixture(scope="module")
def app() -> Celery:
    return make_app()


# --- a model that a reader can check ----------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """What may be said in a call."""

    task: str
    amount: int | None
    urgent: bool
    tier: str | None
    region: str | None
    queue: str | None
    priority: TaskPriority | int | None

    def options(self) -> dict[str, Any]:
        """What it gives to `apply_async`."""
        headers = {"cp-tier": self.tier, "region": self.region}
        said = {"headers": headers, "queue": self.queue, "priority": self.priority}
        return {name: value for name, value in said.items() if value is not None}

    def kwargs(self) -> dict[str, Any]:
        """Its keyword arguments."""
        said = {"amount": self.amount, "urgent": self.urgent or None}
        return {name: value for name, value in said.items() if value is not None}


def above(limit: int) -> Callable[[int], bool]:
    """A predicate that raises for one amount."""

    def is_above(amount: int) -> bool:
        if amount == 13:
            raise ValueError("unlucky")
        return amount > limit

    is_above.limit = limit
    return is_above


def name_matches(pattern: Any, name: str) -> bool:
    if isinstance(pattern, tuple):
        return any(name_matches(one, name) for one in pattern)
    if pattern is None:
        return True
    if isinstance(pattern, re.Pattern):
        return bool(pattern.match(name))
    return fnmatch.fnmatchcase(name, pattern)


def model_matches(rule: dict[str, Any], call: Call) -> bool:
    asked = (
        name_matches(rule["task"], call.task),
        rule["urgent"] in {None, call.urgent},
        not rule["header"] or rule["header"]["region"] == call.region,
        rule["tier"] is None or call.tier in rule["tier"],
    )
    if not all(asked) or rule["when"] is None:
        return all(asked)
    has_amount = call.amount is not None or call.task not in UNKNOWN  # a task that is known has its default
    return has_amount and rule["when"](call.amount or 0)


def model(rules: list[dict[str, Any]], default: dict[str, Any] | None, call: Call) -> dict[str, Any]:
    """Queue and number, by first match."""
    chosen = default or {"queue": None, "priority": None}
    with suppress(ValueError):
        chosen = next((rule for rule in rules if model_matches(rule, call)), chosen)
    speaks_of_priorities = any(
        isinstance(one["priority"], TaskPriority) for one in [*rules, default or chosen]
    )
    priority = chosen["priority"]
    if priority is None and speaks_of_priorities:
        priority = TaskPriority.NORMAL
    if call.priority is not None:
        priority = call.priority
    return {
        "queue": call.queue or chosen["queue"] or "celery",
        "priority": KOMBU_NUMBERS.get(priority, priority),
    }


# --- strategies -------------------------------------------------------------------------------------------

priorities = st.none() | st.sampled_from(TaskPriority) | st.integers(0, 9)
patterns = (
    st.sampled_from(TASKS + UNKNOWN)
    | st.sampled_from(["*", "a.*", "*.a", "b*", "?", "b.?.*", "[ab].c"])
    | st.sampled_from([re.compile("a"), re.compile(r"b\.a"), re.compile(".*c$")])
)
results = st.fixed_dictionaries({"queue": st.none() | st.sampled_from(QUEUES), "priority": priorities})
conditions = st.fixed_dictionaries(
    {
        "task": st.none() | patterns | st.tuples(patterns, patterns),
        "urgent": st.none() | st.booleans(),
        "tier": st.none() | st.just(("gold",)) | st.just(("gold", "free")),
        "header": st.just({}) | st.sampled_from(["eu", "us"]).map(lambda region: {"region": region}),
        "when": st.none() | st.integers(0, 20).map(above),
    }
)
says_something = results.filter(lambda result: result != {"queue": None, "priority": None})
rules = st.builds(lambda asked, result: {**asked, **result}, conditions, says_something)
calls = st.builds(
    Call,
    task=st.sampled_from(TASKS + UNKNOWN),
    amount=st.none() | st.integers(0, 20),
    urgent=st.booleans(),
    tier=st.none() | st.sampled_from(TIERS),
    region=st.none() | st.sampled_from(["eu", "us"]),
    queue=st.none() | st.just("explicit"),
    priority=priorities,
)


@given(
    table=st.lists(rules, max_size=6), default=st.none() | says_something, asked=st.lists(calls, min_size=1)
)
def test_the_first_match_decides(
    app: Celery, table: list[dict[str, Any]], default: dict[str, Any] | None, asked: list[Call]
) -> None:
    """Some combination of rules would send a call elsewhere than a reader of the table thinks."""
    given_default = {} if default is None else {"default": Rule(**default)}
    app.conf.update(task_routes=[TaskRouter([Rule(**rule) for rule in table], **given_default)])
    for call in asked:
        task = app.tasks.get(call.task)
        route = app.amqp.router.route(call.options(), call.task, (), call.kwargs(), task)
        assert decided(route) == model(table, default, call), call


@given(table=st.lists(rules, max_size=6), call=calls)
def test_an_explanation_tells_what_happens(app: Celery, table: list[dict[str, Any]], call: Call) -> None:
    """Operators would be told of another rule than the one that decides."""
    router = TaskRouter([Rule(**rule) for rule in table])
    app.conf.update(task_routes=[router])
    told = router.explain(call.task, (), call.kwargs(), app=app, **call.options())
    task = app.tasks.get(call.task)
    route = app.amqp.router.route(call.options(), call.task, (), call.kwargs(), task)
    assert (told.queue, told.options.get("priority")) == tuple(decided(route).values())
    assert [verdict.rule for verdict in told.considered if verdict.matched] in ([], [told.rule])
    assert str(told)


@given(table=st.lists(rules, max_size=6), asked=st.lists(calls, min_size=1))
def test_rules_called_unreachable_never_decide(table: list[dict[str, Any]], asked: list[Call]) -> None:
    """The check would have people delete a rule that is needed."""
    app = make_app(TaskRouter([Rule(**rule, name=str(number)) for number, rule in enumerate(table)]))
    router = app.conf.task_routes[0]
    hidden = {rule.name for rule, _ in router.table.unreachable()}
    for call in asked:
        assert router.explain(call.task, (), call.kwargs(), app=app, **call.options()).rule not in hidden


# --- Celery's own -----------------------------------------------------------------------------------------

numbers = st.integers(0, 9)
celery_routes = (
    st.sampled_from(QUEUES)
    | st.fixed_dictionaries({"queue": st.sampled_from(QUEUES)}, optional={"priority": numbers})
    | st.fixed_dictionaries({"priority": numbers})
)
celery_patterns = (
    st.sampled_from(TASKS + UNKNOWN)
    | st.sampled_from(["*", "a.*", "*.a", "b*", "b.?.*", "[ab]*c"])
    | st.sampled_from([re.compile("a"), re.compile(r"b\.a")])
)
explicit = st.fixed_dictionaries({}, optional={"queue": st.just("explicit"), "priority": numbers})


@given(
    table=st.dictionaries(celery_patterns, celery_routes, max_size=8),
    name=st.sampled_from(TASKS + UNKNOWN),
    options=explicit,
)
@example(table={"*": "q1", "a": "q2"}, name="a", options={})
def test_celery_s_router_agrees(
    app: Celery, table: dict[Any, Any], name: str, options: dict[str, Any]
) -> None:
    """A dict that is moved over to a TaskRouter would change where tasks go."""

    def route(routes: Any) -> dict[str, Any]:
        app.conf.update(task_routes=[routes])
        return decided(app.amqp.router.route(dict(options), name, (), {}, app.tasks.get(name)))

    assert route(TaskRouter(table)) == route(table)


def decided(route: dict[str, Any]) -> dict[str, Any]:
    """What was decided; Celery takes its default queue when a message has none."""
    queue = route.get("queue")
    return {"queue": "celery" if queue is None else queue.name, "priority": route.get("priority")}
