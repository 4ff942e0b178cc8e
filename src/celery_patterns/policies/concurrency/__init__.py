"""At most n at once: limits that are sets of owners with leases."""

from celery_patterns.policies.concurrency.policy import (
    ConcurrencyLimit,
    ConcurrencyLimitedTask,
    concurrency_limit,
)

__all__ = ["ConcurrencyLimit", "ConcurrencyLimitedTask", "concurrency_limit"]
