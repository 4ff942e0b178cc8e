"""Task patterns for Celery that hold under ``kill -9``."""

from celery_patterns.core.events import Event, subscribe
from celery_patterns.core.keys import ALL_ARGS
from celery_patterns.core.lease import Lease
from celery_patterns.core.policy import Call, Policy
from celery_patterns.core.settings import disabled
from celery_patterns.core.task import PolicyTask, as_decorator, attach
from celery_patterns.deadletters import DeadLetters, dead_letter_queue, move_to_dlq, process_dlq
from celery_patterns.errors import PatternsError, PolicyError
from celery_patterns.flows.routing.canvas_routing import route_canvas
from celery_patterns.flows.routing.priority import TaskPriority
from celery_patterns.flows.routing.queues import task_queues_for
from celery_patterns.flows.routing.router import TaskRouter
from celery_patterns.flows.routing.rule import Rule
from celery_patterns.flows.routing.submit import submit_with_priority
from celery_patterns.policies.dead_letter import DeadLetter, DeadLetterMixin, DeadLetterTask, dead_letter
from celery_patterns.policies.idempotency import Idempotency, IdempotentTask, idempotent
from celery_patterns.policies.retry import RetryableTask, RetryBudget, RetryPolicy, retryable, simulate

__all__ = [  # noqa: RUF022 - grouped by concept
    # patterns: the value, the base class, the decorator
    "DeadLetter",
    "DeadLetterMixin",
    "DeadLetterTask",
    "dead_letter",
    "Idempotency",
    "IdempotentTask",
    "idempotent",
    "RetryBudget",
    "RetryPolicy",
    "RetryableTask",
    "retryable",
    "simulate",
    # dead letters, from code
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
    "PatternsError",
    "PolicyError",
]
