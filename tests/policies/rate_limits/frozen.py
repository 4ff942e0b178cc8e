"""A server whose clock stands still until a test moves it, to the microsecond."""

from collections.abc import Iterator
from contextlib import contextmanager

from celery_patterns.core import script
from celery_patterns.core.store import Store

_FROZEN = "local function now_us() return tonumber(redis.call('GET', '%s')) end\n"
_KEY = "test-frozen-clock"
START = 1_795_000_000_000_000


class FrozenClock:
    """The time that every script of a store sees. Keys do not expire by it: see `keep`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        store.clock_key = _KEY
        self.now = START

    @property
    def now(self) -> int:
        """Microseconds since the epoch."""
        return self._now

    @now.setter
    def now(self, value: int) -> None:
        self._now = value
        self.store.client.set(_KEY, value)

    def keep(self) -> None:
        """Take the time to live from all keys: the server's own clock goes on."""
        for key in self.store.client.scan_iter():
            self.store.client.persist(key)


@contextmanager
def frozen_scripts() -> Iterator[None]:
    """Meanwhile stores with a frozen clock may be used."""
    moving = script.prelude
    script.prelude = lambda key: _FROZEN % key if key == _KEY else moving(key)
    try:
        yield
    finally:
        script.prelude = moving
