"""One queue and one priority for every step of a canvas."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, chain, chord, group, signature
from celery.canvas import chunks, xmap, xstarmap
from kombu.utils.json import dumps, loads

from celery_patterns import Rule, TaskPriority, TaskRouter, route_canvas
from celery_patterns.errors import RuleError
from tests.flows.routing.conftest import RABBITMQ, REDIS, MakeApp


@pytest.fixture
def app(make_app: MakeApp) -> Celery:
    app = make_app(broker=REDIS)

    @app.task(shared=False, name="proj.step")
    def step(*args: Any) -> None: ...

    return app


def s(app: Celery, label: str) -> Any:
    return app.tasks["proj.step"].s(label)


def steps(canvas: Any) -> Iterator[dict[str, Any]]:
    """All tasks in a canvas as it looks in a message, wherever they stand."""
    if isinstance(canvas, dict):
        if (
            "task" in canvas
            and "options" in canvas
            and canvas.get("subtask_type") not in {"chain", "group", "chord"}
        ):
            yield canvas
        for value in canvas.values():
            yield from steps(value)
    elif isinstance(canvas, list):
        for value in canvas:
            yield from steps(value)


def routed(canvas: Any, *, queue: str = "bulk", priority: int = 9) -> set[str]:
    """The labels of the steps; all of them are routed."""
    found = list(steps(json.loads(dumps(canvas))))
    assert {(step["options"].get("queue"), step["options"].get("priority")) for step in found} == {
        (queue, priority)
    }
    return {step["args"][-1] for step in found if step["args"]}


def test_every_step_of_a_nested_canvas(app: Celery) -> None:
    """Steps after the first, and those in bodies and callbacks, would run in the default queue."""
    a, b, c, d, e, f, g, h = (s(app, label) for label in "abcdefgh")
    a.link(s(app, "link").on_error(s(app, "errback of link")))
    f.link_error(s(app, "errback"))
    canvas = chain(a, group(b, chain(c, chord([d, e], f))), g, group(h))
    result = route_canvas(canvas, queue="bulk", priority=TaskPriority.BULK)
    assert result is canvas
    assert routed(canvas) == {*"abcdefgh", "link", "errback", "errback of link"}


def test_a_body_that_is_a_chain(app: Celery) -> None:
    """`chord.set` would reach the body's first step only."""
    canvas = chord([s(app, "a"), chain(s(app, "b"), s(app, "c"))], chain(s(app, "d"), s(app, "e")))
    assert routed(route_canvas(canvas, queue="bulk", priority=TaskPriority.BULK)) == set("abcde")


def test_generators_stay_lazy(app: Celery) -> None:
    """A group of a million tasks would be built before it is published."""
    made = []

    def make() -> Iterator[Any]:
        for number in range(5):
            made.append(number)
            yield s(app, str(number))

    canvas = group(make())
    route_canvas(canvas, queue="bulk", priority=TaskPriority.BULK)
    assert len(made) <= 2, "Celery itself looks at the first one, to find the app"
    assert routed(canvas) == set("01234")


def test_a_canvas_out_of_json(app: Celery) -> None:
    """A canvas that was stored, or sent as an argument, consists of plain dicts."""
    stored = loads(dumps(chain(s(app, "a"), group(s(app, "b"), chord([s(app, "c")], s(app, "d"))))))
    canvas = route_canvas(signature(stored, app=app), queue="bulk", priority=TaskPriority.BULK)
    assert routed(canvas) == set("abcd")
    plain = {"task": "celery.group", "args": [], "kwargs": {"tasks": [dict(s(app, "x"))]}, "options": {}}
    plain |= {"subtask_type": "group", "immutable": False}
    assert routed(route_canvas(signature(plain, app=app), queue="bulk", priority=9)) == {"x"}


def test_a_frozen_canvas(app: Celery) -> None:
    """What `freeze` has attached to the steps would be published as it was."""
    canvas = chord([s(app, "a"), s(app, "b")], s(app, "body"))
    canvas.freeze()
    assert routed(route_canvas(canvas, queue="bulk", priority=9)) == {"a", "b", "body"}


def test_maps_and_chunks(app: Celery) -> None:
    """Both drop their options when they are published (maps in older Celerys)."""
    task, numbers = s(app, "x"), [(1,), (2,), (3,)]
    for made in (xmap(task, numbers, app=app), xstarmap(task, numbers, app=app)):
        route_canvas(made, queue="bulk", priority=9).apply_async()
        assert (app.outbox.last.queue, app.outbox.last.priority) == ("bulk", 9)
    app.outbox.messages.clear()
    route_canvas(chunks(task, numbers, 2, app=app), queue="bulk", priority=9).apply_async()
    route_canvas(
        chain(s(app, "a"), chunks(task, numbers, 2, app=app)), queue="bulk", priority=9
    ).apply_async()
    assert [message.queue for message in app.outbox.messages] == ["bulk"] * 3
    assert [message.priority for message in app.outbox.messages] == [9] * 3


def test_maps_are_still_routed_by_what_they_map(make_app: MakeApp) -> None:
    """With a priority alone, rules would see a map as celery.map, and send it elsewhere."""
    app = make_app(TaskRouter([Rule("proj.charge", queue="charges")]))
    route_canvas(xmap(app.tasks["proj.charge"].s(), [1, 2], app=app), priority=7).apply_async()
    sent = app.outbox.last
    assert (sent.task, sent.queue, sent.priority) == ("celery.map", "charges", 7)


def test_what_is_published(app: Celery) -> None:
    """The options of a group or a chain win over those of their members."""
    canvas = group(s(app, "a"), s(app, "b"), queue="old", exchange="old", routing_key="old")
    route_canvas(canvas, queue="bulk", priority=TaskPriority.BULK).apply_async()
    for message in app.outbox.messages:
        assert (message.queue, message.priority) == ("bulk", 9)
        assert message.options.get("exchange") is None


def test_one_of_the_two(app: Celery) -> None:
    """Setting the priority would forget the queues, and the reverse."""
    canvas = chain(s(app, "a").set(queue="mine"), s(app, "b").set(queue="mine"))
    assert routed(route_canvas(canvas, priority=TaskPriority.HIGH), queue="mine", priority=3) == {"a", "b"}
    assert routed(route_canvas(canvas, queue="other"), queue="other", priority=3) == {"a", "b"}


def test_bodies_know_their_priority_without_the_option(make_app: MakeApp) -> None:
    """Celery publishes the body of a chord in a chain with priority=None: it would run at another."""
    app = make_app(TaskRouter([Rule("*", priority=TaskPriority.CRITICAL)]))
    canvas = chord([app.tasks["proj.method"].si(1)], app.tasks["proj.charge"].s().set(headers={"mine": 1}))
    route_canvas(canvas, queue="bulk", priority=TaskPriority.BULK)
    canvas.body.options["priority"] = None
    canvas.body.apply_async(({},))
    assert (app.outbox.last.queue, app.outbox.last.priority) == ("bulk", 9)
    assert app.outbox.last.headers["mine"] == 1
    assert "headers" not in canvas.options, "those of a chord would replace those of its members"


def test_meanings_of_single_steps_are_settled(app: Celery) -> None:
    """A TaskPriority inside a message cannot be carried: the canvas could not be published."""
    canvas = chain(
        s(app, "a").set(priority=TaskPriority.LOW), s(app, "b").set(priority=TaskPriority.CRITICAL)
    )
    route_canvas(canvas, queue="q")
    assert [step["options"]["priority"] for step in steps(json.loads(dumps(canvas)))] == [6, 0]


def test_the_broker_of_the_app_or_of_another(app: Celery, make_app: MakeApp) -> None:
    """A canvas for RabbitMQ would carry numbers for Redis."""
    other = make_app(broker=RABBITMQ)
    assert routed(route_canvas(chain(s(app, "a"), s(app, "b")), queue="bulk", priority=TaskPriority.BULK))
    canvas = route_canvas(
        chain(s(app, "a"), s(app, "b")), queue="bulk", priority=TaskPriority.BULK, app=other
    )
    assert routed(canvas, priority=0)


def test_a_routed_canvas_wins_over_rules(make_app: MakeApp) -> None:
    """The explicit queue would be overruled step by step."""
    app = make_app(TaskRouter([Rule("*", queue="rule", priority=TaskPriority.HIGH)]))
    route_canvas(app.tasks["proj.charge"].s({}), queue="bulk", priority=TaskPriority.BULK).apply_async()
    assert (app.outbox.last.queue, app.outbox.last.priority) == ("bulk", 9)


@pytest.mark.parametrize("wrong", [{"queue": ""}, {"queue": 3}, {"priority": "high"}, {"priority": 256}])
def test_bad_routes_are_refused(app: Celery, wrong: dict[str, Any]) -> None:
    """The mistake would show in a worker, halfway through the canvas."""
    with pytest.raises(RuleError):
        route_canvas(s(app, "a"), **wrong)
