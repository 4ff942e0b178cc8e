"""What a router has decided about a call, and how it becomes the options that Celery publishes with."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from celery_patterns.errors import UnroutableQueue
from celery_patterns.flows.routing.destination import (
    DESTINATION,
    completing_queue,
    is_republished,
    is_settled,
)
from celery_patterns.flows.routing.priority import TaskPriority, broker_number
from celery_patterns.flows.routing.routed_call import URGENT_HEADER, RoutedCall

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery
    from kombu import Queue

    from celery_patterns.flows.routing.rule import Rule


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a call goes, and by whose word.

    Args:
        source: The rule's name, or ``"default"``, or the method that answered.
        route: The options, without the priority.
        priority: How soon; ``None`` where nobody says.
    """

    source: str
    route: Mapping[str, Any]
    priority: TaskPriority | int | None

    def fresh_route(self) -> dict[str, Any]:
        """The route as nobody else's, all the way down: Celery takes routes apart."""
        return {
            name: copy.deepcopy(value) if isinstance(value, dict | list) else value
            for name, value in self.route.items()
        }

    @classmethod
    def of(cls, rule: Rule, unless_said: TaskPriority | None) -> Decision:
        """The decision that a rule stands for."""
        return cls(str(rule.name), rule.route, unless_said if rule.priority is None else rule.priority)


NOTHING: Final = Decision("nobody", {}, None)
"""The router has no opinion: Celery asks the next one."""


def route_for(decision: Decision, call: RoutedCall) -> dict[str, Any]:
    """The decision as options for Celery: a fresh dict each time, since Celery takes it apart.

    What the call says itself stays out of it, so that it wins as a whole.

    Raises:
        UnroutableQueue: The queue is not declared, and Celery may not make it.
    """
    options = call.options
    if is_republished(options):
        return completing_queue(options, call.app)
    route = decision.fresh_route()
    if is_settled(options):
        route = {name: value for name, value in route.items() if name not in DESTINATION}
        route.update(completing_queue(options, call.app))
    elif "queue" in route:
        _check_queue(route["queue"], decision.source, call)
    elif (
        "exchange" not in route
    ):  # Celery looks for the queue of a delayed message before it adds its default
        route["queue"] = call.app.conf.task_default_queue
    if decision.priority is not None and options.get("priority") is None:
        route["priority"] = number_of(decision.priority, call.app, options.get("queue") or route.get("queue"))
    return route


def settle_options(decision: Decision, call: RoutedCall) -> None:
    """Turn what only we understand in the call's own options into what brokers and retries do.

    Celery hands its options over for good: they belong to this publication alone.
    """
    options = call.options
    said = call.priority
    if said is not None:
        queue = options.get("queue") or decision.route.get("queue")
        options["priority"] = number_of(said, call.app, queue)
    if options.pop("urgent", None):
        options["headers"] = {**(options.get("headers") or {}), URGENT_HEADER: True}


def number_of(priority: TaskPriority | int, app: Celery, queue: str | Queue | None) -> int:
    """The broker's number; a number is taken at its word."""
    if not isinstance(priority, TaskPriority):
        return priority
    return broker_number(priority, app, queue=queue or app.conf.task_default_queue)


def _check_queue(queue: str | Queue | None, source: str, call: RoutedCall) -> None:
    queues: Any = call.app.amqp.queues
    if (
        isinstance(queue, str)
        and not queues.create_missing
        and queue not in queues
        and queue not in queues.aliases
    ):
        raise UnroutableQueue(
            f"rule {source!r} sends {call.name} to queue {queue!r}, which task_queues does not declare; "
            "correct the rule, or declare the queue (task_queues_for(router) declares all that it names)"
        )
