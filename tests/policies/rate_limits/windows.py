"""Is a limit kept in every window, also in those that begin and end anywhere?"""

from collections.abc import Sequence

from celery_patterns.policies.rate_limits.rate import Rate


def micros(seconds: float) -> int:
    """Server times come as seconds; limits are checked in whole microseconds."""
    return round(seconds * 1e6)


def excess(times: Sequence[int], rate: Rate, burst: int) -> float:
    """By how many calls the worst window is above rate times window and burst; 0 or less is kept.

    With p(i) = i * per - n * t(i), the calls from i to j are too many if p(j) - p(i) > (burst - 1) * per:
    so one pass finds the worst of all windows.
    """
    lowest, worst = None, -(10**30)
    for number, at in enumerate(sorted(times)):
        here = number * rate.per_us - rate.count * at
        lowest = here if lowest is None else min(lowest, here)
        worst = max(worst, here - lowest)
    return (worst - (burst - 1) * rate.per_us) / rate.per_us


def most_in_period(times: Sequence[int], rate: Rate) -> int:
    """The most calls in any half-open window of the rate's own period."""
    times, first, most = sorted(times), 0, 0
    for last, at in enumerate(times):
        while at - times[first] >= rate.per_us:
            first += 1
        most = max(most, last - first + 1)
    return most
