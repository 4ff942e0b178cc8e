"""Limiters of other libraries, each as its documentation uses it, as far as they are installed."""

# ruff: noqa: PLC0415 - what is not installed is left out

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.limiters import Limiter


@dataclass
class Peer:
    """One limiter of another library."""

    name: str
    says: str
    bound: str
    acquire: Callable[[], object]
    denied: Callable[[], object]
    passes: Callable[[str], bool]


def installed_peers(url: str) -> list[Limiter]:
    """All that can be imported here."""
    found: list[Limiter] = []
    for name, peers in (("limits", _limits), ("pyrate_limiter", _pyrate), ("throttled", _throttled)):
        try:
            found += peers(url)
        except ImportError:
            print(f"{name} is not installed: left out")
    return found


def _limits(url: str) -> Iterator[Peer]:
    from limits import RateLimitItemPerHour, RateLimitItemPerSecond, strategies
    from limits.storage import RedisStorage

    storage = RedisStorage(url.replace("unix://", "redis+unix://"))
    fast, slow, hundred = (
        RateLimitItemPerSecond(100_000),
        RateLimitItemPerHour(1),
        RateLimitItemPerSecond(100),
    )
    for name, strategy in (
        ("fixed window", strategies.FixedWindowRateLimiter(storage)),
        ("moving window", strategies.MovingWindowRateLimiter(storage)),
        ("sliding counter", strategies.SlidingWindowCounterRateLimiter(storage)),
    ):

        def denied(strategy: strategies.RateLimiter = strategy, name: str = name) -> object:
            return strategy.hit(slow, name) or strategy.get_window_stats(slow, name)

        yield Peer(
            name=f"limits, {name}",
            says="and when it ends",
            bound="100",
            acquire=lambda strategy=strategy, name=name: strategy.hit(fast, name),
            denied=denied,
            passes=lambda key, strategy=strategy, name=name: strategy.hit(hundred, name, key),
        )


def _pyrate(url: str) -> Iterator[Peer]:
    from pyrate_limiter import GCRA, RateItem, RedisBucket, RedisStateStore, StateBucket
    from pyrate_limiter import Rate as PyRate

    client = redis.Redis.from_url(url)
    fast, slow, hundred = PyRate(100_000, 1_000), PyRate(1, 3_600_000), PyRate(100, 1_000)

    def log(rate: PyRate, key: str) -> RedisBucket:
        return RedisBucket.init([rate], client, f"pyrate:log:{key}")

    def gcra(rate: PyRate, key: str) -> StateBucket:
        return StateBucket([rate], algorithm=GCRA(), store=RedisStateStore(client, f"pyrate:gcra:{key}"))

    for name, bound, make in (("log", "100", log), ("GCRA, burst 20", "120", gcra)):
        burst = PyRate(100, 1_000, burst=20) if make is gcra else hundred
        buckets = {key: make(burst, key) for key in ("same", "ahead")}

        def passes(key: str, buckets: dict = buckets) -> bool:
            bucket = buckets[key]
            return bucket.put_decision(RateItem("call", _now())).allowed

        quick, never = make(fast, "fast"), make(slow, "slow")
        yield Peer(
            name=f"pyrate-limiter, {name}",
            says="wait in ms",
            bound=bound,
            acquire=lambda bucket=quick: bucket.put_decision(RateItem("call", _now())),
            denied=lambda bucket=never: bucket.put_decision(RateItem("call", _now())),
            passes=passes,
        )


def _now() -> int:
    """What pyrate-limiter takes for the time: that of the client, in milliseconds."""
    return time.time_ns() // 1_000_000


def _throttled(url: str) -> Iterator[Peer]:
    from throttled import RateLimiterType, Throttled, rate_limiter, store

    kept = store.RedisStore(server=url)
    for name, kind, burst, bound in (
        ("GCRA, burst 20", RateLimiterType.GCRA, 20, "120"),
        # Its key lives for whole seconds: with a burst of less than half the rate it limits nothing.
        ("token bucket, burst 100", RateLimiterType.TOKEN_BUCKET, 100, "200"),
        ("sliding window", RateLimiterType.SLIDING_WINDOW, 100, "100"),
    ):

        def limiter(quota: rate_limiter.Quota, kind: RateLimiterType = kind) -> Throttled:
            return Throttled(using=kind.value, quota=quota, store=kept)

        fast, slow = (
            limiter(rate_limiter.per_sec(100_000, burst=1_000)),
            limiter(rate_limiter.per_hour(1, burst=1)),
        )
        hundred = limiter(rate_limiter.per_sec(100, burst=burst))
        yield Peer(
            name=f"throttled-py, {name}",
            says="wait",
            bound=bound,
            acquire=lambda fast=fast: fast.limit("fast"),
            denied=lambda slow=slow: slow.limit("slow"),
            passes=lambda key, hundred=hundred: not hundred.limit(key).limited,
        )
    with contextlib.suppress(AttributeError):
        kept.close()
