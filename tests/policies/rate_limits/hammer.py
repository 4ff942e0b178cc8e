"""A process that takes as much as it gets, with a clock of its own: `hammer URL SECONDS SKEW SEED`.

It writes a line for each start: which limit, the server's time of the grant, its own true time.
"""

import json
import random
import sys
import time
from typing import Any

from celery_patterns import TokenBucket
from celery_patterns.core.store import Store
from celery_patterns.errors import StoreUnavailable
from celery_patterns.policies.rate_limits.buckets import Bucket, Demand, Denied
from celery_patterns.policies.rate_limits.rate import Rate
from celery_patterns.policies.rate_limits.start import take

LIMITS = {
    "steady": TokenBucket("100/s", burst=20),
    "bursts": TokenBucket("40/s", burst=10),
    "even": TokenBucket("30/s", strict=True),
    "strict": TokenBucket("50/s", burst=50, strict=True),
    "tight": TokenBucket("20/0.5s", burst=7, strict=True),
}
PACE = {"steady": 1 / 50, "even": 1 / 15}
"""Seconds between two calls of one process: four make twice the limit."""

true_time = time.time


def main(url: str, seconds: float, skew: float, seed: int) -> None:
    """Hammer all limits for so long."""
    chance, store = random.Random(seed), Store(url)
    _set_wrong(skew)
    due = dict.fromkeys(LIMITS, 0.0)
    end = true_time() + seconds
    while (now := true_time()) < end:
        for name in [name for name, at in due.items() if at <= now]:
            many = 1 if name in PACE else chance.choice((5, 30, 60))
            for _ in range(many):
                _start(store, name)
            due[name] = max(now, due[name]) + PACE.get(name, chance.choice((0.0, 0.05, 0.45, 0.5, 1.0)))
        time.sleep(0.001)


def _start(store: Store, name: str) -> None:
    limit = LIMITS[name]
    demand = Demand(Bucket(name), Rate.of(limit.rate), limit.burst, 1, limit.strict)
    try:
        answer = take(store, [demand])
    except StoreUnavailable:
        _write(away=name)
        return
    if not isinstance(answer, Denied):
        _write(limit=name, at=answer.at, body=true_time())


def _write(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def _set_wrong(skew: float) -> None:
    """From now on this process has a wrong clock."""
    wall, monotonic = time.time, time.monotonic
    time.time = lambda: wall() + skew
    time.monotonic = lambda: monotonic() + skew


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
