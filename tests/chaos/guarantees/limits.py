"""No limit is exceeded in any window, by the server's times of the grants with which bodies began."""

from collections import defaultdict

from celery_patterns import Rate
from tests.chaos.guarantees.violation import Violation
from tests.chaos.story import Entry, Story
from tests.policies.rate_limits.windows import excess, micros, most_in_period

NAME = "limits are kept"


def limits_kept(story: Story) -> list[Violation]:
    """Check each bucket by itself."""
    begins = defaultdict[str, list[Entry]](list)
    for body in story.bodies:
        for bucket, granted in body.begin["granted"].items():
            if granted is not None and bucket.partition(":")[0] in story.terms["limits"]:
                begins[bucket].append({**body.begin, "by_grant": granted})
    return [found for bucket in begins for found in _of_bucket(bucket, begins[bucket], story)]


def _of_bucket(bucket: str, begins: list[Entry], story: Story) -> list[Violation]:
    limit = story.terms["limits"][bucket.partition(":")[0]]
    rate, times = Rate.of(limit["rate"]), [micros(begin["by_grant"]) for begin in begins]
    found = []
    if (over := excess(times, rate, limit["burst"])) > 0:
        found.append(f"{over:g} calls too many in the worst window of {bucket}")
    if limit["strict"] and (most := most_in_period(times, rate)) > rate.count:
        found.append(f"{most} calls of {bucket} in {rate.per:g} s, of {rate.count} that strict=True allows")
    return [Violation(NAME, why, begins) for why in found]
