"""Retries decided by tenacity's objects and waited for by Celery: no worker slot sleeps."""

from celery_patterns.policies.retry.budget import RetryBudget
from celery_patterns.policies.retry.policy import RetryableTask, RetryPolicy, retryable
from celery_patterns.policies.retry.simulate import Simulation, simulate

__all__ = ["RetryBudget", "RetryPolicy", "RetryableTask", "Simulation", "retryable", "simulate"]
