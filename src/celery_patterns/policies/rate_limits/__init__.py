"""Rate limits that hold across all workers: token buckets on the store's clock."""

from celery_patterns.policies.rate_limits.acquire import Answer, acquire
from celery_patterns.policies.rate_limits.policy import RateLimits, TokenBucket, rate_limits, token_bucket
from celery_patterns.policies.rate_limits.rate import Rate
from celery_patterns.policies.rate_limits.steering import RateLimitManager, penalize
from celery_patterns.policies.rate_limits.task import TokenBucketTask

__all__ = [
    "Answer",
    "Rate",
    "RateLimitManager",
    "RateLimits",
    "TokenBucket",
    "TokenBucketTask",
    "acquire",
    "penalize",
    "rate_limits",
    "token_bucket",
]
