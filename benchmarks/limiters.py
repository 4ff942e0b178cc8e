"""Our limiter as the benchmark sees each, and a clock that is wrong for a moment."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Protocol

from celery_patterns.core.exchange import exchange
from celery_patterns.core.store import Store
from celery_patterns.policies.rate_limits.buckets import Bucket, Demand, Denied, Granted, ask
from celery_patterns.policies.rate_limits.rate import Rate

if TYPE_CHECKING:
    from collections.abc import Iterator

FAST, SLOW = Rate.of("100000/s"), Rate.of("1/h")
"""One that lets every call of the benchmark pass, and one that lets none."""


class Limiter(Protocol):
    """What is compared."""

    name: str
    says: str
    bound: str

    def acquire(self) -> object:
        """Ask a limit that lets the call pass."""

    def denied(self) -> object:
        """Ask one that does not, and how long to wait."""

    def passes(self, key: str) -> bool:
        """Whether a call passes a limit of 100/s."""


class Floors:
    """What costs the same whatever a limiter does in between: the way there and back, the commands."""

    _FOUR = """
        redis.call('MGET', unpack(KEYS))
        redis.call('TIME')
        redis.call('PSETEX', KEYS[3], 10000, '1234567890123456 0 0 1 10 1000')
        redis.call('PSETEX', KEYS[2], 10000, '1234567890123456 1234567')
        return 1
    """

    def __init__(self, store: Store) -> None:
        self._client = store.client
        self._empty, self._four = (self._client.script_load(text) for text in ("return 1", self._FOUR))

    def empty(self) -> None:
        """Nothing there and nothing back, as redis-py does it: what all is measured by."""
        self._client.evalsha(self._empty, 0)

    def short(self) -> None:
        """The same as our scripts are sent."""
        exchange(self._client, (("EVALSHA", self._empty, 0),))

    def arguments(self) -> None:
        """As many keys and arguments as one limit takes."""
        self._run(self._empty)

    def commands(self) -> None:
        """The commands that a granted call makes."""
        self._run(self._four)

    def _run(self, script: str) -> None:
        keys = ("cp:limit-set:{cp}", "cp:limit-op:{cp}:0123456789abcdef.floor", "cp:limit:{cp}:floor:")
        exchange(self._client, (("EVALSHA", script, 3, *keys, "1 10 1000 1 0", "1234567"),))


class Ours:
    """celery-patterns."""

    name = "ours, burst 20"
    says = "exact wait"
    bound = "120"

    def __init__(self, url: str) -> None:
        self.store = Store(url)
        self._fast = [Demand(Bucket(f"fast{number}"), FAST, 1_000, 1, strict=False) for number in range(3)]
        self._slow = [Demand(Bucket("slow"), SLOW, 1, 1, strict=False)]
        self._strict = [Demand(Bucket("strict"), Rate.of("1000000/s"), 1_000, 1, strict=True)]

    def acquire(self) -> None:
        """One limit."""
        self.acquire_many(1)

    def acquire_many(self, number: int) -> None:
        """So many limits."""
        assert isinstance(ask(self.store, self._fast[:number]), Granted)

    def acquire_strict(self) -> None:
        """One strict limit with a burst."""
        assert isinstance(ask(self.store, self._strict), Granted)

    def acquire_key(self, number: int) -> None:
        """A bucket of a tenant's own."""
        demand = Demand(Bucket("stripe", f'"tenant-{number:06}"'), SLOW, 100, 1, strict=False)
        assert isinstance(ask(self.store, [demand]), Granted)

    def denied(self) -> object:
        """No token for an hour."""
        return ask(self.store, self._slow)

    def passes(self, key: str) -> bool:
        """Whether one passes."""
        demand = Demand(Bucket("hammered", key), Rate.of("100/s"), 20, 1, strict=False)
        return not isinstance(ask(self.store, [demand]), Denied)


@contextlib.contextmanager
def skewed(seconds: float) -> Iterator[None]:
    """Meanwhile this process's wall clock is so much ahead, as another machine's may be."""
    if not seconds:
        yield
        return
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + seconds  # type: ignore[assignment]
    time.time_ns = lambda: right_ns() + int(seconds * 1e9)  # type: ignore[assignment]
    try:
        yield
    finally:
        time.time, time.time_ns = right, right_ns  # type: ignore[assignment]
