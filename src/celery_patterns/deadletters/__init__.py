"""What died, kept until a person has decided: record, store, replay, triage."""

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
