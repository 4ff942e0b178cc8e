"""What the tasks of the suite are bound to, as values: the policies, and what a checker knows of them."""

from collections.abc import Mapping
from typing import Any

from tenacity import stop_after_attempt, wait_fixed

from celery_patterns import (
    DeadLetter,
    Idempotency,
    Policy,
    RateLimits,
    RetryPolicy,
    Singleton,
    TokenBucket,
)
from celery_patterns.policies.rate_limits.policy import Limits

LEASE = 2.0
TTL = 900.0
QUEUED_TTL = 10.0
"""Seconds; for so long a message that the broker lost keeps its account blocked."""
VISIBILITY = 8.0
"""Seconds after which a Redis broker delivers again what was not acknowledged."""


class Flaky(Exception):
    """It may well work the next time."""


class Declined(Exception):
    """It will never work."""


ALL = TokenBucket("8/s", burst=4, name="all")
OF_BRANCH = TokenBucket("4/s", burst=4, key="branch", name="branch", strict=True)
"""Less than what is published at once now and then: limits that nobody meets would prove nothing."""

POLICIES: dict[str, Policy] = {
    "dead_letter": DeadLetter(),
    "retry_policy": RetryPolicy(Flaky, wait=wait_fixed(0.3), stop=stop_after_attempt(4)),
    "idempotency": Idempotency("order", ttl=TTL, lease=LEASE),
    "singleton": Singleton(
        "account",
        name="book",
        scope="while_executing",
        on_conflict="defer",
        queued_ttl=QUEUED_TTL,
        lease=LEASE,
    ),
    "token_bucket": RateLimits(ALL, OF_BRANCH),
}


def as_entry(redelivery: float, policies: Mapping[str, Policy] = POLICIES, places: int = 1) -> dict[str, Any]:
    """Return the terms as they stand in a history.

    Args:
        redelivery: Seconds after which the broker delivers again what was not acknowledged.
        policies: Of the tasks.
        places: How many bodies of one account may be at work at once.
    """
    buckets = policies.get("token_bucket")
    limits = {
        limit.name: {"rate": str(limit.rate), "burst": limit.burst, "strict": limit.strict}
        for limit in (buckets.limits if isinstance(buckets, Limits) else ())
    }
    letters = policies.get("dead_letter")
    most = letters.max_deliveries if isinstance(letters, DeadLetter) else None
    times = {"lease": LEASE, "ttl": TTL, "queued_ttl": QUEUED_TTL, "redelivery": redelivery}
    bounds = {"limits": limits, "places": places, "max_deliveries": most}
    return {**times, **bounds, "kinds": sorted(policies)}
