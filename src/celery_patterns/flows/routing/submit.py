"""Publishing with a priority that follows from who asks, and how urgently."""

from __future__ import annotations

import logging
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from celery_patterns.flows.routing.decision import NOTHING
from celery_patterns.flows.routing.priority import TaskPriority, broker_number
from celery_patterns.flows.routing.routed_call import TIER_HEADER, URGENT_HEADER, RoutedCall
from celery_patterns.flows.routing.router import routers_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery import Celery
    from celery.app.task import Task
    from celery.result import AsyncResult
    from kombu import Connection, Queue

logger = logging.getLogger("celery_patterns")

TIERS: Final[Mapping[str, TaskPriority]] = MappingProxyType(
    {
        "free": TaskPriority.LOW,
        "standard": TaskPriority.NORMAL,
        "premium": TaskPriority.HIGH,
        "enterprise": TaskPriority.HIGH,
    }
)
"""The tiers that there are where a router does not say otherwise."""


def submit_with_priority(
    task: Task[Any, Any],
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    user_tier: str | None = None,
    is_urgent: bool = False,
    **options: Any,
) -> AsyncResult[Any]:
    """Publish a call as soon as its tenant's tier and its urgency deserve.

    An urgent call is CRITICAL; else the tier decides, as the router's ``tiers`` say; without a tier a call is
    NORMAL. Tier and urgency travel in headers, so that rules by ``tier=`` and ``urgent=`` see them, and
    retries keep them. The number is that of the broker and the queue which the call goes to.

    Use it at the edge, where a request's user is known. Where all calls of a task are alike, a rule with a
    ``priority=`` is enough.

    Args:
        task: The task.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        user_tier: The tenant's tier. One that nobody has declared counts as NORMAL, with a line in the log.
        is_urgent: Whether the call should overtake all others.
        options: As for ``apply_async``; a ``priority`` among them wins.

    Returns:
        What ``apply_async`` returns.
    """
    app: Celery = task.app
    marks = {TIER_HEADER: user_tier, URGENT_HEADER: is_urgent or None}
    sent = {name: value for name, value in marks.items() if value is not None}
    options["headers"] = {**(options.get("headers") or {}), **sent}
    if options.get("priority") is None:
        options["priority"] = TaskPriority.CRITICAL if is_urgent else _level_of(user_tier, app)
    if isinstance(options["priority"], TaskPriority):
        options["priority"] = _number(options["priority"], task, args, kwargs, options)
    return task.apply_async(tuple(args or ()), dict(kwargs or {}), **options)


def _level_of(tier: str | None, app: Celery) -> TaskPriority:
    if tier is None:
        return TaskPriority.NORMAL
    declared = next((router.tiers for router in routers_of(app) if router.tiers is not None), TIERS)
    if tier not in declared:
        _warn_once(tier, tuple(sorted(declared)))
    return declared.get(tier, TaskPriority.NORMAL)


@lru_cache(maxsize=1000)
def _warn_once(tier: str, declared: tuple[str, ...]) -> None:
    logger.warning("user_tier=%r is none of %s: its calls are published as NORMAL", tier, ", ".join(declared))


def _number(
    level: TaskPriority,
    task: Task[Any, Any],
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    options: dict[str, Any],
) -> int:
    """The number on the connection and the queue that the call is about to use."""
    connection: Connection | None = options.get("connection") or getattr(
        options.get("producer"), "connection", None
    )
    queue = options.get("queue") or getattr(task, "queue", None) or _routed_queue(task, args, kwargs, options)
    return broker_number(
        level, task.app, queue=queue or task.app.conf.task_default_queue, connection=connection
    )


def _routed_queue(
    task: Task[Any, Any],
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    options: dict[str, Any],
) -> str | Queue | None:
    call = RoutedCall(task.app, task.name, args, kwargs, options, task=task)
    for router in routers_of(task.app):
        decision = router.decide(call, _say_nothing)
        if decision is not NOTHING:
            queue: str | Queue | None = decision.route.get("queue")
            return queue
    return None


def _say_nothing(source: str, call: RoutedCall, error: Exception) -> None:
    """The router will be asked again when the call is published, and then tell of what raises."""
