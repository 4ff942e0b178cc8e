"""Idempotency on real workers, Redis and RabbitMQ: duplicates, copies, canvas, retries."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import chain, chord, group

from tests.ground.stage import Stage
from tests.ground.workers import Worker

ORDERS = "tests.apps.orders"
StartWorker = Callable[..., Worker]


@pytest.fixture
def orders(broker: Any, stage: Stage) -> ModuleType:
    return stage.load(ORDERS)


def test_duplicates_share_one_effect_and_one_result(
    orders: ModuleType, stage: Stage, worker: StartWorker
) -> None:
    """An order sent three times would be charged three times."""
    worker(ORDERS)
    calls = [orders.charge.delay("A"), orders.charge.delay(order="A"), orders.charge.delay("A", amount=1)]
    results = [call.get(timeout=20) for call in calls]
    assert results == [results[0]] * 3
    assert stage.history.count("effect") == 1


def test_a_call_by_name_is_guarded(orders: ModuleType, stage: Stage, worker: StartWorker) -> None:
    """A producer that has only the task's name would get round the guarantee."""
    worker(ORDERS)
    calls = [orders.app.send_task("tests.apps.orders.charge", ("A",)) for _ in range(3)]
    assert len({call.get(timeout=20)["by"] for call in calls}) == 1
    assert stage.history.count("effect") == 1


def test_a_duplicate_of_a_running_call_waits_without_a_slot(
    orders: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any, tmp_path: Path
) -> None:
    """A waiting duplicate would run beside the first, or block the slot that others need."""
    worker(ORDERS, concurrency=2)
    gate = tmp_path / "gate"
    first = orders.slow.delay("A", str(gate))
    wait_for(lambda: stage.history.count("started"))
    duplicates = [orders.slow.delay("A", str(gate)) for _ in range(3)]
    assert orders.charge.delay("B").get(timeout=20)["order"] == "B"
    wait_for(lambda: duplicates[0].state == "RETRY")
    gate.touch()
    result = first.get(timeout=20)
    assert [duplicate.get(timeout=20) for duplicate in duplicates] == [result] * 3
    assert stage.history.count("started") == 1


def test_nothing_deadlocks_with_one_slot(
    orders: ModuleType, stage: Stage, worker: StartWorker, tmp_path: Path
) -> None:
    """With concurrency 1 a duplicate ahead of its first would wait for ever."""
    gate = tmp_path / "gate"
    gate.touch()
    calls = [orders.slow.delay("A", str(gate)) for _ in range(5)]
    worker(ORDERS, concurrency=1)
    assert len({call.get(timeout=20)["by"] for call in calls}) == 1
    assert stage.history.count("started") == 1


def test_canvas_behind_duplicates_completes(orders: ModuleType, stage: Stage, worker: StartWorker) -> None:
    """A chord, chain or link behind a duplicate would hang."""
    worker(ORDERS)
    header = group(orders.charge.s(order) for order in ("A", "A", "B", "A"))
    body = chord(header)(orders.gather.s("chord"))
    chained = chain(orders.charge.s("A"), orders.note.s("chain")).delay()
    linked = orders.charge.apply_async(("B",), link=orders.note.s("link"))
    values = body.get(timeout=30)
    assert [value["order"] for value in values] == ["A", "A", "B", "A"]
    assert values[0] == values[1] == values[3] == chained.get(timeout=20)
    assert linked.get(timeout=20) == values[2]
    assert sorted(entry["order"] for entry in stage.history.entries("effect")) == ["A", "B"]
    assert stage.history.count("gathered") == 1


def test_a_message_delivered_twice_hands_its_result_on_once(
    orders: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """A redelivered message would send links and chain steps a second time."""
    worker(ORDERS)
    options = {"task_id": "twice", "link": orders.note.s("link"), "chain": [orders.note.s("chain")]}
    first = orders.charge.apply_async(("A",), **options)
    first.get(timeout=20)
    for _ in range(3):
        orders.charge.apply_async(("A",), **options)
    after = orders.charge.apply_async(("A",), task_id="after")
    assert after.get(timeout=20) == first.get()
    wait_for(lambda: stage.history.count("note") == 2)
    assert first.state == "SUCCESS"
    assert stage.history.count("stored", id="twice") == 1
    assert stage.history.count("effect") == 1


def test_a_message_delivered_twice_counts_once_in_its_chord(
    orders: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """A redelivered part of a chord would be counted for another part, or run the body twice."""
    publish = orders.app.amqp.send_task_message

    def twice(producer: Any, name: str, message: Any, **options: Any) -> Any:
        if name == orders.charge.name:
            publish(producer, name, message, **options)
        return publish(producer, name, message, **options)

    orders.app.amqp.__dict__["send_task_message"] = twice
    worker(ORDERS)
    result = chord([orders.charge.s(order) for order in "ABCD"])(orders.gather.s("chord"))
    assert [value["order"] for value in result.get(timeout=30)] == list("ABCD")
    orders.app.amqp.__dict__["send_task_message"] = publish
    orders.charge.delay("A").get(timeout=20)
    assert stage.history.count("gathered") == 1
    assert stage.history.count("effect") == 4


def test_a_retry_is_not_a_duplicate(
    orders: ModuleType, stage: Stage, worker: StartWorker, tmp_path: Path
) -> None:
    """A task's own retry would be taken for a duplicate and hang."""
    worker(ORDERS)
    assert orders.flaky.delay("A").get(timeout=20) == "A"
    assert orders.auto.delay("B", str(tmp_path / "flag")).get(timeout=20) == "B"
    assert orders.flaky.delay("A").get(timeout=20) == "A"
    assert stage.history.count("attempt") == 4


def test_a_body_longer_than_lease_and_visibility_timeout_runs_once(
    stage: Stage, worker: StartWorker, wait_for: Any, tmp_path: Path
) -> None:
    """A long task would be run again each visibility timeout, as Celery on Redis does."""
    stage.redeliver_after(1)
    orders = stage.load(ORDERS)
    worker(ORDERS, concurrency=1)
    worker(ORDERS, concurrency=1)
    gate = tmp_path / "gate"
    call = orders.slow.apply_async(("A", str(gate)), link=orders.note.s("link"))
    wait_for(lambda: stage.history.count("event", what="deferred", copy=True) >= 3, timeout=30)
    assert call.state in {"STARTED", "PENDING"}, "a copy wrote a state"
    gate.touch()
    result = call.get(timeout=20)
    assert result["by"] == call.id
    wait_for(lambda: stage.history.count("note"))
    assert orders.slow.delay("A", str(gate)).get(timeout=20) == result
    assert stage.history.count("started") == 1
    assert stage.history.entries("ended")[0]["lost"] is False
    assert stage.history.count("note") == 1


def test_a_suspended_holder_does_not_overwrite_its_successor(
    orders: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any, tmp_path: Path
) -> None:
    """A holder that slept through its lease would replace the result that others have seen."""
    sleeper = worker(ORDERS, concurrency=1, arguments=["--prefetch-multiplier=1"])
    gate = tmp_path / "gate"
    first = orders.slow.delay("A", str(gate))
    wait_for(lambda: stage.history.count("started"))
    pid = sleeper.suspend_child()
    worker(ORDERS, concurrency=1)
    second = orders.slow.delay("A", str(gate))
    wait_for(lambda: stage.history.count("started") == 2, timeout=20)
    gate.touch()
    result = second.get(timeout=20)
    sleeper.resume_child(pid)
    assert first.get(timeout=20) == result
    old, new = (entry["fence"] for entry in stage.history.entries("started"))
    assert old < new == result["fence"]
    assert [entry["lost"] for entry in stage.history.entries("ended")] == [False, True]
    assert stage.history.count("event", what="superseded") == 1
