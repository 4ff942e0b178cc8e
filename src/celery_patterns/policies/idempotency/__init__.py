"""Idempotency: at most one recorded effect per key and TTL."""

from celery_patterns.policies.idempotency.operate import Snapshot, find, forget
from celery_patterns.policies.idempotency.policy import Idempotency, IdempotentTask, idempotent

__all__ = ["Idempotency", "IdempotentTask", "Snapshot", "find", "forget", "idempotent"]
