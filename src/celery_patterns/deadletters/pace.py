"""Letting messages leave at a rate, by the clock: what a slow moment delayed is made up for."""

from __future__ import annotations

import time

LARGEST_CHUNK = 50
CHUNKS_A_SECOND = 10
LONGEST_LAG = 1.0
"""Seconds of delay that are made up for; what is more is not, or a long stall would end in a flood."""


class Pace:
    """When the next chunk may leave.

    Args:
        rate: Messages per second.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.chunk = int(max(1, min(LARGEST_CHUNK, rate / CHUNKS_A_SECOND)))
        self._due = time.monotonic()

    def wait(self, count: int) -> None:
        """Wait until the next ``count`` messages may leave."""
        now = time.monotonic()
        time.sleep(max(0.0, self._due - now))
        self._due = max(self._due, now - LONGEST_LAG) + count / self.rate
