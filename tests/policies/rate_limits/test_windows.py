"""Limits under fire: four processes at twice the limit and more, and everything that goes wrong meanwhile."""

import json
import logging
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celery_patterns.policies.rate_limits.rate import Rate
from tests.ground.processes import Process
from tests.ground.servers import ValkeyServer
from tests.policies.rate_limits.hammer import LIMITS
from tests.policies.rate_limits.windows import excess, micros, most_in_period

ROOT = Path(__file__).parents[3]
SECONDS = float(os.environ.get("CELERY_PATTERNS_HAMMER_SECONDS", "20"))
SKEWS = (5.0, -5.0, 0.0, 0.0)
STALL = 3.0

logger = logging.getLogger(__name__)
pytestmark = pytest.mark.chaos


@pytest.fixture
def hammer(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """`hammer(server, skew, seed)`: a process that takes what it gets."""
    processes: list[Process] = []

    def start(server: ValkeyServer, skew: float, seed: int) -> Process:
        command = [sys.executable, "-m", "tests.policies.rate_limits.hammer"]
        command += [server.url(), str(SECONDS), str(skew), str(seed)]
        env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        processes.append(Process(command, log=tmp_path / f"hammer-{seed}.log", env=env, cwd=ROOT))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


def test_no_window_ever_sees_more_than_the_limit(
    start_valkey: Callable[..., ValkeyServer], hammer: Callable[..., Process], wait_for: Any
) -> None:
    """A service that sells so many calls a second would be called more often, and say 429."""
    server = start_valkey(durable=True)
    hammers = [hammer(server, skew, seed) for seed, skew in enumerate(SKEWS)]
    wait_for(lambda: all(len(starts(one)) > 20 for one in hammers), timeout=20)
    hammers[2].suspend()
    wait_for(passed(STALL), timeout=STALL + 5)
    hammers[2].resume()
    wait_for(lambda: len(starts(hammers[0])) > 300, timeout=20)
    server.kill()
    wait_for(lambda: any("away" in line for one in hammers for line in lines(one)), timeout=20)
    server.start()
    for one in hammers:
        wait_for(lambda one=one: not one.running, timeout=SECONDS + 30)
    found = [start for one in hammers for start in starts(one)]
    times: dict[str, list[int]] = defaultdict(list)
    for start in found:
        times[start["limit"]].append(micros(start["at"]))
    for name, limit in LIMITS.items():
        rate = Rate.of(limit.rate)
        assert excess(times[name], rate, limit.burst) <= 0, name
        if limit.strict:
            assert most_in_period(times[name], rate) <= rate.count, name
        span = (max(times[name]) - min(times[name])) / 1e6
        assert len(times[name]) > 0.3 * rate.count / rate.per * span, f"{name} was not hammered"
    late = sorted(start["body"] - start["at"] for start in found)
    p50, p99 = late[len(late) // 2], late[len(late) * 99 // 100]
    logger.info("%s starts, late by p50 %.6f s, p99 %.6f s, at most %.6f s", len(late), p50, p99, late[-1])
    assert late[-1] < 1.5, "a stale grant was used"


def lines(one: Process) -> list[dict[str, Any]]:
    """What a process wrote down so far."""
    return [json.loads(line) for line in one.log.read_text().splitlines(keepends=True) if line.endswith("\n")]


def starts(one: Process) -> list[dict[str, Any]]:
    """The starts of a process."""
    return [line for line in lines(one) if "limit" in line]


def passed(seconds: float) -> Callable[[], bool]:
    """A condition that is true after so long: a stall has no other end than time."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


@pytest.mark.parametrize(
    ("times", "excessive", "most"),
    [
        ([0, 0, 0], 0, 3),
        ([0, 0, 0, 0], 1, 4),
        ([0, 0, 0, 500_000], 0, 4),
        ([0, 0, 0, 499_999], 0.000002, 4),
        ([0, 500_000, 1_000_000, 1_000_000], 0, 3),
    ],
)
def test_the_check_itself_finds_the_worst_window(times: list[int], excessive: float, most: int) -> None:
    """A check that is blind would prove nothing."""
    rate = Rate.of("2/s")
    assert max(0, excess(times, rate, 3)) == pytest.approx(excessive)
    assert most_in_period(times, rate) == most
