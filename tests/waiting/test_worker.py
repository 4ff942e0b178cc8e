"""The waiting room on real workers, Redis and RabbitMQ."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import chain, chord

from celery_patterns import Rate, RateLimitManager
from celery_patterns.core.store import store_of
from celery_patterns.waiting.room import Room
from tests.ground import tree
from tests.ground.stage import Stage
from tests.ground.workers import Worker
from tests.policies.rate_limits.windows import excess, micros

LIMITED = "tests.apps.limited"
StartWorker = Callable[..., Worker]


@pytest.fixture
def limited(broker: Any, stage: Stage) -> ModuleType:
    return stage.load(LIMITED)


def grants(stage: Stage) -> list[int]:
    """When tasks were let in, by the server's clock."""
    return [micros(entry["granted"]) for entry in stage.history.entries("started")]


@pytest.mark.parametrize("gate", [True, False])
def test_a_backlog_drains_at_the_limit(
    limited: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any, gate: bool
) -> None:
    """Tasks would be lost, run twice, or start faster or slower than the limit says."""
    limited.app.conf.patterns_gate = gate
    for _ in range(2):
        worker(LIMITED)
    wait_for(lambda: pump_is_there(limited.app), timeout=20)
    began = time.monotonic()
    calls = [limited.busy.delay(number) for number in range(200)]
    assert [call.get(timeout=30) for call in calls] == list(range(200))
    took = time.monotonic() - began
    assert took > 195 / 50 - 0.1
    if gate:
        assert stage.history.count("event", what="deferred") < 10, "each was to be delivered once"
    assert sorted(entry["number"] for entry in stage.history.entries("started")) == list(range(200))
    assert excess(grants(stage), Rate.of("50/s"), 5) <= 0


def room_of(app: Any) -> Room:
    return Room(store_of(app))


def pump_is_there(app: Any) -> bool:
    return bool(room_of(app).store.client.exists("cp:room-leader:{cp}"))


def parked(app: Any) -> int:
    return sum(1 for _ in room_of(app).store.client.scan_iter(match="cp:room-entry:*", count=1000))


@pytest.fixture
def ready(limited: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any) -> Worker:
    """A worker whose pump leads."""
    stage.redeliver_after(3)
    started = worker(LIMITED)
    wait_for(lambda: pump_is_there(limited.app), timeout=20)
    return started


def test_killed_pumps_lose_nothing(
    limited: ModuleType, stage: Stage, worker: StartWorker, ready: Worker, wait_for: Any
) -> None:
    """Tasks would wait for ever, or a standby would never take over, or a limit be broken by it."""
    other = worker(LIMITED)
    wait_for(other.pumps, timeout=20)
    calls = [limited.busy.delay(number) for number in range(250)]
    for victim in (ready, other):
        seen = stage.history.count("started")
        wait_for(lambda seen=seen: stage.history.count("started") > seen + 30, timeout=20)
        for pid in victim.pumps():
            os.kill(pid, signal.SIGKILL)
    assert [call.get(timeout=40) for call in calls] == list(range(250))
    assert excess(grants(stage), Rate.of("50/s"), 5) <= 0
    wait_for(lambda: ready.pumps() and other.pumps(), timeout=20, message="they are started again")
    wait_for(lambda: parked(limited.app) == 0)


def test_a_killed_worker_loses_nothing_that_waits(
    limited: ModuleType, stage: Stage, worker: StartWorker, ready: Worker, wait_for: Any
) -> None:
    """What was released to a worker that dies would be gone, or its tickets stop the limit."""
    calls = [limited.late.delay(number) for number in range(150)]
    wait_for(lambda: stage.history.count("started") > 30, timeout=20)
    ready.kill()
    worker(LIMITED)
    for call in calls:
        call.get(timeout=60)
    started = [entry["number"] for entry in stage.history.entries("started")]
    assert set(started) == set(range(150))
    assert len(started) <= 150 + 2, "only what ran when it was killed runs twice"
    assert excess(grants(stage), Rate.of("50/s"), 5) <= 0


def test_nothing_waits_in_a_workers_memory(limited: ModuleType, ready: Worker, wait_for: Any) -> None:
    """Waiting tasks would fill a worker's memory and its prefetch, as ETA messages do."""
    limited.app.conf.patterns_gate = False
    calls = [limited.slow.delay(number) for number in range(30)]
    wait_for(lambda: parked(limited.app) == 29, timeout=20)
    wait_for(lambda: [call.state for call in calls].count("RETRY") == 29)
    reserved = limited.app.control.inspect(timeout=5)
    assert not any((reserved.scheduled() or {}).values())
    RateLimitManager(limited.app).adjust_rate("slow", "1000/s", burst=100)
    assert sorted(call.get(timeout=20) for call in calls) == list(range(30))


def test_whoever_has_a_turn_passes_those_who_have_none(
    limited: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any, tmp_path: Path
) -> None:
    """Its token would wait behind all that its worker has prefetched, and the limit would stand idle."""
    worker(LIMITED, concurrency=1, arguments=("--prefetch-multiplier", "16"))
    wait_for(lambda: pump_is_there(limited.app), timeout=20)
    limited.tick.delay().get(timeout=20)
    waits = limited.tick.delay()
    wait_for(lambda: parked(limited.app) == 1)
    limited.hold.delay(str(tmp_path / "gate"))
    wait_for(lambda: stage.history.count("held"))
    others = [limited.plain.delay() for _ in range(5)]
    reserved = limited.app.control.inspect(timeout=0.5).reserved
    wait_for(lambda: {call.id for call in (waits, *others)} <= ids_of(reserved()), timeout=20)
    (tmp_path / "gate").touch()
    wait_for(lambda: stage.history.count("started") == 7, timeout=20)
    assert [entry["id"] for entry in stage.history.entries("started")][1:] == [
        call.id for call in (waits, *others)
    ]


def ids_of(workers: Any) -> set[str]:
    return {task["id"] for tasks in (workers or {}).values() for task in tasks}


def test_a_revoked_task_never_runs_and_its_chord_learns_of_it(
    limited: ModuleType, stage: Stage, worker: StartWorker, ready: Worker, wait_for: Any
) -> None:
    """A revoke would be forgotten by the time the task is released; its chord would wait for ever."""
    first = limited.slow.delay(0)
    assert first.get(timeout=20) == 0
    body = chord([limited.slow.s(1), limited.other.si()])(limited.gather.s())
    wait_for(lambda: parked(limited.app) == 1, timeout=20)
    unfinished = {"PENDING", "RETRY"}
    wait_for(lambda: sum(one.state in unfinished for one in body.parent.children) == 1, timeout=20)
    (part,) = [one for one in body.parent.children if one.state in unfinished]
    part.revoke()
    wait_for(lambda: part.state == "REVOKED", timeout=20)
    wait_for(lambda: body.state == "FAILURE", timeout=20)
    assert stage.history.count("started", number=1) == 0
    wait_for(lambda: parked(limited.app) == 0)


def test_a_stamp_that_was_revoked_keeps_what_waits_from_running(
    limited: ModuleType, stage: Stage, worker: StartWorker, ready: Worker, wait_for: Any
) -> None:
    """A revoke by stamps would be forgotten with the workers that heard of it."""
    assert limited.slow.delay(0).get(timeout=20) == 0
    call = limited.slow.apply_async((1,), headers={"order": "A"}, stamped_headers=["order"], order="A")
    wait_for(lambda: parked(limited.app) == 1, timeout=20)
    limited.app.control.revoke_by_stamped_headers({"order": ["A"]})
    wait_for(lambda: room_of(limited.app).store.client.exists("cp:room-stamps:{cp}"), timeout=20)
    ready.kill()
    worker(LIMITED)
    RateLimitManager(limited.app).adjust_rate("slow", "1000/s", burst=10)
    wait_for(lambda: call.state == "REVOKED", timeout=30)
    assert stage.history.count("started", number=1) == 0


@pytest.mark.parametrize("pool", ["solo", "threads", "gevent"])
def test_every_pool_has_its_pump(stage: Stage, worker: StartWorker, wait_for: Any, pool: str) -> None:
    """Workers of another pool than prefork would park what nobody releases, or leave their pump behind."""
    limited = stage.load(LIMITED)
    started = worker(LIMITED, pool=pool)
    wait_for(lambda: pump_is_there(limited.app), timeout=30)
    (pump,) = started.pumps()
    calls = [limited.busy.delay(number) for number in range(40)]
    assert [call.get(timeout=40) for call in calls] == list(range(40))
    assert stage.history.count("started") == 40
    os.kill(started.pid, signal.SIGTERM)
    wait_for(lambda: not tree.alive(pump), timeout=30, message="the pump ends with its worker")


def test_an_expired_task_never_runs(limited: ModuleType, stage: Stage, ready: Worker, wait_for: Any) -> None:
    """A task would run although it came too late, or stay PENDING for ever."""
    assert limited.slow.delay(0).get(timeout=20) == 0
    late = limited.slow.apply_async((1,), expires=1.5)
    wait_for(lambda: late.state == "REVOKED", timeout=20)
    assert stage.history.count("started", number=1) == 0
    wait_for(lambda: parked(limited.app) == 0)


def test_canvas_waits_as_well(limited: ModuleType, ready: Worker) -> None:
    """Chains and chords would lose their rest in the room."""
    body = chord([limited.of_tenant.s("a") for _ in range(4)])(limited.gather.s())
    chained = chain(limited.of_tenant.si("b"), limited.of_tenant.si("b"), limited.gather.s()).delay()
    assert body.get(timeout=30) == ["a"] * 4
    assert chained.get(timeout=30) == "b"


def test_an_idempotent_copy_hands_its_ticket_in(
    limited: ModuleType, stage: Stage, ready: Worker, wait_for: Any
) -> None:
    """A task that is answered without its token would keep its limit closed for others."""
    calls = [limited.charge.delay(order) for order in ["a"] * 10 + ["b"]]
    assert [call.get(timeout=30) for call in calls] == ["a"] * 10 + ["b"]
    assert len(stage.history.entries("started")) == 2
    wait_for(lambda: room_of(limited.app).store.client.zcard("cp:room-tickets:{cp}:orders:") == 0)


def test_whoever_waits_for_a_key_is_woken_when_it_is_free(
    limited: ModuleType, stage: Stage, ready: Worker, wait_for: Any
) -> None:
    """Calls with one key would look for their turn again and again, or be passed by those who come later."""
    calls = [limited.alone.delay("k", number) for number in range(40)]
    assert [call.get(timeout=60) for call in calls] == list(range(40))
    assert stage.history.count("event", what="deferred", task=limited.alone.name) < 80
    wait_for(lambda: parked(limited.app) == 0)


def test_no_pump_means_countdowns(
    limited: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """With the room switched off, or all pumps gone, tasks would wait for nobody."""
    stage.conf["patterns_waiting_room"] = False
    one = worker(LIMITED)
    calls = [limited.busy.delay(number) for number in range(20)]
    assert [call.get(timeout=30) for call in calls] == list(range(20))
    assert one.pumps() == []
    assert parked(limited.app) == 0
