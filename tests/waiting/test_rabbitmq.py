"""Release queues on RabbitMQ, beside queues of each kind."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from celery_patterns import Rate
from celery_patterns.core.store import store_of
from tests.ground.stage import Stage
from tests.ground.workers import Worker
from tests.policies.rate_limits.windows import excess, micros

LIMITED = "tests.apps.limited"


@pytest.fixture
def classic(stage: Stage) -> None:
    """Celery's own default."""


@pytest.fixture
def quorum(stage: Stage) -> None:
    """A replicated queue, with Celery's delays by RabbitMQ itself, which need a topic exchange."""
    stage.conf.update(task_default_queue_type="quorum", task_default_exchange_type="topic")
    stage.conf.update(task_default_exchange=f"celery-{uuid.uuid4().hex}")


@pytest.mark.integration
@pytest.mark.rabbitmq
@pytest.mark.parametrize("kind", ["classic", "quorum"])
@pytest.mark.parametrize("gate", [True, False])
def test_a_backlog_drains_at_the_limit(
    request: pytest.FixtureRequest,
    stage: Stage,
    worker: Callable[..., Worker],
    wait_for: Any,
    rabbitmq_url: str,
    kind: str,
    gate: bool,
) -> None:
    """A release queue could not be declared, or what is released would be lost, or run twice."""
    stage.conf["broker_url"] = rabbitmq_url
    request.getfixturevalue(kind)
    limited = stage.load(LIMITED)
    limited.app.conf.patterns_gate = gate
    started = worker(LIMITED)
    wait_for(lambda: store_of(limited.app).client.exists("cp:room-leader:{cp}"), timeout=20)
    calls = [limited.busy.delay(number) for number in range(100)]
    assert [call.get(timeout=40) for call in calls] == list(range(100))
    entries = stage.history.entries("started")
    assert sorted(entry["number"] for entry in entries) == list(range(100))
    assert excess([micros(entry["granted"]) for entry in entries], Rate.of("50/s"), 5) <= 0
    assert "Cannot" not in started.log_text()
