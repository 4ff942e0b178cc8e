"""Release queues: beside each queue that a worker consumes, one for what comes out of the room.

A worker serves its queues in turns, so what is released does not stand behind a backlog. Which release
queues are consumed is on record in the store, renewed by each worker's pump: what would go to a queue
that is not on record is published where it was first meant to go.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kombu import Queue

from celery_patterns.waiting.broker import transport_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery import Celery

    from celery_patterns.waiting.room import Room

SUFFIX = ".released"
GOOD_FOR = 5.0
"""Seconds for which a record is good."""

_NOT_SHARED = ("x-expires", "x-max-length", "x-max-length-bytes")
"""What a queue was declared with that its release queue must not have: it would drop tasks."""


@dataclass(frozen=True, slots=True)
class ReleaseQueue:
    """A release queue.

    Args:
        name: Its name.
        arguments: With which it is declared: those of the queue beside which it is.
        homes: Where messages of that queue are published: exchange and routing key, on two lines.
    """

    name: str
    arguments: dict[str, Any]
    homes: tuple[str, ...]

    @classmethod
    def beside(cls, queue: Queue, prefix: str) -> ReleaseQueue:
        """The release queue beside a queue."""
        arguments = {**(queue.queue_arguments or {})}
        highest = getattr(queue, "max_priority", None)
        if highest is not None:
            arguments["x-max-priority"] = highest
        homes = [home("", queue.name)]
        if queue.exchange is not None and queue.exchange.name and queue.exchange.type == "direct":
            homes.append(home(queue.exchange.name, queue.routing_key or ""))
        return cls(
            f"{queue.name}.{prefix}{SUFFIX}",
            {name: value for name, value in arguments.items() if name not in _NOT_SHARED},
            tuple(homes),
        )

    def declaration(self) -> Queue:
        """The queue for kombu. It is on the default exchange, as every queue is."""
        return Queue(self.name, routing_key=self.name, queue_arguments=self.arguments or None, durable=True)


def home(exchange: str, routing_key: str) -> str:
    """Where a message was meant to go, as one text."""
    return f"{exchange}\n{routing_key}"


def release_queues(app: Celery, prefix: str) -> list[ReleaseQueue]:
    """The release queues of a worker, beside each queue that it was told to consume."""
    if not _can_have_more(app):
        return []
    consumed = list(app.amqp.queues.consume_from.values())
    return [ReleaseQueue.beside(one, prefix) for one in consumed if not one.name.endswith(SUFFIX)]


def _can_have_more(app: Celery) -> bool:
    """Whether a queue is there by being named: others have to be made, and paid for, by a person."""
    return transport_of(app).partition("+")[0] in {"amqp", "redis", "sentinel"}


class Register:
    """Which release queues are consumed.

    Args:
        room: Whose.
    """

    def __init__(self, room: Room) -> None:
        self._store = room.store
        self._key = room.key("room-queues")

    def renew(self, queues: Iterable[ReleaseQueue]) -> None:
        """Say that these are consumed.

        Raises:
            StoreUnavailable: Then what is released goes where it was first meant to go.
        """
        until = self._store.now() + GOOD_FOR
        rows = {
            one: json.dumps([until, queue.name, queue.arguments]) for queue in queues for one in queue.homes
        }
        if rows:
            with self._store.reporting():
                self._store.client.hset(self._key, mapping=rows)

    def read(self) -> dict[str, ReleaseQueue]:
        """Those that are consumed, by where messages were meant to go.

        Raises:
            StoreUnavailable: Nobody knows.
        """
        now = self._store.now()
        with self._store.reporting():
            rows = self._store.client.hgetall(self._key)
        found = {}
        for key, value in rows.items():
            until, name, arguments = json.loads(value)
            if until > now:
                found[key.decode()] = ReleaseQueue(name, arguments, (key.decode(),))
        return found
