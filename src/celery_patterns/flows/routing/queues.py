"""The queues that a routing table names, declared so that priorities mean on each broker what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from kombu import Exchange, Queue

from celery_patterns.errors import RuleError
from celery_patterns.flows.routing.priority import HIGHEST_NUMBER, KOMBU_STEPS, MAX_PRIORITY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from celery_patterns.flows.routing.router import TaskRouter

QueueType = Literal["classic", "quorum"]

PRIORITY_STEPS: Final = tuple(sorted({*KOMBU_STEPS, 7}))
"""A list in Redis for each meaning, kombu's own among them, so that no earlier message is left behind."""


def task_queues_for(
    *sources: TaskRouter | str,
    default: str = "celery",
    queue_type: QueueType = "classic",
    max_priority: int | None = MAX_PRIORITY,
    exchange: str | None = None,
    transport_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Settings that declare every queue which a router names: ``app.conf.update(task_queues_for(router))``.

    The same declaration serves Redis and RabbitMQ: queues get ``x-max-priority``, which Redis ignores, and
    ``priority_steps``, which RabbitMQ ignores. Queues that nobody declared are no longer made on the fly,
    so that a typing error in a rule fails when a task is published instead of filling a queue that no
    worker reads.

    RabbitMQ does not change a queue that exists: one that was declared without a priority has to be deleted,
    or the new one called otherwise. On Redis, restart workers before publishers: a worker never reads a step
    that it does not know.

    Args:
        sources: Routers, whose rules and default name queues, and names of further queues.
        default: The queue for calls that name none; ``task_default_queue``.
        queue_type: ``"classic"`` queues sort by priority. ``"quorum"`` queues are replicated; they tell only
            urgent (HIGH, CRITICAL) from other messages, from RabbitMQ 4.0 on, and not at all before. They get
            a topic exchange, without which Celery holds delayed tasks in the worker.
        max_priority: ``x-max-priority`` of classic queues; ``None`` for queues that do not sort. The scale of
            9 is the one that every publisher assumes who does not know the declaration.
        exchange: The exchange's name; by default that of the default queue.
        transport_options: Your own ``broker_transport_options``, which the result then includes.

    Returns:
        The settings by name, for ``app.conf.update``. Two queues of one name, the first declaration is kept.

    Raises:
        RuleError: A value cannot be declared.
    """
    _check(queue_type, max_priority)
    is_quorum = queue_type == "quorum"
    exchange_type = "topic" if is_quorum else "direct"
    common = Exchange(exchange or default, type=exchange_type)
    arguments: dict[str, Any] = {"x-queue-type": "quorum"} if is_quorum else {"x-max-priority": max_priority}
    queues: dict[str, Queue] = {}
    for queue in _named_by((*sources, default)):
        if isinstance(queue, Queue):
            queues.setdefault(queue.name, queue)
        elif queue not in queues:
            declared = {name: value for name, value in arguments.items() if value is not None}
            queues[queue] = Queue(queue, common, routing_key=queue, queue_arguments=declared)
    return {
        "task_queues": tuple(queues.values()),
        "task_create_missing_queues": False,
        "task_default_queue": default,
        "task_default_exchange": common.name,
        "task_default_exchange_type": exchange_type,
        "task_default_routing_key": default,
        "broker_transport_options": {"priority_steps": list(PRIORITY_STEPS), **(transport_options or {})},
    }


def _named_by(sources: Iterable[TaskRouter | str]) -> Iterator[str | Queue]:
    for source in sources:
        if not isinstance(source, str):
            yield from source.queues
        elif source:
            yield source
        else:
            raise RuleError("a queue's name is empty")


def _check(queue_type: str, max_priority: int | None) -> None:
    if queue_type not in {"classic", "quorum"}:
        raise RuleError(f"queue_type={queue_type!r}: write 'classic' or 'quorum'")
    if max_priority is not None and not 1 <= max_priority <= HIGHEST_NUMBER:
        raise RuleError(f"max_priority={max_priority!r}: RabbitMQ takes 1 to {HIGHEST_NUMBER}")
