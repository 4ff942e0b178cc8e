"""The buckets of rate limits in Redis: one script that takes tokens from k of them, all or none.

A bucket holds ``burst`` tokens, fills at its rate, and starts full. What is stored is when it will be
full again (the "theoretical arrival time" of GCRA, the generic cell rate algorithm of ATM), so a full
bucket is no key at all. Time is the server's, and counted in whole parts of a microsecond: there is
no rounding that could let one token more through.

All keys of an app's limits share one hash tag, since a script may ask for any of them together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from celery_patterns.core.operations import operations
from celery_patterns.core.script import Ask, Script
from celery_patterns.core.store import Store, tag
from celery_patterns.errors import StoreVersionError
from celery_patterns.waiting.room import Room

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from celery_patterns.policies.rate_limits.rate import Rate

_acquire = Script("limit_acquire", after=("limit_bucket",))
_line = Script("limit_line")
_close = Script("limit_close")

KIND = "token_bucket"

LONGEST_PAUSE = 1.0
"""Seconds after which a waiting call asks again, since its limit may have been changed meanwhile."""
ASKS = 100
"""How often in a second a line asks at most, or four times its rate if that is more."""
ASKS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Bucket:
    """Which bucket: a limit's name, and the key of a call under it (empty where a limit has no key)."""

    name: str
    key: str = ""

    def __str__(self) -> str:
        return f"{_tag(self.name)}:{self.key}" if self.key else _tag(self.name)

    def redis_key(self, store: Store) -> str:
        """Where its state is."""
        return _named(store.prefix, self.name) + self.key

    def log_key(self, store: Store) -> str:
        """Where the times of a strict limit's last grants are."""
        return f"{_family(store.prefix, 'limit-log')}{_tag(self.name)}:{self.key}"

    def line_key(self, store: Store) -> str:
        """Where those who wait for it stand."""
        return f"{_family(store.prefix, 'limit-line')}{_tag(self.name)}:{self.key}"


@cache
def _family(prefix: str, kind: str) -> str:
    """What all keys of one kind begin with; the hash tag is the prefix, so that they share a slot."""
    return f"{prefix}:{kind}:{{{prefix}}}:"


_tag = lru_cache(maxsize=4096)(tag)


@lru_cache(maxsize=4096)
def _named(prefix: str, name: str) -> str:
    """What the keys of all buckets of one limit begin with."""
    return f"{_family(prefix, 'limit')}{_tag(name)}:"


@cache
def _steering(prefix: str) -> str:
    return _family(prefix, "limit-set")[:-1]


def steering_key(store: Store) -> str:
    """Where what was set at run time is written, all in one text."""
    return _steering(store.prefix)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a call asks of one limit.

    Args:
        bucket: Which bucket.
        rate: At which rate it fills.
        burst: How many tokens it holds.
        cost: How many of them the call takes.
        strict: Whether no window of the rate's own period may see more than the rate's count.
    """

    bucket: Bucket
    rate: Rate
    burst: int
    cost: int
    strict: bool


class Granted(NamedTuple):
    """The tokens were taken.

    Args:
        at: For a start at this time of the server's clock, in seconds since the epoch.
        ahead: Seconds until then.
    """

    at: float
    ahead: float = 0.0


class Denied(NamedTuple):
    """Nothing was taken.

    Args:
        wait: Seconds until all limits would let the call pass, if nobody else came.
        which: The position of the demand that has to wait longest.
        pace: Seconds in which its bucket gets one token.
    """

    wait: float
    which: int
    pace: float


def ask(store: Store, demands: Sequence[Demand]) -> Granted | Denied:
    """Take the tokens of all demands, or none.

    Each call is one operation: if the reply is lost and the client sends the command again, the
    tokens are taken once.

    Raises:
        StoreUnavailable: Nobody knows whether they were taken.
        StoreVersionError: A newer version of the library wrote a bucket.
    """
    return asking(store, demands).now()


def asking(store: Store, demands: Sequence[Demand]) -> Ask[Granted | Denied]:
    """:func:`ask`, not yet done."""
    prefix = store.prefix
    slots = operations(prefix)
    slot, number = slots.begin()
    keys, logs, args = [_steering(prefix), slot], [], []
    for demand in demands:
        bucket, rate, log = demand.bucket, demand.rate, 0
        terms = rate.terms
        if demand.strict and demand.burst > 1:  # with a burst of 1 the bucket is strict by itself
            logs.append(bucket.log_key(store))
            terms, log = f"{rate.count} {rate.per_us}", 2 + len(demands) + len(logs)
        keys.append(_named(prefix, bucket.name) + bucket.key)
        args.append(f"{terms} {demand.burst} {demand.cost} {log}")
    args.append(str(number))

    def understand(answer: Any) -> Granted | Denied:
        slots.end(slot)
        return _answered(demands, answer)

    return Ask(_acquire, store, keys + logs, args, understand, lambda: slots.end(slot))


def _answered(demands: Sequence[Demand], answer: Any) -> Granted | Denied:
    if isinstance(answer, int):
        return Granted(answer / 1e6)
    if answer[0] == b"version":
        buckets = ", ".join(str(demand.bucket) for demand in demands)
        raise StoreVersionError(
            f"limit {buckets}: its bucket was written by a newer version of celery-patterns"
        )
    _, wait, which, pace = answer
    return Denied(wait / 1e6, which - 1, pace / 1e6)


def as_text(demands: Sequence[Demand]) -> str:
    """Demands as the scripts of the waiting room read them; empty where there are none."""
    if not demands:
        return ""
    rows = []
    for demand in demands:
        strict = demand.strict and demand.burst > 1
        n, per = (demand.rate.count, demand.rate.per_us) if strict else demand.rate.lowest_terms
        rows.append(
            [_tag(demand.bucket.name), demand.bucket.key, n, per, demand.burst, demand.cost, int(strict)]
        )
    return _encode(rows)


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Made once: ``json.dumps`` makes an encoder for each call."""


def stand_in_line(store: Store, bucket: Bucket, who: str, denied: Denied) -> tuple[float, int]:
    """How long ``who`` shall pause before asking again, in seconds; and how many wait, it included.

    A line asks at a bounded pace, however long it is; and as long as it is short, everybody in it
    asks at least once in ``LONGEST_PAUSE``.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    asks = max(ASKS, ASKS_PER_TOKEN / denied.pace if denied.pace else 0)
    in_us = [round(seconds * 1e6) for seconds in (denied.wait, LONGEST_PAUSE, 1 / asks)]
    pause, crowd = _line(store, [bucket.line_key(store)], [who, *in_us])
    return pause / 1e6, crowd


def waiting(store: Store, bucket: Bucket, now: float) -> int:
    """How many wait for a bucket: in the waiting room, and as countdowns in its line.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    with store.reporting():
        line = store.client.zrangebyscore(bucket.line_key(store), f"({now * 1e6:.0f}", "+inf")
    return len(set(line) - {b":"}) + Room(store).length(f"{_tag(bucket.name)}:{bucket.key}")


def buckets_in_use(store: Store, name: str | None = None) -> list[Bucket]:
    """The buckets that are not full, are closed, or have a log or a line: of one limit, or of all.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    begins = [_family(store.prefix, kind) for kind in ("limit", "limit-log", "limit-line")]
    pattern = f"{_literally(store.prefix)}:limit*:{_literally(begins[0].partition(':limit:')[2])}"
    pattern += f"{_literally(_tag(name))}:*" if name else "*"
    with store.reporting():
        keys = [key.decode() for key in store.client.scan_iter(match=pattern, count=1000)]
    rests = {key.removeprefix(begin) for key in keys for begin in begins if key.startswith(begin)}
    return [
        Bucket(unquote(tagged), key) for tagged, _, key in (rest.partition(":") for rest in sorted(rests))
    ]


def _literally(text: str) -> str:
    """Text as a pattern for SCAN."""
    return "".join(f"\\{one}" if one in "*?[]\\^" else one for one in text)


def close(store: Store, buckets: Iterable[Bucket], seconds: float) -> None:
    """Let nobody pass for so long; who waits already learns of it when it asks.

    Args:
        store: Where the buckets are.
        buckets: One or more.
        seconds: From now; 0 opens them again.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    _close(store, [bucket.redis_key(store) for bucket in buckets], [round(seconds * 1e6)])
