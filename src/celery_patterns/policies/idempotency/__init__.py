"""Idempotency: at most one recorded effect per key and TTL."""

from celery_patterns.policies.idempotency.policy import Idempotency, IdempotentTask, idempotent
from celery_patterns.policies.idempotency.record import Snapshot, find, forget

__all__ = ["Idempotency", "IdempotentTask", "Snapshot", "find", "forget", "idempotent"]
