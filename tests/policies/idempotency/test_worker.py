"""Idempotency on real workers: duplicates, copies, kills."""

import uuid
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import chain, chord, group

from tests.ground.stage import Stage
from tests.ground.workers import Worker

ORDERS = "tests.apps.orders"


@pytest.fixture
def orders(broker: Any, stage: Stage) -> ModuleType:
    return stage.load(ORDERS)


def effects(stage: Stage, kind: str = "effect") -> list[dict[str, Any]]:
    return stage.history.entries(kind)


def test_duplicates_share_one_effect_and_one_result(
    orders: ModuleType, stage: Stage, worker: Callable[..., Worker]
) -> None:
    """Two orders sent twice would be charged twice."""
    worker(ORDERS)
    first = [orders.charge.delay("A-1"), orders.charge.delay(order="A-1"), orders.charge.delay("A-1", amount=1)]
    results = [one.get(timeout=20) for one in first]
    assert results == [results[0]] * 3
    assert len(effects(stage)) == 1


def test_a_duplicate_waits_for_the_running_one(
    orders: ModuleType, stage: Stage, worker: Callable[..., Worker], wait_for: Any, tmp_path: Path
) -> None:
    """A duplicate that comes while the first runs would run beside it, or block the only slot."""
    worker(ORDERS, concurrency=1)
    gate = tmp_path / "gate"
    first = orders.slow.delay("A-2", str(gate))
    wait_for(lambda: effects(stage, "started"))
    second = orders.slow.delay("A-2", str(gate))
    other = orders.charge.delay("B-1")
    gate.touch()
    assert second.get(timeout=20) == first.get(timeout=20)
    assert other.get(timeout=20)["order"] == "B-1"
    assert len(effects(stage, "started")) == 1
