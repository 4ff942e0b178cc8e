"""How cost grows: with the number of policies, of keys, of limits, and with the size of results.

All on one core with the server, as medians of actions that are taken in turns.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from celery import Celery

from benchmarks.idempotency import CLAIM, LEASE, TTL, record
from benchmarks.interleaved import Spread, pinned_server, spreads
from celery_patterns import Policy, PolicyTask
from celery_patterns.core.store import Store
from celery_patterns.policies.idempotency.record import Started
from celery_patterns.policies.rate_limits.buckets import Bucket, Demand, Granted, ask
from celery_patterns.policies.rate_limits.rate import Rate

if TYPE_CHECKING:
    from collections.abc import Callable

POLICIES = (1, 2, 4, 6, 8, 10)
KEYS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
LIMITS = (1, 2, 4, 8, 16, 32, 64)
SIZES = (1_000, 10_000, 100_000, 1_000_000)
"""Bytes of a result."""

MEANING = {
    "policies": "policies that do nothing, less a call without any",
    "limits": "limits of one call: acquire",
    "results, first run": "bytes of result: begin and complete",
    "results, replay": "bytes of result: replay",
    "keys": "completed keys in the store: begin and complete another",
}
"""What each curve shows."""

Curve = dict[int, Spread]
"""Microseconds by size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer(Policy):
    """A policy that does nothing: what remains is the layer itself."""

    kind: ClassVar[str] = "layer"
    order: ClassVar[int] = 80
    keys: ClassVar[tuple[str, ...]] = ()


def policies(rounds: int) -> Curve:
    """An eager call under so many policies that do nothing, less the same call under none."""
    app = Celery("growth", set_as_current=False)
    calls: dict[str, Callable[[], object]] = {}
    for number in (0, *POLICIES):
        kinds = [
            type(f"Layer{at}", (Layer,), {"kind": f"layer{at}", "__slots__": ()}) for at in range(number)
        ]

        def nothing() -> None:
            pass

        layers = {f"layer{at}": kind() for at, kind in enumerate(kinds)}
        task = app.task(nothing, base=PolicyTask, name=f"growth.{number}", **layers)
        calls[str(number)] = task.apply
    found = spreads(calls, rounds, warm=True)
    none = found["0"].median
    return {number: _less(found[str(number)], none) for number in POLICIES}


def _less(spread: Spread, by: float) -> Spread:
    return Spread(spread.median - by, spread.low - by, spread.high - by)


def keys(url: str, rounds: int, most: int) -> Curve:
    """The first run of a key beside so many completed ones: begin and complete."""
    store = Store(url)
    numbers = itertools.count()
    found: Curve = {}
    filled = 0
    for size in (size for size in KEYS if size <= most):
        _fill(store, filled, size)
        filled = size

        def first_run() -> None:
            number = next(numbers)
            mine = record(store, f"new-{number}", number)
            begun = mine.begin(lease=LEASE, ttl=TTL, on_lapsed="rerun", claim=CLAIM)
            assert isinstance(begun, Started)
            mine.complete(begun.fence, b"application/json utf-8\nnull", TTL)

        found[size] = spreads({"run": first_run}, rounds, warm=True)["run"]
    store.close()
    return found


def _fill(store: Store, start: int, end: int) -> None:
    """As many records as if so many calls had completed."""
    for begin in range(start, end, 10_000):
        pipeline = store.client.pipeline(transaction=False)
        for number in range(begin, min(begin + 10_000, end)):
            mine = record(store, f"old-{number}", number)
            fields = {"owner": mine.owner, "fence": 1, "until": 1, "of": f"1 {mine.fingerprint}"}
            pipeline.hset(mine.key, mapping={**fields, "state": "completed", "end": b"null", "attempt": 0})
            pipeline.pexpire(mine.key, 86_400_000)
        pipeline.execute()


def limits(url: str, rounds: int) -> Curve:
    """Tokens from so many limits at once."""
    store = Store(url)
    rate = Rate.of("1000000/s")
    demands = [Demand(Bucket(f"limit{at}"), rate, 100_000, 1, strict=False) for at in range(max(LIMITS))]

    def acquire(number: int) -> None:
        assert isinstance(ask(store, demands[:number]), Granted)

    calls = {str(number): (lambda number=number: acquire(number)) for number in LIMITS}
    found = spreads(calls, rounds, warm=True)
    store.close()
    return {number: found[str(number)] for number in LIMITS}


def sizes(url: str, rounds: int) -> tuple[Curve, Curve]:
    """A result of so many bytes: its first run, and its replay."""
    store = Store(url)
    numbers = itertools.count()
    ends = {size: b"application/json utf-8\n" + b"x" * size for size in SIZES}

    def first_run(size: int, key: str | None = None) -> None:
        number = next(numbers)
        mine = record(store, key or f"sized-{number}", number)
        begun = mine.begin(lease=LEASE, ttl=TTL, on_lapsed="rerun", claim=CLAIM)
        assert isinstance(begun, Started)
        mine.complete(begun.fence, ends[size], 60)
        if key is None:
            store.client.delete(mine.key)

    def replay(size: int) -> None:
        mine = record(store, f"replayed-{size}", next(numbers))
        mine.begin(lease=LEASE, ttl=TTL, on_lapsed="rerun", claim=1)

    for size in SIZES:
        first_run(size, f"replayed-{size}")
    calls: dict[str, Any] = {}
    for size in SIZES:
        calls[f"run {size}"] = lambda size=size: first_run(size)
        calls[f"replay {size}"] = lambda size=size: replay(size)
    found = spreads(calls, rounds, warm=True)
    store.close()
    return {s: found[f"run {s}"] for s in SIZES}, {s: found[f"replay {s}"] for s in SIZES}


def measure_growth(rounds: int, most_keys: int) -> dict[str, Curve]:
    """All curves."""
    with pinned_server() as url:
        curves = {"policies": policies(rounds), "limits": limits(url, rounds)}
        curves["results, first run"], curves["results, replay"] = sizes(url, rounds // 4)
        curves["keys"] = keys(url, rounds, most_keys)
    return curves
