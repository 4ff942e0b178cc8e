"""At most one: singletons, runs that do not overlap, and a lock for any code."""

from celery_patterns.policies.singleton.policy import (
    NonOverlappingTask,
    Singleton,
    SingletonTask,
    singleton,
    without_overlapping,
)
from celery_patterns.policies.singleton.schedule import schedule_lock

__all__ = [
    "NonOverlappingTask",
    "Singleton",
    "SingletonTask",
    "schedule_lock",
    "singleton",
    "without_overlapping",
]
