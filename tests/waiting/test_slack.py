"""How far releases run ahead of their tokens: enough to lose none, and not so far that all slots sleep."""

import heapq
import random
from collections.abc import Callable

import pytest

from celery_patterns.core.parking import Spot
from celery_patterns.core.store import Store
from celery_patterns.policies.rate_limits.buckets import Bucket, Demand, as_text
from celery_patterns.policies.rate_limits.rate import Rate
from celery_patterns.waiting.answers import Started, Turn
from celery_patterns.waiting.parcel import Parcel
from celery_patterns.waiting.room import Room
from tests.policies.rate_limits.frozen import FrozenClock

TASKS = 300
PARCEL = Parcel(body=b"", content_type="", content_encoding="", headers={})


@pytest.fixture
def room(store: Store, frozen: FrozenClock) -> Room:
    return Room(store)


def drained(
    room: Room, frozen: FrozenClock, rate: int, hand_over: Callable[[], float], cost: int = 1
) -> tuple[float, int]:
    """Let tasks wait at once: the time to the last start in parts of the ideal, and most asleep at once.

    Args:
        room: Where.
        frozen: Its clock.
        rate: Tasks per second, with a burst of one of them.
        hand_over: Says how many milliseconds pass from a release to its start.
        cost: Of a task, in tokens.
    """
    demands = as_text([Demand(Bucket("one"), Rate.of(f"{rate * cost}/s"), cost, cost, strict=False)])
    room.release("pump", (), 0)
    for number in range(TASKS):
        room.enter(PARCEL, id=f"{number}", spot=Spot(demands=demands))
    began = frozen.now
    due: list[tuple[float, int, str]] = [(began, 0, "")]  # when; the pump before starts; whose start
    turn, ends, most = Turn(0.0, leads=True), [], 0
    while len(ends) < TASKS:
        at, _, name = heapq.heappop(due)
        frozen.now = max(frozen.now, round(at))
        if name:
            started = room.start(demands, name)
            assert isinstance(started, Started)
            ends.append(frozen.now + started.ahead * 1e6)
            most = max(most, sum(end > frozen.now for end in ends))
            continue
        turn = room.release("pump", turn.releases, 100)
        for one in turn.releases:
            heapq.heappush(due, (frozen.now + 1000 * hand_over(), 1, one.id))
        heapq.heappush(due, (frozen.now + max(2_000, min(500_000, turn.wait * 1e6)), 0, ""))
    return (max(ends) - began) / ((TASKS - 1) * 1e6 / rate), most


@pytest.mark.parametrize(
    ("rate", "way"),
    [(20, 5), (100, 1), (100, 10), (100, 25), (200, 20), (300, 15), (500, 2), (500, 6), (500, 12)],
)
def test_a_way_that_is_always_as_long_loses_nothing(
    room: Room, frozen: FrozenClock, rate: int, way: int
) -> None:
    """A third of the rate would be lost with a burst of 1."""
    wall, most = drained(room, frozen, rate, lambda: way)
    assert wall < 1.03
    assert most <= 6


def test_a_way_that_varies_loses_little(room: Room, frozen: FrozenClock) -> None:
    """Each task that comes late wastes a token, however early all others come."""
    random.seed(1)
    wall, most = drained(room, frozen, 100, lambda: random.choice((2, 3, 5, 8, 13)))
    assert wall < 1.02
    assert most <= 6


def test_sleepers_do_not_fill_the_slots(room: Room, frozen: FrozenClock) -> None:
    """All else in a worker would wait for a slot, and releases would seem to need even more slack."""
    random.seed(1)
    slow = iter([40] * 20)
    _, most = drained(room, frozen, 500, lambda: next(slow, 2))
    assert most <= 8


def test_what_comes_early_is_counted_in_tasks(room: Room, frozen: FrozenClock) -> None:
    """A task of many tokens would be let out as late as one of a single token, and lose its own."""
    wall, most = drained(room, frozen, 50, lambda: 25, cost=100)
    assert wall < 1.02
    assert most <= 6
