"""The waiting room on real workers, Redis and RabbitMQ."""

import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from celery_patterns import Rate
from tests.ground.stage import Stage
from tests.ground.workers import Worker
from tests.policies.rate_limits.windows import excess, micros

LIMITED = "tests.apps.limited"
StartWorker = Callable[..., Worker]


@pytest.fixture
def limited(broker: Any, stage: Stage) -> ModuleType:
    stage.conf["patterns_waiting_room"] = True
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
    wait_for(lambda: limited.app.backend.client.exists("cp:room-leader:{cp}"), timeout=20)
    began = time.monotonic()
    calls = [limited.busy.delay(number) for number in range(200)]
    assert [call.get(timeout=30) for call in calls] == list(range(200))
    took = time.monotonic() - began
    assert took > 195 / 50 - 0.1
    if gate:
        assert stage.history.count("event", what="deferred") < 10, "each was to be delivered once"
    assert sorted(entry["number"] for entry in stage.history.entries("started")) == list(range(200))
    assert excess(grants(stage), Rate.of("50/s"), 5) <= 0
