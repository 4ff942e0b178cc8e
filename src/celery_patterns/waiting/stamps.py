"""Revokes by stamped headers: workers remember them in memory, and what waits may outlive a worker.

Nobody could say which of 100,000 entries bear a stamp without looking at each. So revoked stamps are on
record in the store, for as long as Celery itself remembers a revoke, and the pump looks at each message
that it releases.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from celery.worker import state
from kombu.utils.functional import maybe_list

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_patterns.waiting.room import Room


class Stamps:
    """Which stamps are revoked.

    Args:
        room: Whose.
    """

    def __init__(self, room: Room) -> None:
        self._store = room.store
        self._key = room.key("room-stamps")
        self._revoked: set[tuple[str, Any]] = set()

    def revoke(self, headers: Mapping[str, Any]) -> None:
        """Put revoked stamps on record.

        Raises:
            StoreUnavailable: Then only the workers that run now know of it.
        """
        until = self._store.now() + state.REVOKE_EXPIRES
        rows = {
            json.dumps([header, stamp]): until
            for header, stamps in headers.items()
            for stamp in maybe_list(stamps) or ()
        }
        if rows:
            with self._store.reporting():
                self._store.client.hset(self._key, mapping=rows)
                self._store.client.expire(self._key, round(state.REVOKE_EXPIRES))

    def read(self) -> None:
        """Learn which are.

        Raises:
            StoreUnavailable: What was known stays so.
        """
        with self._store.reporting():
            rows = self._store.client.hgetall(self._key)
        now = self._store.now() if rows else 0.0
        self._revoked = {tuple(json.loads(key)) for key, until in rows.items() if float(until) > now}

    def match(self, headers: Mapping[str, Any]) -> bool:
        """Whether a message bears one."""
        if not self._revoked:
            return False
        named = headers.get("stamped_headers") or ()
        stamps = headers.get("stamps") or {}
        borne = ((name, stamp) for name in named for stamp in maybe_list(stamps.get(name)) or ())
        return any(one in self._revoked for one in borne)
