"""A hundred thousand entries: what one looks at takes a few round trips, and a replay leaves at its rate."""

import time
from types import ModuleType
from typing import Any

import pytest

from celery_patterns.deadletters import DeadLetters, Filter, Plan
from celery_patterns.deadletters.pace import CHUNKS_A_SECOND, LARGEST_CHUNK, LONGEST_LAG, Pace
from tests.deadletters.letters import die
from tests.ground.stage import Stage

MANY, CAUSES, STEP = 100_000, 20, 500
COPY = """
for i = tonumber(ARGV[2]), tonumber(ARGV[3]) do
  local id, died = ARGV[1] .. '-' .. i, tonumber(ARGV[4]) + i
  redis.call('COPY', KEYS[1] .. ':entry:' .. ARGV[1], KEYS[1] .. ':entry:' .. id)
  redis.call('HSET', KEYS[1] .. ':entry:' .. id, 'id', id, 'task_id', id, 'died', string.format('%.0f', died))
  redis.call('ZADD', KEYS[1] .. ':in:open', died, id)
  redis.call('ZADD', KEYS[1] .. ':in:open:' .. ARGV[5], died, id)
end
"""


class Counting:
    """A client that counts the times it asks."""

    def __init__(self, client: Any) -> None:
        self.client, self.trips = client, 0

    def __getattr__(self, name: str) -> Any:
        self.trips += 1
        return getattr(self.client, name)


@pytest.fixture
def replays(stage: Stage) -> ModuleType:
    """An app with many dead letters of some causes, the copies of a few real ones."""
    replays = stage.load("tests.apps.replays")
    desk = DeadLetters(replays.app)
    for at in range(CAUSES):
        die(replays.app, f"e{at}", task=f"shop.task{at}", retention=86_400)
        entry = desk.get(f"e{at}")
        for first in range(1, MANY // CAUSES, STEP):
            last = min(first + STEP, MANY // CAUSES) - 1
            about = (entry.id, first, last, round(entry.died * 1e6), entry.cause)
            desk.store.client.eval(COPY, 1, desk.query.root, *about)
    return replays


@pytest.mark.integration
def test_looking_takes_a_few_round_trips_whatever_there_is(replays: ModuleType) -> None:
    """A list of many entries would ask the store once for each."""
    desk = DeadLetters(replays.app)
    assert desk.counts()["open"] == MANY
    real = desk.store.client
    counting = desk.store._client = Counting(real)
    for look, most in (
        (lambda: desk.list(limit=50), 2),
        (lambda: desk.list(Filter(task="shop.task1*"), limit=50), 3),
        (lambda: desk.get("e7-77"), 1),
        (desk.groups, 2),
        (desk.counts, 1),
    ):
        counting.trips = 0
        assert look()
        assert counting.trips <= most
    desk.store._client = real
    assert [group.count for group in desk.groups()] == [MANY // CAUSES] * CAUSES


@pytest.mark.integration
def test_messages_leave_no_faster_than_was_asked_for(replays: ModuleType) -> None:
    """A service that has just come back would be flooded. (How near it comes, the benchmark says.)"""
    desk = DeadLetters(replays.app)
    plan = Plan(rate=200, canary=False, limit=600)
    report = desk.replay(plan=plan)
    assert report.published == 600
    first_wait = plan.rate / CHUNKS_A_SECOND  # a chunk leaves at the beginning of its time, not at its end
    assert (report.published - first_wait) / report.seconds <= plan.rate * 1.05


class Clock:
    """A clock that moves only when somebody sleeps, or the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("rate", [0.5, 3, 50, 1_000, 10_000])
def test_a_slow_moment_is_made_up_for_and_a_long_stall_is_not(
    monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    """Each hiccup would make a replay later, or a stall of minutes end in a flood."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    pace = Pace(rate)
    assert 1 <= pace.chunk <= LARGEST_CHUNK

    def leave(chunks: int, takes: float = 0.0) -> float:
        """How long it takes until the last of so many chunks may leave."""
        began = clock.now
        for _ in range(chunks):
            pace.wait(pace.chunk)
            clock.now += takes
        return clock.now - began

    each = pace.chunk / rate
    leave(1)
    assert leave(20) == pytest.approx(20 * each)
    assert leave(20, takes=each / 2) == pytest.approx(20 * each, rel=0.05), (
        "what publishing takes is no delay"
    )
    clock.now += min(each * 5, LONGEST_LAG)
    assert leave(20) == pytest.approx(20 * each - min(each * 5, LONGEST_LAG), rel=0.05)
    clock.now += 600
    assert leave(10_000) >= 9_990 * each - LONGEST_LAG
