"""acquire(): limits for code that is not a task."""

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from celery._state import get_current_app

from celery_patterns import PolicyError, Rate, RateLimits, TokenBucket, TokenBucketTask, acquire, penalize
from celery_patterns.core.store import Store
from celery_patterns.errors import KeyArgumentError, RateLimitExceeded, StoreUnavailable
from celery_patterns.policies.rate_limits.steering import RateLimitManager
from celery_patterns.testing import memory_store


def test_the_answer_is_yes_or_how_long(store: Store, app: Celery) -> None:
    """A web request could not say when to come back."""
    limit = TokenBucket("1/m", burst=2, name="api")
    assert acquire(limit, app=app)
    assert acquire(limit, app=app).wait == 0
    answer = acquire(limit, app=app)
    assert not answer
    assert answer.wait == pytest.approx(60, abs=1)
    assert answer.limit == "api"


def test_it_shares_the_limit_of_a_task(store: Store, app: Celery) -> None:
    """The web process and the workers would each use the whole rate."""

    @app.task(base=TokenBucketTask, token_bucket=TokenBucket("1/m", key=("account", "region"), name="api"))
    def call(account: str, region: str) -> None: ...

    call.apply(("a", "eu")).get()
    limit = TokenBucket("1/m", key=("account", "region"), name="api")
    assert not acquire(limit, {"account": "a", "region": "eu"}, app=app)
    assert acquire(limit, {"account": "a", "region": "us"}, app=app)


@pytest.mark.parametrize(
    "key", ["tenant", ("tenant",), "{tenant}", lambda tenant: tenant, lambda arguments: arguments["tenant"]]
)
def test_keys_of_every_form_are_made_of_arguments(store: Store, app: Celery, key: Any) -> None:
    """A limit that a task can have could not be used elsewhere."""
    limit = TokenBucket("1/m", key=key, name="api", cost="size", burst=5)
    assert acquire(limit, {"tenant": "a", "size": 5}, app=app)
    assert not acquire(limit, {"size": 1, "tenant": "a"}, app=app)
    assert acquire(limit, {"tenant": "b", "size": 1}, app=app)
    assert acquire(limit, {"tenant": "a", "size": 0}, app=app)


def test_several_limits_at_once(store: Store, app: Celery) -> None:
    """The first of two limits would have spent although the second denies."""
    first = TokenBucket("1/m", burst=2, name="first")
    both = RateLimits(first, TokenBucket("1/h", name="second"))
    assert acquire(both, app=app)
    assert acquire(both, app=app).limit == "second"
    assert acquire(first, app=app)
    assert not acquire(first, app=app)


def test_it_may_wait_for_its_turn(store: Store, app: Celery) -> None:
    """A script would have to write the loop itself."""
    limit = TokenBucket("20/s", name="api")
    began = time.monotonic()
    for _ in range(4):
        assert acquire(limit, timeout=5, app=app)
    assert 0.14 <= time.monotonic() - began < 2


def test_it_says_at_once_that_it_would_wait_for_too_long(store: Store, app: Celery) -> None:
    """A caller would sleep its timeout away, and then be refused."""
    limit = TokenBucket("1/m", name="api")
    acquire(limit, app=app)
    began = time.monotonic()
    with pytest.raises(RateLimitExceeded, match="timeout is 30 s") as refused:
        acquire(limit, timeout=30, app=app)
    assert time.monotonic() - began < 1
    assert refused.value.retry_after == pytest.approx(60, abs=1)


def test_a_waiting_caller_learns_of_a_new_rate(store: Store, app: Celery) -> None:
    """Whoever waits would wait at the old rate."""
    limit = TokenBucket("1/m", name="api")
    acquire(limit, app=app)
    raising = threading.Timer(0.2, RateLimitManager(app).adjust_rate, ["api", "100/s"])
    raising.start()
    began = time.monotonic()
    acquire(limit, timeout=90, app=app)
    raising.join()
    assert time.monotonic() - began < 1.6


@pytest.mark.parametrize(
    ("limit", "arguments", "error"),
    [
        (TokenBucket("1/s"), {}, PolicyError),
        (RateLimits(TokenBucket("1/s", name="a"), TokenBucket("1/s")), {}, PolicyError),
        (TokenBucket("1/s", name="a", key="tenant"), {}, PolicyError),
        (TokenBucket("1/s", name="a", key="tenant.id"), {"tenant": {}}, KeyArgumentError),
        (TokenBucket("1/s", name="a", key="tenant"), {"tenant": object()}, KeyArgumentError),
        (TokenBucket("1/s", name="a", cost="size"), {"size": "x"}, KeyArgumentError),
        (TokenBucket("1/s", name="a", key="tenant"), "tenant", PolicyError),
        (Rate.of("1/s"), {}, PolicyError),
        ("1/s", {}, PolicyError),
    ],
)
def test_what_it_cannot_know_is_refused(app: Celery, limit: Any, arguments: Any, error: Any) -> None:
    """A missing name or argument would end up in somebody else's bucket."""
    with memory_store(), pytest.raises(error):
        acquire(limit, arguments, app=app)


@pytest.mark.parametrize("timeout", [-1, "5", float("nan"), True])
def test_what_is_no_timeout_is_refused(app: Celery, timeout: Any) -> None:
    """A caller would sleep for ever, or fail only on the day on which the limit is reached."""
    with memory_store(), pytest.raises(PolicyError, match="timeout="):
        acquire(TokenBucket("1/s", name="a"), timeout=timeout, app=app)


def test_a_timeout_may_be_a_timedelta(store: Store, app: Celery) -> None:
    """Durations are written in one way everywhere else."""
    limit = TokenBucket("100/s", name="api")
    acquire(limit, app=app)
    assert acquire(limit, timeout=timedelta(seconds=30), app=app)


@pytest.mark.parametrize("choice", ["defer", "raise", "allow"])
def test_a_store_that_is_away(app: Celery, choice: Any) -> None:
    """A caller would be let in by accident, or kept out where it was told not to be."""
    limit = TokenBucket("1/s", name="api", on_store_error=choice)
    with memory_store("redis://127.0.0.1:1/0"):
        if choice == "allow":
            assert acquire(limit, app=app)
        else:
            with pytest.raises(StoreUnavailable):
                acquire(limit, app=app)


def test_the_clock_is_the_servers(redis_url: str, app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose clock is wrong would have a limit of its own."""
    limit = TokenBucket("1/h", name="api")
    now = time.time()
    with memory_store(redis_url):
        for skew in (0, 5, -5, 86_400):
            monkeypatch.setattr(time, "time", lambda skew=skew: now + skew)
            assert bool(acquire(limit, app=app)) == (skew == 0)


def test_the_app_is_the_current_one(redis_url: str) -> None:
    """Each caller would have to bring the app along."""
    app = Celery("web", broker="memory://", backend=redis_url)
    limit = TokenBucket("1/h", name="api")
    before = get_current_app()
    app.set_current()
    try:
        assert acquire(limit)
        assert not acquire(limit)
        RateLimitManager().refill("api")
        penalize("api", 50)
        assert acquire(limit).wait == pytest.approx(50, abs=2)
    finally:
        before.set_current()
        app.close()
