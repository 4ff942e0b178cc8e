"""What died, kept until a person has decided: record, store, replay, triage.

A name is imported when it is first asked for: a task that keeps its deaths needs none of what operators do
about them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery_patterns.deadletters.by_hand import move_to_dlq, process_dlq
    from celery_patterns.deadletters.desk import DeadLetters
    from celery_patterns.deadletters.entry import Entry
    from celery_patterns.deadletters.query import Filter, Group, Page
    from celery_patterns.deadletters.rabbitmq import dead_letter_queue
    from celery_patterns.deadletters.replay import Plan, Report

__all__ = [
    "DeadLetters",
    "Entry",
    "Filter",
    "Group",
    "Page",
    "Plan",
    "Report",
    "dead_letter_queue",
    "move_to_dlq",
    "process_dlq",
]

_HOMES = {
    "DeadLetters": "desk",
    "Entry": "entry",
    "Filter": "query",
    "Group": "query",
    "Page": "query",
    "Plan": "replay",
    "Report": "replay",
    "dead_letter_queue": "rabbitmq",
    "move_to_dlq": "by_hand",
    "process_dlq": "by_hand",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
