"""Everything dies now and then while a backlog drains."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from celery_patterns import Rate
from tests.ground.servers import ValkeyServer
from tests.ground.stage import Stage
from tests.ground.workers import Worker
from tests.policies.rate_limits.windows import excess, micros

LIMITED = "tests.apps.limited"
TASKS = int(os.environ.get("CELERY_PATTERNS_CHAOS_TASKS", "400"))
"""How many tasks; 50 start in a second."""


class Chaos:
    """What may happen, and how often it did."""

    def __init__(self, seed: int, start: Callable[..., Worker], store: ValkeyServer) -> None:
        self.dice = random.Random(seed)
        self.start = start
        self.store = store
        self.workers = [start(LIMITED), start(LIMITED)]
        self.happened: Counter[str] = Counter()

    def strike(self) -> None:
        """One blow."""
        blow = self.dice.choice([self.pump_killed, self.pump_killed, self.worker_killed, self.child_killed])
        if self.happened.total() % 4 == 3:
            blow = self.store_restarted
        self.happened[blow.__name__] += 1
        blow()

    def pump_killed(self) -> None:
        """The leader and all who stand by."""
        for worker in self.workers:
            for pid in worker.pumps():
                os.kill(pid, signal.SIGKILL)

    def worker_killed(self) -> None:
        """A worker with all its processes; another one is started."""
        victim = self.dice.randrange(2)
        self.workers[victim].kill()
        self.workers[victim] = self.start(LIMITED)

    def child_killed(self) -> None:
        """One process of a pool."""
        self.dice.choice(self.workers).kill_child()

    def store_restarted(self) -> None:
        """The store is killed, and comes back with all that it had answered."""
        self.store.kill()
        self.store.start()


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("gate", [True, False])
def test_nothing_is_lost_whatever_dies(
    broker: Any,
    stage: Stage,
    worker: Callable[..., Worker],
    start_valkey: Callable[..., ValkeyServer],
    wait_for: Any,
    gate: bool,
) -> None:
    """A kill at a bad moment would lose a task, run it more often than is explained, or break the limit."""
    store = start_valkey(durable=True)
    stage.conf.update(patterns_url=store.url(), patterns_waiting_room=True)
    stage.redeliver_after(5)
    limited = stage.load(LIMITED)
    limited.app.conf.patterns_gate = gate
    chaos = Chaos(7, worker, store)
    with store.client() as client:
        wait_for(lambda: client.exists("cp:room-leader:{cp}"), timeout=20)
    for number in range(TASKS):
        limited.late.delay(number)

    def done() -> int:
        return len({entry["number"] for entry in stage.history.entries("started")})

    strikes = iter(range(40, TASKS * 4 // 5, 60))
    until = time.monotonic() + TASKS / 50 * 4 + 120
    for threshold in strikes:
        wait_for(lambda threshold=threshold: done() >= threshold, timeout=until - time.monotonic())
        chaos.strike()
    blows = chaos.happened
    # Celery's transport for Redis pops a message and notes it down in two steps: a parent that is killed in
    # between has lost it, before any worker had received it.
    lost = blows["worker_killed"] if broker.kind == "redis" else 0
    wait_for(lambda: done() >= TASKS - lost, timeout=max(1.0, until - time.monotonic()))
    started = stage.history.entries("started")
    # A killed process takes what it ran with it; all else that runs twice was published twice by a pump that
    # was killed, or lost its answer, between publishing and confirming: a batch at most.
    again = len(started) - done()
    assert again <= 4 * blows["worker_killed"] + 2 * blows["child_killed"] + 10 * blows.total(), blows
    assert excess([micros(entry["granted"]) for entry in started], Rate.of("50/s"), 5) <= 0
