"""Idempotency when processes are killed at each point of a run, and when the store is away."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery.exceptions import TimeLimitExceeded

from tests.ground.servers import ValkeyServer
from tests.ground.stage import Stage
from tests.ground.workers import Worker

ORDERS = "tests.apps.orders"
FRAGILE = "tests.apps.fragile"
StartWorker = Callable[..., Worker]

pytestmark = pytest.mark.chaos


@pytest.fixture
def orders(broker: Any, stage: Stage) -> ModuleType:
    return stage.load(ORDERS)


def test_a_killed_child_is_replaced_at_once(
    orders: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any, tmp_path: Path
) -> None:
    """After a kill the key would stay blocked for its whole lease, a minute here."""
    running = worker(ORDERS, concurrency=1)
    gate = tmp_path / "gate"
    call = orders.long_lease.delay("A", str(gate))
    wait_for(lambda: stage.history.count("started"))
    running.kill_child()
    wait_for(lambda: stage.history.count("started") == 2, timeout=20)
    gate.touch()
    result = call.get(timeout=20)
    old, new = stage.history.entries("started")
    assert old["fence"] < new["fence"] == result["fence"]
    assert stage.history.count("event", what="lapsed") == 1


def test_a_killed_worker_is_replaced_after_the_lease(
    orders: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any, tmp_path: Path
) -> None:
    """A key whose worker vanished whole would be blocked for ever."""
    doomed = worker(ORDERS, concurrency=1)
    gate = tmp_path / "gate"
    first = orders.slow.delay("A", str(gate))
    wait_for(lambda: stage.history.count("started"))
    doomed.kill()
    gate.touch()
    worker(ORDERS, concurrency=1)
    duplicate = orders.slow.delay("A", str(gate))
    result = duplicate.get(timeout=30)
    assert result["by"] in {duplicate.id, first.id}
    assert stage.history.count("started") == 2


def test_the_hard_limit_leaves_no_lease(
    orders: ModuleType, stage: Stage, worker: StartWorker, tmp_path: Path
) -> None:
    """A duplicate of a call that hit its hard time limit would wait for a minute, or beside the dying one."""
    worker(ORDERS, concurrency=1)
    gate = tmp_path / "gate"
    with pytest.raises(TimeLimitExceeded):
        orders.limited.delay("A", str(gate)).get(timeout=20)
    gate.touch()
    assert orders.limited.delay("A", str(gate)).get(timeout=20)["order"] == "A"


@pytest.mark.parametrize(
    ("point", "effects", "notes"),
    [("before record", 2, 1), ("after record", 1, 1), ("after dispatch", 1, 2), ("after store", 1, 1)],
)
def test_a_kill_at_the_end_doubles_nothing_but_what_it_must(
    point: str,
    effects: int,
    notes: int,
    broker: Any,
    stage: Stage,
    worker: StartWorker,
    wait_for: Any,
    tmp_path: Path,
) -> None:
    """Only a kill between effect and record, or between dispatch and stored result, may double either."""
    fragile = stage.load(FRAGILE)
    worker(FRAGILE, concurrency=1)
    args = ("A", point, str(tmp_path / "flag"))
    call = fragile.charge.apply_async(args, link=fragile.note.s("link"))
    assert call.get(timeout=30)["point"] == point
    assert fragile.charge.apply_async(args).get(timeout=30) == call.get()
    wait_for(lambda: stage.history.count("note") == notes)
    assert stage.history.count("effect") == effects
    assert stage.history.count("killed") == 1
    fragile.charge.apply_async(("B", point, str(tmp_path / "flag"))).get(timeout=30)
    assert stage.history.count("note") == notes


@pytest.fixture
def store(stage: Stage, start_valkey: Callable[..., ValkeyServer]) -> ValkeyServer:
    """A store apart from the broker and the result backend, which survives its own restart."""
    server = start_valkey(durable=True)
    stage.conf["patterns_url"] = server.url()
    return server


def test_a_call_waits_for_a_store_that_is_away(
    store: ValkeyServer, broker: Any, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """A call that comes while the store is down would run unguarded, or be lost."""
    orders = stage.load(ORDERS)
    worker(ORDERS, concurrency=1)
    store.kill()
    calls = [orders.charge.delay("A") for _ in range(2)]
    wait_for(lambda: stage.history.count("event", what="deferred") >= 2)
    assert stage.history.count("effect") == 0
    store.start()
    assert calls[0].get(timeout=30) == calls[1].get(timeout=30)
    assert stage.history.count("effect") == 1


def test_a_body_outlives_an_outage_of_the_store(
    store: ValkeyServer, broker: Any, stage: Stage, worker: StartWorker, wait_for: Any, tmp_path: Path
) -> None:
    """A short outage while the body runs would fail the task, or have it run twice."""
    orders = stage.load(ORDERS)
    worker(ORDERS, concurrency=1)
    gate = tmp_path / "gate"
    call = orders.long_lease.delay("A", str(gate))
    wait_for(lambda: stage.history.count("started"))
    store.kill()
    store.start()
    gate.touch()
    result = call.get(timeout=20)
    assert orders.long_lease.delay("A", str(gate)).get(timeout=20) == result
    assert stage.history.count("started") == 1


def test_a_completion_that_meets_an_outage_is_recorded_after_it(
    store: ValkeyServer, broker: Any, stage: Stage, worker: StartWorker, wait_for: Any, tmp_path: Path
) -> None:
    """A task that succeeded while the store was away would run again."""
    orders = stage.load(ORDERS)
    worker(ORDERS, concurrency=1)
    gate = tmp_path / "gate"
    call = orders.long_lease.delay("A", str(gate))
    wait_for(lambda: stage.history.count("started"))
    store.kill()
    gate.touch()
    result = call.get(timeout=20)
    store.start()
    assert orders.long_lease.delay("A", str(gate)).get(timeout=30) == result
    assert stage.history.count("started") == 1


def test_a_completion_that_is_never_recorded_says_so(
    store: ValkeyServer, broker: Any, stage: Stage, worker: StartWorker, wait_for: Any, tmp_path: Path
) -> None:
    """Nobody would learn that a run is not remembered."""
    orders = stage.load(ORDERS)
    worker(ORDERS, concurrency=1)
    gate = tmp_path / "gate"
    call = orders.slow.delay("A", str(gate))
    wait_for(lambda: stage.history.count("started"))
    store.kill()
    gate.touch()
    assert call.get(timeout=20)["by"] == call.id
    wait_for(lambda: stage.history.count("event", what="unrecorded") == 1, timeout=20)
