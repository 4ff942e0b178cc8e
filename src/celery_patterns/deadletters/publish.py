"""Sending a stored message to the broker again, byte for byte, as the same task's next life."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celery_patterns.core.keys import KEY_HEADER
from celery_patterns.core.policy import REPLAY_HEADER
from celery_patterns.core.republish import is_of_one_delivery

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

    from celery_patterns.deadletters.entry import Candidate

CALLERS = (KEY_HEADER, "cp-tier", "cp-urgent", "cp-priority")
"""Those of the library's headers that the caller has set, or the router for them."""


def _is_of_one_life(header: str) -> bool:
    """Whether a next life does not inherit a header: what the library noted on the way to this death."""
    return is_of_one_delivery(header) or (header.startswith("cp-") and header not in CALLERS)


class Publisher:
    """Publishes entries over one connection.

    Args:
        app: Whose broker.
        producer: Where to.
        queue: Another queue than the one that each message came from.
        new_ids: Give each message a new task id. The result under the old one stays as it is.
    """

    def __init__(
        self, app: Celery, producer: Any, *, queue: str | None = None, new_ids: bool = False
    ) -> None:
        self.app = app
        self.producer = producer
        self.queue = queue
        self.new_ids = new_ids

    def publish(self, entry: Candidate, number: int) -> str:
        """Publish the ``number``-th replay of an entry; the task id that it has.

        Raises:
            kombu.exceptions.KombuError: The broker is away, or ``OSError``.
        """
        letter = entry.letter
        task_id = uuid4().hex if self.new_ids else entry.task_id
        headers = {name: value for name, value in letter.headers.items() if not _is_of_one_life(name)}
        headers |= {
            "id": task_id,
            "retries": 0,
            "eta": None,
            "expires": None,
            REPLAY_HEADER: f"{entry.id}/{number}",
        }
        if headers.get("root_id") == entry.task_id:
            headers["root_id"] = task_id
        exchange, routing_key, declare = self._destination(letter.exchange, letter.routing_key)
        self.producer.publish(
            letter.body,
            content_type=letter.content_type,
            content_encoding=letter.content_encoding,
            headers=headers,
            exchange=exchange,
            routing_key=routing_key,
            declare=declare,
            priority=letter.priority,
            correlation_id=task_id,
            reply_to=letter.reply_to,
            delivery_mode=2,
            retry=True,
            retry_policy=_RETRIES,
        )
        return task_id

    def _destination(self, exchange: str, routing_key: str) -> tuple[Any, str, list[Any]]:
        """Where to publish, and what must exist there so that nothing vanishes."""
        if exchange and self.queue is None:
            return exchange, routing_key, []
        queue = self.app.amqp.queues[self.queue or routing_key or self.app.conf.task_default_queue]
        return "", queue.name, [queue]


_RETRIES = {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 1}


@contextmanager
def publisher(app: Celery, *, queue: str | None = None, new_ids: bool = False) -> Iterator[Publisher]:
    """A publisher with a connection of its own, on which RabbitMQ confirms what it has taken."""
    options = dict(app.conf.broker_transport_options or {})
    with (
        app.connection_for_write(transport_options={**options, "confirm_publish": True}) as connection,
        app.amqp.Producer(connection, auto_declare=False) as producer,
    ):
        yield Publisher(app, producer, queue=queue, new_ids=new_ids)
