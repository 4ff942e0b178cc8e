"""For RabbitMQ: a queue that moves aside, on the broker itself, what is delivered too often.

A quorum queue counts deliveries. Above its limit, and when a message is rejected, RabbitMQ hands
the message to a dead-letter exchange. That also helps where no library runs: with workers in other
languages, with messages that no worker can read, with nodes that die before they can say anything.
"""

from __future__ import annotations

from typing import Any

from kombu import Exchange, Queue

from celery_patterns.errors import PolicyError


class DeadLetteredQueue(Queue):
    """A queue that declares, before itself, where its dead letters go. Made by :func:`dead_letter_queue`."""

    attrs: tuple[tuple[str, Any], ...] = (*Queue.attrs, ("dead", None))
    dead: Queue | None = None

    def _create_exchange(self, nowait: bool = False, channel: Any = None) -> None:
        if self.dead is not None:
            self.dead(channel or self.channel).declare()
        super()._create_exchange(nowait=nowait, channel=channel)


def dead_letter_queue(name: str, *, dead: str | None = None, delivery_limit: int = 5) -> Queue:
    """A quorum queue for tasks, and behind it a quorum queue for what is delivered too often or rejected.

    Put it in ``task_queues``. Workers and publishers declare both; workers consume only the first.
    What lands in the second stays there until somebody looks: it is a net below the dead letters of
    tasks, which tell more and can be replayed. RabbitMQ only; it is an error on any other broker to
    expect a delivery limit.

    Args:
        name: The queue's name. A queue of that name with other arguments must be deleted first.
        dead: The name of the queue behind it, and of its exchange; default: ``name`` and ``".dead"``.
        delivery_limit: How many deliveries RabbitMQ allows.

    Raises:
        PolicyError: An option is out of range.

    Example:
        >>> queue = dead_letter_queue("payments", delivery_limit=3)
        >>> queue.queue_arguments["x-dead-letter-exchange"]
        'payments.dead'
    """
    if isinstance(delivery_limit, bool) or not isinstance(delivery_limit, int) or delivery_limit < 1:
        raise PolicyError(f"delivery_limit={delivery_limit!r}: give a number of deliveries, 1 or more")
    behind = dead or f"{name}.dead"
    exchange = Exchange(behind, type="fanout", durable=True)
    quorum = {"x-queue-type": "quorum"}
    return DeadLetteredQueue(
        name,
        exchange=Exchange(name, type="direct", durable=True),
        routing_key=name,
        durable=True,
        dead=Queue(behind, exchange=exchange, durable=True, queue_arguments=dict(quorum)),
        queue_arguments={
            **quorum,
            "x-delivery-limit": delivery_limit,
            "x-dead-letter-exchange": behind,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )
