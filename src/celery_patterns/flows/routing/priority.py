"""Priorities as meanings, and the number that each means to a broker.

On Redis 0 is served first, and a message that names no priority has 0. On RabbitMQ (and every other
transport that knows priorities) the highest number is served first, and a message without one counts as
the lowest. A number is therefore right on one broker only. A meaning is right on all, and becomes a number
at the last moment, when the message is published and its broker and its queue are known.
"""

from __future__ import annotations

from enum import Enum
from functools import total_ordering
from typing import TYPE_CHECKING, Final, NoReturn

from celery_patterns.errors import PriorityNotTranslated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery
    from kombu import Connection, Queue

MAX_PRIORITY: Final = 9
"""The highest number of the scale that all brokers share."""

HIGHEST_NUMBER: Final = 255
"""What AMQP has room for."""

KOMBU_STEPS: Final = (0, 3, 6, 9)
"""The lists that kombu keeps per queue in Redis, unless told otherwise."""


@total_ordering
class TaskPriority(Enum):
    """How soon a task should start, compared with others in its queue.

    Use it wherever Celery takes a priority, in an app whose ``task_routes`` ends in a
    :class:`~celery_patterns.TaskRouter`: in rules, as a task's ``priority``, in ``apply_async``. The
    router turns it into the broker's number when it publishes. It is deliberately no integer: a member
    that reaches a broker untranslated is an error, not a task that is quietly served last.

    Members compare by urgency: ``TaskPriority.BULK < TaskPriority.CRITICAL``.
    """

    BULK = 0
    LOW = 1
    NORMAL = 2
    HIGH = 3
    CRITICAL = 4

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, TaskPriority):
            return NotImplemented
        return self._urgency < other._urgency

    @property
    def _urgency(self) -> int:
        urgency: int = self.value
        return urgency

    def __index__(self) -> NoReturn:
        raise PriorityNotTranslated(
            f"{self} reached the broker untranslated: put a TaskRouter into task_routes, "
            "before any router that answers for this task"
        )

    __int__ = __index__

    def __json__(self) -> NoReturn:
        """Refuse to be carried inside a message: the next publisher may not know the meaning."""
        raise PriorityNotTranslated(
            f"{self} cannot be carried inside a message: set those of a canvas with route_canvas(...)"
        )


def broker_number(
    level: TaskPriority,
    app: Celery,
    *,
    queue: str | Queue | None = None,
    connection: Connection | None = None,
) -> int:
    """The number that ``level`` means to a broker.

    Args:
        level: The meaning.
        app: The app that publishes.
        queue: The queue that the message goes to: ``x-max-priority`` is read from its declaration.
        connection: The connection it is published on; by default the app's own.
    """
    connection = connection or app.producer_pool.connections.connection
    if connection.transport.driver_type == _REDIS:
        return redis_number(level, _steps(connection))
    return amqp_number(level, _top_of(app, queue))


def driver_type(app: Celery) -> str:
    """The kind of broker that an app publishes to, in kombu's words."""
    kind: str = app.producer_pool.connections.connection.transport.driver_type
    return kind


def redis_number(level: TaskPriority, steps: Sequence[int]) -> int:
    """The list that ``level`` goes to, where the first of ``steps`` is served first.

    With fewer steps than meanings neighbours share a list, and the order is kept.
    """
    last = len(steps) - 1
    return steps[round((_MOST_URGENT - level.value) * last / _MOST_URGENT)]


def amqp_number(level: TaskPriority, top: int = MAX_PRIORITY) -> int:
    """The number from 0 to ``top`` that ``level`` means where the highest is served first.

    NORMAL stays below 5 on the scale of 9: RabbitMQ's quorum queues know two levels, and 5 begins the
    upper one.
    """
    return round(level.value * top / _MOST_URGENT)


def max_priority_of(queue: Queue | None) -> int | None:
    """The highest priority that a queue was declared with; ``None`` if it does not sort messages."""
    if queue is None:
        return None
    arguments = queue.queue_arguments or {}
    declared: int | None = getattr(queue, "max_priority", None) or arguments.get("x-max-priority")
    return declared


def is_quorum(queue: Queue | None) -> bool:
    """Whether a queue is declared as a quorum queue."""
    return queue is not None and (queue.queue_arguments or {}).get("x-queue-type") == "quorum"


_REDIS: Final = "redis"
_MOST_URGENT: Final = TaskPriority.CRITICAL.value


def _steps(connection: Connection) -> Sequence[int]:
    return sorted((connection.transport_options or {}).get("priority_steps") or KOMBU_STEPS)


def _top_of(app: Celery, queue: str | Queue | None) -> int:
    declared = app.amqp.queues.get(queue) if isinstance(queue, str) else queue
    if declared is None:  # Celery makes it when it is published to
        return app.conf.task_queue_max_priority or MAX_PRIORITY
    return max_priority_of(declared) or MAX_PRIORITY
