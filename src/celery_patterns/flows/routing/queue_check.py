"""Which queues an app's calls go to, and whether they exist, are consumed, and sort their messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_patterns.flows.routing.decision import NOTHING
from celery_patterns.flows.routing.finding import Finding
from celery_patterns.flows.routing.priority import driver_type, is_quorum, max_priority_of
from celery_patterns.flows.routing.rule_names import is_users_task

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from celery import Celery
    from kombu import Queue

    from celery_patterns.flows.routing.router import TaskRouter


def check_queues(
    app: Celery, routers: tuple[TaskRouter, ...], consumed: Collection[str] | None
) -> Iterator[Finding]:
    """All findings about the queues that routers, tasks and the default name."""
    declared = _declared(app)
    used = _used(app, routers)
    for queue, by_whom in used.items():
        if queue not in declared:
            yield Finding(
                kind="unknown queue",
                subject=queue,
                message=f"{by_whom} names it, and task_queues does not declare it (see task_queues_for)",
            )
        if consumed is not None and (declared[queue].name if queue in declared else queue) not in consumed:
            yield Finding(
                kind="queue without a worker",
                subject=queue,
                message=f"{by_whom} names it, and no worker that answered consumes it",
            )
    if any(router.table.has_levels for router in routers):
        yield from _priorities(app, [declared[name] for name in used if name in declared])


def _declared(app: Celery) -> dict[str, Queue]:
    """The queues of ``task_queues``; without that setting, the default queue.

    Not ``app.amqp.queues``, which also holds those that were made when somebody published to them.
    """
    fresh: Any = app.amqp.Queues(app.conf.task_queues)
    return {**fresh, **fresh.aliases}


def _used(app: Celery, routers: tuple[TaskRouter, ...]) -> dict[str, str]:
    """The queues that calls are sent to, each with who sends there."""
    used: dict[str, str] = {}
    for router in routers:
        for rule in router.table.rules:
            if rule.queue is not None:
                used.setdefault(_name(rule.queue), repr(rule.name))
        fallback = router.table.default.route.get("queue")
        if fallback is not None:
            used.setdefault(_name(fallback), "the default")
    for name, task in app.tasks.items():
        if not is_users_task(name):
            continue
        queue = getattr(task, "queue", None)
        if queue:
            used.setdefault(_name(queue), f"the task {name}")
        elif _may_reach_default_queue(name, routers):
            used.setdefault(app.conf.task_default_queue, f"the task {name} (by task_default_queue)")
    return used


def _may_reach_default_queue(name: str, routers: tuple[TaskRouter, ...]) -> bool:
    """Whether calls of a task may end up where nobody names a queue for them."""
    for router in routers:
        plan = router.table.plan(name)
        if any("queue" not in decision.route for _, decision in plan.candidates):
            return True
        if plan.candidates and not plan.candidates[-1][0].conditions:
            return False
        if plan.otherwise is not NOTHING:
            return "queue" not in plan.otherwise.route
    return True


def _priorities(app: Celery, queues: list[Queue]) -> Iterator[Finding]:
    """What makes priorities mean less than they say."""
    if app.conf.worker_prefetch_multiplier != 1:
        yield Finding(
            kind="prefetch",
            subject="worker_prefetch_multiplier",
            message=f"a worker takes {app.conf.worker_prefetch_multiplier} messages ahead for each of its "
            "processes, and none that comes later overtakes them; set it to 1",
            fails=False,
        )
    if driver_type(app) != "amqp":
        return
    for queue in queues:
        if max_priority_of(queue) is None and not is_quorum(queue):
            yield Finding(
                kind="unsorted queue",
                subject=queue.name,
                message="it is declared without x-max-priority, so RabbitMQ ignores priorities in it",
                fails=False,
            )


def _name(queue: str | Queue) -> str:
    return queue if isinstance(queue, str) else str(queue.name)
