"""Task patterns for Celery that hold under ``kill -9``.

A name is imported when it is first asked for, so that a program pays for the patterns that it uses, and
a test run that merely has the library's pytest plugin installed for none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery_patterns.core.events import Event, subscribe
    from celery_patterns.core.keys import ALL_ARGS
    from celery_patterns.core.lease import Lease
    from celery_patterns.core.policy import Call, Policy
    from celery_patterns.core.settings import disabled
    from celery_patterns.core.task import PolicyTask, as_decorator, attach
    from celery_patterns.deadletters.by_hand import move_to_dlq, process_dlq
    from celery_patterns.deadletters.desk import DeadLetters
    from celery_patterns.deadletters.rabbitmq import dead_letter_queue
    from celery_patterns.errors import ChordFailed, PatternsError, PolicyError, Throttled
    from celery_patterns.flows.chords.outcomes import Outcome, Outcomes
    from celery_patterns.flows.chords.partial import partial_chord
    from celery_patterns.flows.chords.progress import Progress, workflow_progress
    from celery_patterns.flows.chords.workflow import WorkflowNode, inspect_workflow
    from celery_patterns.flows.routing.canvas_routing import route_canvas
    from celery_patterns.flows.routing.priority import TaskPriority
    from celery_patterns.flows.routing.queues import task_queues_for
    from celery_patterns.flows.routing.router import TaskRouter
    from celery_patterns.flows.routing.rule import Rule
    from celery_patterns.flows.routing.submit import submit_with_priority
    from celery_patterns.policies.concurrency.policy import (
        ConcurrencyLimit,
        ConcurrencyLimitedTask,
        concurrency_limit,
    )
    from celery_patterns.policies.dead_letter.policy import (
        DeadLetter,
        DeadLetterMixin,
        DeadLetterTask,
        dead_letter,
    )
    from celery_patterns.policies.idempotency.policy import Idempotency, IdempotentTask, idempotent
    from celery_patterns.policies.rate_limits.acquire import acquire
    from celery_patterns.policies.rate_limits.policy import RateLimits, TokenBucket, rate_limits, token_bucket
    from celery_patterns.policies.rate_limits.rate import Rate
    from celery_patterns.policies.rate_limits.steering import RateLimitManager, penalize
    from celery_patterns.policies.rate_limits.task import TokenBucketTask
    from celery_patterns.policies.retry.budget import RetryBudget
    from celery_patterns.policies.retry.policy import RetryableTask, RetryPolicy, retryable
    from celery_patterns.policies.retry.simulate import simulate
    from celery_patterns.policies.singleton.policy import (
        NonOverlappingTask,
        Singleton,
        SingletonTask,
        singleton,
        without_overlapping,
    )
    from celery_patterns.policies.singleton.schedule import schedule_lock

__all__ = [  # noqa: RUF022 - grouped by concept
    # idempotency
    "Idempotency",
    "IdempotentTask",
    "idempotent",
    # rate limits
    "TokenBucket",
    "RateLimits",
    "TokenBucketTask",
    "token_bucket",
    "rate_limits",
    "Rate",
    "RateLimitManager",
    "Throttled",
    "acquire",
    "penalize",
    # at most one, at most n
    "Singleton",
    "SingletonTask",
    "singleton",
    "NonOverlappingTask",
    "without_overlapping",
    "schedule_lock",
    "ConcurrencyLimit",
    "ConcurrencyLimitedTask",
    "concurrency_limit",
    # retries
    "RetryPolicy",
    "RetryBudget",
    "RetryableTask",
    "retryable",
    "simulate",
    # dead letters
    "DeadLetter",
    "DeadLetterMixin",
    "DeadLetterTask",
    "dead_letter",
    "DeadLetters",
    "dead_letter_queue",
    "move_to_dlq",
    "process_dlq",
    # routing
    "Rule",
    "TaskPriority",
    "TaskRouter",
    "route_canvas",
    "submit_with_priority",
    "task_queues_for",
    # chords and workflows
    "partial_chord",
    "Outcome",
    "Outcomes",
    "Progress",
    "WorkflowNode",
    "inspect_workflow",
    "workflow_progress",
    # keys
    "ALL_ARGS",
    # a pattern of your own
    "Call",
    "Policy",
    "PolicyTask",
    "as_decorator",
    "attach",
    # what a running task may ask for
    "Lease",
    # watching and switching off
    "Event",
    "disabled",
    "subscribe",
    # errors
    "ChordFailed",
    "PatternsError",
    "PolicyError",
]

_HOMES = {
    "core.events": ("Event", "subscribe"),
    "core.keys": ("ALL_ARGS",),
    "core.lease": ("Lease",),
    "core.policy": ("Call", "Policy"),
    "core.settings": ("disabled",),
    "core.task": ("PolicyTask", "as_decorator", "attach"),
    "deadletters.by_hand": ("move_to_dlq", "process_dlq"),
    "deadletters.desk": ("DeadLetters",),
    "deadletters.rabbitmq": ("dead_letter_queue",),
    "errors": ("ChordFailed", "PatternsError", "PolicyError", "Throttled"),
    "flows.chords.outcomes": ("Outcome", "Outcomes"),
    "flows.chords.partial": ("partial_chord",),
    "flows.chords.progress": ("Progress", "workflow_progress"),
    "flows.chords.workflow": ("WorkflowNode", "inspect_workflow"),
    "flows.routing.canvas_routing": ("route_canvas",),
    "flows.routing.priority": ("TaskPriority",),
    "flows.routing.queues": ("task_queues_for",),
    "flows.routing.router": ("TaskRouter",),
    "flows.routing.rule": ("Rule",),
    "flows.routing.submit": ("submit_with_priority",),
    "policies.concurrency.policy": ("ConcurrencyLimit", "ConcurrencyLimitedTask", "concurrency_limit"),
    "policies.dead_letter.policy": ("DeadLetter", "DeadLetterMixin", "DeadLetterTask", "dead_letter"),
    "policies.idempotency.policy": ("Idempotency", "IdempotentTask", "idempotent"),
    "policies.rate_limits.acquire": ("acquire",),
    "policies.rate_limits.policy": ("RateLimits", "TokenBucket", "rate_limits", "token_bucket"),
    "policies.rate_limits.rate": ("Rate",),
    "policies.rate_limits.steering": ("RateLimitManager", "penalize"),
    "policies.rate_limits.task": ("TokenBucketTask",),
    "policies.retry.budget": ("RetryBudget",),
    "policies.retry.policy": ("RetryPolicy", "RetryableTask", "retryable"),
    "policies.retry.simulate": ("simulate",),
    "policies.singleton.policy": (
        "NonOverlappingTask",
        "Singleton",
        "SingletonTask",
        "singleton",
        "without_overlapping",
    ),
    "policies.singleton.schedule": ("schedule_lock",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module(f"{__name__}.errors")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
