"""Time that passes only when the test says so, for a fakeredis store inside the test's process.

However slow the machine is, nothing ends there between two looks at it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock


@dataclass
class FrozenTime:
    """The time, in seconds since the epoch."""

    now: float

    def read(self) -> float:
        return self.now

    def advance(self, by: float) -> None:
        self.now += by


@contextmanager
def frozen_time() -> Iterator[FrozenTime]:
    """Stop the clock meanwhile, for all that asks for the time of day; intervals go on."""
    frozen = FrozenTime(float(int(time.time())))
    with mock.patch("time.time", new=frozen.read):
        yield frozen
