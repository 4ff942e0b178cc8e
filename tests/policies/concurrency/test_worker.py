"""Concurrency limits on real workers, Redis and RabbitMQ."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.ground.servers import ValkeyServer
from tests.ground.stage import Stage
from tests.ground.workers import Worker

GUARDED = "tests.apps.guarded"
LIMIT = 2

pytestmark = pytest.mark.chaos


def test_no_more_than_the_limit_run_though_processes_are_killed(
    broker: Any, stage: Stage, worker: Callable[..., Worker], wait_for: Any, valkey: ValkeyServer
) -> None:
    """A kill would cost a place, or let one more run than may; a call that waits would be lost."""
    stage.redeliver_after(5)
    tasks = stage.load(GUARDED)
    running = worker(GUARDED, concurrency=4)
    calls = [tasks.export.delay(number, 0.3) for number in range(10)]
    killed: dict[int, float] = {}
    for already in (2, 5):
        wait_for(lambda already=already: stage.history.count("enter") > already, timeout=30)
        at = time.time()  # before the kill: afterwards its place may be another's already
        killed[running.kill_child(stage.history.last("enter")["pid"])] = at  # type: ignore[index]
    assert [call.get(timeout=60) for call in calls] == list(range(10))
    assert most_at_once(stage, killed) == LIMIT
    fences = [entry["fence"] for entry in stage.history.entries("enter")]
    assert len(set(fences)) == len(fences)
    with valkey.client(1) as client:
        left = {key.decode() for key in client.keys("cp:concurrency_limit:*")}
        assert all(client.pttl(key) != -1 for key in left), "a key without an end"
        base = f"cp:concurrency_limit:{{{tasks.export.name}}}"
        assert {key for key in left if ":ended:" not in key} <= {base}


def most_at_once(stage: Stage, killed: dict[int, float]) -> int:
    """How many bodies were at work at the same time, at the most."""
    inside: set[tuple[int, int]] = set()
    most = 0
    for entry in stage.history.entries():
        inside = {one for one in inside if killed.get(one[0], entry["at"]) >= entry["at"]}
        if entry["event"] == "enter":
            inside.add((entry["pid"], entry["number"]))
        elif entry["event"] == "leave":
            inside.discard((entry["pid"], entry["number"]))
        most = max(most, len(inside))
    return most
