"""1,000 calls on four processes with a SIGKILL each second; afterwards the history is checked.

What the processes wrote down themselves, outside Redis, decides: every effect, every dispatch of a
link, every stored result, every kill.
"""

import os
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from celery import chain, chord

from tests.ground.stage import Stage
from tests.ground.workers import Worker

ORDERS = "tests.apps.orders"
SEED = int(os.environ.get("CELERY_PATTERNS_CHAOS_SEED", "1"))
CALLS = int(os.environ.get("CELERY_PATTERNS_CHAOS_CALLS", "1000"))
KILL_EVERY = 1.0
SECONDS = 0.012
"""Before and after the effect, so that kills fall on both sides of it."""

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


class Killer(threading.Thread):
    """Kills a pool process each second."""

    def __init__(self, worker: Worker, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.worker, self.chance = worker, chance
        self.killed: list[int] = []
        self._stopped = threading.Event()

    def run(self) -> None:
        """Kill until told to stop."""
        while not self._stopped.wait(KILL_EVERY):
            children = self.worker.children()
            if children:
                self.killed.append(self.worker.kill_child(self.chance.choice(children)))

    def stop(self) -> None:
        """Kill no more."""
        self._stopped.set()
        self.join()


def test_at_most_one_recorded_run_and_nothing_lost(
    broker: Any, stage: Stage, worker: Callable[..., Worker]
) -> None:
    """Under kills a payment would be made twice, or never, or its duplicates would disagree."""
    orders, chance = stage.load(ORDERS), random.Random(SEED)
    running = worker(ORDERS, concurrency=4)
    killer = Killer(running, chance)
    killer.start()
    try:
        calls = publish(orders, chance)
        parts = [orders.charge.s(f"order-{n}", seconds=SECONDS) for n in range(10)]
        body = chord(parts)(orders.gather.s("chord"))
        results = {call.id: (order, call.get(timeout=300)) for order, call in calls}
        assert len(body.get(timeout=120)) == 10
        late = [(order, orders.charge.delay(order, seconds=SECONDS)) for order, _ in calls[:50]]
        results |= {call.id: (order, call.get(timeout=120)) for order, call in late}
    finally:
        killer.stop()
    running.stop(timeout=60)
    assert killer.killed, "no process was killed: this run proves nothing"
    check_results(results)
    check_effects(stage, set(killer.killed))
    check_dispatches(stage, set(killer.killed))


def publish(orders: ModuleType, chance: random.Random) -> list[tuple[str, Any]]:
    """Each order three or four times: as a call with a link, in a chain, and one message delivered twice."""
    wanted = [f"order-{n}" for n in range(CALLS // 4)] * 4
    chance.shuffle(wanted)
    calls = []
    for number, order in enumerate(wanted):
        signature = orders.charge.s(order, seconds=SECONDS)
        if number % 4 == 0:
            calls.append((order, chain(signature, orders.note.s(order)).delay()))
        elif number % 4 == 1:
            calls.append((order, signature.apply_async(link=orders.note.s(order))))
        elif number % 4 == 2:
            call = signature.apply_async(link=orders.note.s(order))
            signature.apply_async(link=orders.note.s(order), task_id=call.id)
            calls.append((order, call))
        else:
            calls.append((order, signature.delay()))
    return calls


def check_results(results: dict[str, tuple[str, Any]]) -> None:
    """All calls of one order have one result: at most one recorded run per key."""
    by_order = defaultdict(set)
    for order, result in results.values():
        assert result["order"] == order
        by_order[order].add((result["by"], result["fence"]))
    assert [order for order, outcomes in by_order.items() if len(outcomes) != 1] == []


def check_effects(stage: Stage, killed: set[int]) -> None:
    """An effect happens again only where the process of the one before was killed."""
    by_order = defaultdict(list)
    for effect in stage.history.entries("effect"):
        by_order[effect["order"]].append(effect)
    for order, effects in by_order.items():
        fences = [effect["fence"] for effect in effects]
        assert fences == sorted(set(fences)), f"{order}: fences do not increase"
        for effect in effects[:-1]:
            assert effect["pid"] in killed, f"{order} was charged twice without a kill: {effects}"


def check_dispatches(stage: Stage, killed: set[int]) -> None:
    """A link goes out again only where a kill fell between its dispatch and the stored result."""
    stored = Counter((entry["id"], entry["pid"]) for entry in stage.history.entries("stored"))
    by_call = defaultdict(list)
    for entry in stage.history.entries("dispatched"):
        by_call[entry["id"]].append(entry)
    for call, dispatches in by_call.items():
        unstored = [entry for entry in dispatches if not stored[call, entry["pid"]]]
        assert len(dispatches) - len(unstored) <= 1, f"{call} was handed on twice: {dispatches}"
        assert all(entry["pid"] in killed for entry in unstored), f"{call}: {dispatches}"
