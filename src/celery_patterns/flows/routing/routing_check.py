"""What is wrong with an app's routing, as far as it can be known without publishing anything."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from celery.app.routes import MapRoute
from kombu.utils.functional import maybe_evaluate

from celery_patterns.flows.routing.finding import Finding
from celery_patterns.flows.routing.queue_check import check_queues
from celery_patterns.flows.routing.router import TaskRouter, routers_of
from celery_patterns.flows.routing.router_apps import router_behind
from celery_patterns.flows.routing.rule_conditions import ArgumentsMeet, HeaderValue, Tier, Urgency
from celery_patterns.flows.routing.rule_names import is_users_task

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from celery import Celery
    from celery.app.task import Task

    from celery_patterns.flows.routing.rule import Rule


def check_routes(app: Celery, *, consumed: Collection[str] | None = None) -> tuple[Finding, ...]:
    """All findings about an app's TaskRouters, its tasks and its queues.

    Args:
        app: The app, with its tasks loaded.
        consumed: The queues that workers consume; ``None`` if that is not to be checked.
    """
    routers = tuple(routers_of(app))
    tasks = {name: task for name, task in sorted(app.tasks.items()) if is_users_task(name)}
    findings = [finding for router in routers for finding in _rules(router, tasks)]
    findings += _tasks_without_rule(app, tasks)
    findings += check_queues(app, routers, consumed)
    findings += _order_of_routers(app)
    return tuple(findings)


def _rules(router: TaskRouter, tasks: dict[str, Task[Any, Any]]) -> Iterator[Finding]:
    for rule, earlier in router.table.unreachable():
        yield Finding(
            kind="unreachable rule",
            subject=str(rule.name),
            message=f"{earlier.name!r} comes first and takes all its calls; move it up, or remove it",
        )
    for rule in router.table.rules:
        missing = _never_there(rule, tasks)
        if missing:
            yield Finding(
                kind="unreachable rule",
                subject=str(rule.name),
                message=f"no task that it is about has an argument {missing!r}",
            )


def _never_there(rule: Rule, tasks: dict[str, Task[Any, Any]]) -> str | None:
    """An argument that the rule asks for, and that none of the tasks it is about can have."""
    asked = [one.function for one in rule.conditions if isinstance(one, ArgumentsMeet)]
    about = [inspect.signature(task.run) for name, task in tasks.items() if rule.speaks_of(name)]
    if not asked or not about:
        return None
    takes_any = any(one.kind is one.VAR_KEYWORD for found in about for one in found.parameters.values())
    for name in asked[0].required:
        if not takes_any and not any(name in found.parameters for found in about):
            return name
    return None


def _tasks_without_rule(app: Celery, tasks: dict[str, Task[Any, Any]]) -> Iterator[Finding]:
    routers = [router_behind(entry) for entry in app.amqp.routes]
    for name, task in tasks.items():
        if not getattr(task, "queue", None) and not any(_speaks_of(router, name) for router in routers):
            yield Finding(
                kind="task without a rule",
                subject=name,
                message="only the default holds for it; write a rule (a last Rule('*', ...) covers the rest)",
            )


def _speaks_of(router: object, name: str) -> bool:
    """Whether a router has a word on calls of this name; one that cannot be looked into may have.

    A rule that names no task, such as one for all urgent calls, says nothing of the others.
    """
    if isinstance(router, TaskRouter):
        rules = [rule for rule, _ in router.table.plan(name).candidates]
        return router.is_overridden or any(rule.task is not None or not rule.conditions for rule in rules)
    return router(name) is not None if isinstance(router, MapRoute) else True


def _order_of_routers(app: Celery) -> Iterator[Finding]:
    """Routers that are never asked, and routers that Celery asks without showing them the options."""
    asked = [maybe_evaluate(entry) for entry in app.amqp.routes]
    for place, made in enumerate(asked):
        router = getattr(made, "__self__", made)
        if not isinstance(router, TaskRouter):
            continue
        if router.answers_all and place < len(asked) - 1:
            yield Finding(
                kind="router never asked",
                subject=type(asked[place + 1]).__name__,
                message=f"{router} before it answers for every call; put it last, or give it default=None",
            )
        by_options = [rule for rule in router.table.rules if any(map(_asks_options, rule.conditions))]
        if made is router and by_options:
            yield Finding(
                kind="blind router",
                subject=str(by_options[0].name),
                message="task_routes names the router's class, which Celery does not show headers and "
                "options; name an instance",
            )


def _asks_options(condition: object) -> bool:
    return isinstance(condition, HeaderValue | Tier | Urgency)
