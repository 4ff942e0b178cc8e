"""A server whose clock stands still until a test moves it, to the microsecond."""

from collections.abc import Iterator
from contextlib import contextmanager

from celery_patterns.core import script
from celery_patterns.core.store import Store

_FROZEN = """\
local server = redis
local redis = {call = function(command, key, ...)
  if command == 'PSETEX' then return server.call('SET', key, select(2, ...)) end
  if command == 'PEXPIRE' then return 1 end
  if command == 'SET' then return server.call('SET', key, (...)) end
  return server.call(command, key, ...)
end, pcall = server.pcall}
local function now_us() return tonumber(redis.call('GET', '%s')) end
"""
"""No key expires meanwhile: the server's own clock goes on, and on a busy machine it goes far."""
_KEY = "test-frozen-clock"
START = 1_795_000_000_000_000


class FrozenClock:
    """The time that every script of a store sees. No key of theirs expires by the server's own."""

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


@contextmanager
def frozen_scripts() -> Iterator[None]:
    """Meanwhile stores with a frozen clock may be used."""
    moving = script.prelude
    script.prelude = lambda key: _FROZEN % key if key == _KEY else moving(key)
    try:
        yield
    finally:
        script.prelude = moving
