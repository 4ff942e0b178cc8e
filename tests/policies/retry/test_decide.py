"""Retry timing is tenacity's: the same delays and attempts as tenacity itself in one process."""

import random
from types import SimpleNamespace
from typing import Any

import pytest
import tenacity
from hypothesis import given, settings
from hypothesis import strategies as st
from tenacity import (
    RetryError,
    Retrying,
    retry_if_exception,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_after_attempt,
    stop_after_delay,
    stop_before_delay,
    wait_chain,
    wait_combine,
    wait_exponential,
    wait_exponential_jitter,
    wait_fixed,
    wait_incrementing,
    wait_none,
    wait_random,
    wait_random_exponential,
)

from celery_patterns.policies.retry.decide import Again, Failure, decide
from celery_patterns.policies.retry.policy import RetryPolicy

LONGEST = 40
pytestmark = pytest.mark.filterwarnings("ignore:The .initial. parameter")  # its name in tenacity 9.0
few = st.integers(0, 20)
some = st.integers(1, 30)

plain_waits = st.one_of(
    st.just(wait_none()),
    st.builds(wait_fixed, few),
    st.builds(lambda low, more: wait_random(low, low + more), few, few),
    st.builds(lambda start, step: wait_incrementing(start, step, max=60), few, few),
    st.builds(lambda factor, most: wait_exponential(multiplier=factor, max=most), some, some),
    st.builds(lambda factor, most: wait_random_exponential(multiplier=factor, max=most), some, some),
    st.builds(lambda first, most: wait_exponential_jitter(initial=first, max=most), some, some),
)
waits = st.recursive(
    plain_waits,
    lambda inner: st.one_of(
        st.builds(wait_combine, inner, inner),
        st.builds(lambda one, two: wait_chain(one, one, two), inner, inner),
    ),
    max_leaves=4,
)
plain_stops = st.one_of(
    st.builds(stop_after_attempt, st.integers(1, 12)),
    st.builds(stop_after_delay, st.integers(1, 200)),
    st.builds(stop_before_delay, st.integers(1, 200)),
)
stops = st.recursive(
    plain_stops,
    lambda inner: st.one_of(
        st.builds(lambda one, two: one | two, inner, inner),
        st.builds(lambda one, two: one & two, inner, inner),
    ),
    max_leaves=3,
)
retries = st.sampled_from(
    [
        retry_if_exception_type(OSError),
        retry_if_not_exception_type(ValueError),
        retry_if_exception(lambda error: "again" in str(error)),
        retry_if_exception_type(OSError) & retry_if_exception(lambda error: "again" in str(error)),
    ]
)
errors = st.sampled_from([OSError("again"), OSError("never"), ValueError("again"), TimeoutError("again")])


def in_process(clock: Any, took: float, error: BaseException, **objects: Any) -> list[float]:
    """The delays of tenacity itself."""
    clock.now = 0.0
    delays: list[float] = []

    def sleep(delay: float) -> None:
        delays.append(delay)
        clock.now += delay
        if len(delays) >= LONGEST:
            raise KeyboardInterrupt

    def body() -> None:
        clock.now += took
        raise error

    try:
        Retrying(sleep=sleep, **objects)(body)
    except (RetryError, KeyboardInterrupt, OSError, ValueError):
        return delays
    raise AssertionError("a body that always fails has succeeded")


def across_processes(took: float, error: BaseException, policy: RetryPolicy) -> list[float]:
    """The delays of a policy that knows only what a message carries."""
    delays: list[float] = []
    elapsed = 0.0
    while len(delays) < LONGEST:
        elapsed += took
        failure = Failure(error=error, attempt=len(delays) + 1, elapsed=elapsed, slept=sum(delays))
        decision = decide(policy.rules, failure)
        if not isinstance(decision, Again):
            return delays
        delays.append(decision.delay)
        elapsed += decision.delay
    return delays


@settings(max_examples=300, deadline=None)
@given(
    wait=waits, stop=stops, retry=retries, error=errors, took=st.integers(0, 5), seed=st.integers(0, 2**32)
)
def test_delays_and_attempts_are_tenacitys(
    wait: Any, stop: Any, retry: Any, error: BaseException, took: int, seed: int
) -> None:
    """What users know of tenacity would not hold here."""
    with pytest.MonkeyPatch.context() as patch:
        clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, sleep=lambda _: None)
        patch.setattr(tenacity, "time", clock)
        random.seed(seed)
        expected = in_process(clock, took, error, wait=wait, stop=stop, retry=retry)
    random.seed(seed)
    policy = RetryPolicy(retry, wait=wait, stop=stop, deadline=10**9)
    assert across_processes(took, error, policy) == expected
