"""Routing on real brokers and real workers."""

import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.bin.base import CLIContext
from click.testing import CliRunner

from celery_patterns import (
    Rule,
    TaskPriority,
    TaskRouter,
    route_canvas,
    submit_with_priority,
    task_queues_for,
)
from celery_patterns.cli import patterns
from celery_patterns.errors import PriorityNotTranslated
from tests.conftest import Broker
from tests.ground.stage import Stage
from tests.ground.workers import Worker

ROUTED = "tests.apps.routed"
StartWorker = Callable[..., Worker]
LEVELS = [level.name for level in TaskPriority]


@pytest.fixture
def routed(broker: Broker, stage: Stage) -> ModuleType:
    return stage.load(ROUTED)


def test_200_queued_tasks_run_by_urgency(
    routed: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """CRITICAL would run after BULK on one of the two brokers."""
    calls = [(LEVELS[number % len(LEVELS)], number) for number in range(200)]
    random.Random(7).shuffle(calls)
    for level, number in calls:
        routed.work.delay(level, number=number)
    worker(ROUTED, concurrency=1, queues=["celery"])
    wait_for(lambda: stage.history.count("work") == 200, timeout=60)
    ran = [(entry["level"], entry["number"]) for entry in stage.history.entries("work")]
    expected = [call for level in reversed(LEVELS) for call in calls if call[0] == level]
    assert ran == expected, "by urgency, and within one priority in the order of arrival"


def test_submitted_and_explicit_priorities_take_the_same_order(
    routed: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """Rules, submit_with_priority and apply_async would each have an order of their own."""
    levels = ["BULK", "NORMAL", "HIGH"] * 3
    for number, level in enumerate(levels):
        if number % 2:
            routed.work.apply_async(("?", number), priority=TaskPriority[level])
        else:
            tier = {"BULK": None, "NORMAL": "standard", "HIGH": "premium"}[level]
            submit_with_priority(routed.work, (level if tier is None else "?", number), user_tier=tier)
    for number in (0, 6):  # submit_with_priority without a tier means NORMAL, and explicit beats the rule
        levels[number] = "NORMAL"
    worker(ROUTED, concurrency=1, queues=["celery"])
    wait_for(lambda: stage.history.count("work") == len(levels))
    ran = [levels[entry["number"]] for entry in stage.history.entries("work")]
    assert ran == sorted(levels, key=lambda level: TaskPriority[level], reverse=True)


def test_two_brokers_in_one_process(redis_url: str, rabbitmq_url: str) -> None:
    """One router for two apps would give both the numbers of the one that published first."""
    router = TaskRouter(
        [Rule(header={"level": level.name}, queue="two", priority=level) for level in TaskPriority]
    )
    apps = [Celery("two", broker=url, set_as_current=False) for url in (redis_url, rabbitmq_url)]
    for app in apps:
        app.conf.update(task_routes=[router], task_ignore_result=True, **task_queues_for(router))
    for level in LEVELS * 2:
        for app in apps:
            app.send_task("two.work", headers={"level": level})
    for app in apps:
        assert _drained(app, "two", len(LEVELS) * 2) == [
            level for level in reversed(LEVELS) for _ in range(2)
        ]
        app.close()


def _drained(app: Celery, queue: str, count: int) -> list[str]:
    """The levels of the messages in a queue, in the order in which the broker serves them."""
    with app.connection_for_read() as connection:
        consumer = connection.SimpleQueue(app.amqp.queues[queue])
        messages = [consumer.get(timeout=5) for _ in range(count)]
        for message in messages:
            message.ack()
        consumer.close()
    return [message.headers["level"] for message in messages]


@pytest.mark.parametrize("urgent", [False, True])
def test_retries_keep_the_decision(
    routed: ModuleType, stage: Stage, worker: StartWorker, urgent: bool
) -> None:
    """A retry knows nothing of the option `urgent`: it would move to the slow queue."""
    worker(ROUTED, concurrency=1)
    assert routed.again.apply_async((0,), urgent=urgent).get(timeout=20) == 2
    attempts = stage.history.entries("again")
    assert [entry["retries"] for entry in attempts] == [0, 1, 2]
    assert {entry["queue"] for entry in attempts} == {"fast" if urgent else "slow"}
    assert len({entry["priority"] for entry in attempts}) == 1
    assert attempts[0]["priority"] is not None
    if urgent:
        assert all(entry["urgent"] is True for entry in attempts)


def test_delayed_retries_stay_in_their_quorum_queue(
    stage: Stage, worker: StartWorker, rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery computes the delay of a retry for the default queue: the second attempt would run there."""
    stage.conf["broker_url"] = rabbitmq_url
    monkeypatch.setenv("ROUTED_QUEUES", "quorum")
    routed = stage.load(ROUTED)
    worker(ROUTED, concurrency=1, env={"ROUTED_QUEUES": "quorum"})
    assert routed.again.delay(1).get(timeout=60) == 2
    assert {entry["queue"] for entry in stage.history.entries("again")} == {"slow"}


def test_a_routed_canvas_runs_in_its_queue_alone(
    routed: ModuleType, broker: Broker, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """A worker that reads only that queue would wait for steps that went elsewhere."""

    def s(label: str) -> Any:
        return routed.step.s(label)

    inner = chord([s("d"), chain(s("e"), s("f"))], chain(s("g"), s("h")))
    middle = group(s("b"), chain(s("c"), inner))
    canvas = chain(s("a").on_error(s("never")), middle, s("i"), group(s("j"), s("k")))
    canvas.tasks[0].link(s("link"))
    failing = routed.fail.si("x").on_error(routed.step.si("errback"))
    maps = chain(routed.step.map(["m", "n"]), routed.step.chunks([("o",), ("p",), ("q",)], 2))
    for one in (canvas, failing, maps):
        routed_one = route_canvas(one, queue="bulk", priority=TaskPriority.LOW)
        routed.launch.apply_async((routed_one,), queue="bulk")
    worker(ROUTED, concurrency=2, queues=["bulk"])
    expected = {*"abcdefghijkmnopq", "link", "x", "errback"}
    wait_for(
        lambda: {entry["label"] for entry in stage.history.entries("step")} == expected,
        timeout=60,
        message=lambda: f"only {stage.history.entries('step')}",
    )
    came = {
        (entry["queue"], entry["priority"])
        for entry in stage.history.entries("step")
        if entry["label"] not in set("mnopq")  # what is mapped over has no message of its own
    }
    assert came == {("bulk", 7 if broker.kind == "redis" else 2)}


def test_a_meaning_that_no_router_sees_is_refused(broker: Broker) -> None:
    """Without a router the task would be served in the wrong order, and nobody would know."""
    app = Celery("plain", broker=broker.url, set_as_current=False)
    app.conf.task_ignore_result = True
    with pytest.raises(PriorityNotTranslated, match=r"TaskRouter|route_canvas"):
        app.send_task("plain.task", priority=TaskPriority.HIGH, retry=False)
    app.close()


def test_the_check_asks_the_workers(routed: ModuleType, worker: StartWorker) -> None:
    """Tasks would wait in a queue that no worker reads."""
    worker(ROUTED, queues=["celery", "slow"])

    def check() -> Any:
        context = CLIContext(routed.app, no_color=True, workdir=None)
        return CliRunner().invoke(patterns, ["routes", "--check", "--timeout", "2"], obj=context)

    stranded = check()
    assert stranded.exit_code == 1
    assert "queue without a worker: fast: 'urgent' names it" in stranded.output
    worker(ROUTED, queues=["fast"])
    assert "queue without a worker" not in check().output
