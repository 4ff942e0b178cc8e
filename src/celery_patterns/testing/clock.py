"""A clock that a test moves, obeyed by every script of the store and by all that expires in it."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from celery_patterns.core import postpone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_patterns.core.durations import Seconds
    from celery_patterns.core.store import Store


class MovableClock:
    """The clock of a store, which a test may move on: leases lapse and records expire at once.

    It runs on by itself between moves, as clocks do. It does not move Celery's clock: a countdown
    in a real broker still takes its time. For one server, not for a cluster.

    Args:
        store: The store whose clock it is.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        store.clock_key = f"{store.prefix}:clock"

    def advance(self, by: Seconds) -> None:
        """Move the clock on.

        Args:
            by: Seconds, or a ``timedelta``; not negative.
        """
        delta = by.total_seconds() if isinstance(by, timedelta) else by
        if delta < 0:
            raise ValueError(f"cannot advance by {by!r}: a negative move would bring expired records back")
        client = self.store.client
        client.incrby(self.store.clock_key, round(delta * 1e6))
        for key in client.scan_iter(f"{self.store.prefix}:*"):
            left = client.pttl(key)
            if left > 0:
                client.pexpire(key, max(1, left - round(delta * 1000)))
            if 0 < left <= delta * 1000:
                client.delete(key)

    @contextmanager
    def waits_in_place(self) -> Iterator[None]:
        """Meanwhile eager calls that are put off move this clock, instead of sleeping."""
        sleep, postpone.sleep = postpone.sleep, self.advance
        try:
            yield
        finally:
            postpone.sleep = sleep
