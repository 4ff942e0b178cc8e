"""Queues with a delivery limit on RabbitMQ."""

from collections.abc import Callable
from typing import Any

import pytest

from celery_patterns import DeadLetters, dead_letter_queue
from celery_patterns.deadletters import Filter, Plan
from celery_patterns.errors import PolicyError
from tests.ground.stage import Stage
from tests.ground.workers import Worker

QUORUM = "tests.apps.quorum"


@pytest.mark.integration
@pytest.mark.rabbitmq
def test_a_message_that_is_delivered_too_often_moves_to_the_queue_behind(
    stage: Stage, worker: Callable[..., Worker], wait_for: Any, rabbitmq_url: str
) -> None:
    """A task that kills its worker would come back for ever, or vanish at the limit."""
    stage.conf["broker_url"] = rabbitmq_url
    quorum = stage.load(QUORUM)
    worker(QUORUM, concurrency=1)
    sent = quorum.lethal.delay("A")

    def dead() -> Any:
        with quorum.app.connection_for_read() as connection:
            message = connection.SimpleQueue("orders.dead", queue_opts={"no_declare": True}).get(block=False)
            message.ack()
            return message

    message = wait_for(dead, timeout=30, every=0.3, ignoring=(Exception,))
    assert message.headers["id"] == sent.id
    assert stage.history.count("began") == 3, "the first delivery, and two more"


@pytest.mark.integration
@pytest.mark.rabbitmq
def test_a_dead_letter_goes_back_to_its_quorum_queue(
    stage: Stage, worker: Callable[..., Worker], rabbitmq_url: str
) -> None:
    """A replay would be published to an exchange that does not route it, and vanish."""
    stage.conf["broker_url"] = rabbitmq_url
    quorum = stage.load(QUORUM)
    worker(QUORUM, concurrency=1)
    sent = quorum.charge.delay("A")
    with pytest.raises(ValueError, match="A"):
        sent.get(timeout=20)
    desk = DeadLetters(quorum.app)
    desk.edit(sent.id, kwargs={"fail": False})
    assert desk.replay(Filter(ids=(sent.id,)), Plan(patience=20)).resolved == 1


def test_a_limit_that_is_none_fails_when_declared() -> None:
    """A typo would be found by the first poison message."""
    with pytest.raises(PolicyError, match="delivery_limit=0"):
        dead_letter_queue("orders", delivery_limit=0)
