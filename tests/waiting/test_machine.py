"""The room's scripts, whatever happens in between: nothing is lost, no limit is broken, order is kept."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from celery_patterns.policies.rate_limits.buckets import Bucket, Demand
from celery_patterns.policies.rate_limits.steering import RateLimitManager, close_name
from celery_patterns.testing import memory_store
from celery_patterns.waiting.answers import Release, Started, Waits
from tests.policies.rate_limits.frozen import START, FrozenClock, frozen_scripts
from tests.policies.rate_limits.model import Model
from tests.policies.rate_limits.test_machine import LIMITS, check_windows, demand
from tests.waiting.world import World

SLEEP = 50_000
"""How far ahead of its token a task with a ticket may come, in microseconds."""
PUMPS = ["a", "b"]

names = st.sampled_from(["even", "even", "strict", "fast", "burst", "half"])
buckets = st.builds(Bucket, names, st.just(""))
demands = st.lists(
    st.builds(demand, buckets, st.sampled_from([1, 1, 1, 3])),
    min_size=1,
    max_size=3,
    unique_by=lambda one: one.bucket,
)
steps = st.one_of(st.integers(0, 40_000), st.integers(0, 400_000), st.integers(0, 2_000_000))
numbers = st.integers(0, 1_000)


class TheRoom(RuleBasedStateMachine):
    """Producers, workers and pumps, each of which may die at any moment."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.override = memory_store(self.url)
        self.store = self.override.__enter__()
        self.store.client.flushall()
        self.clock = FrozenClock(self.store)
        self.model = Model(START)
        self.world = World(self.store)
        self.steered = False
        self.world.pump("a")

    def teardown(self) -> None:
        """In the end everything runs, and no limit was ever broken."""
        for _ in range(5_000):
            if all(task.is_done for task in self.world.tasks) and not self.world.waiting():
                break
            self._go_on()
        else:
            pytest.fail(f"never ran: {[task for task in self.world.tasks if not task.is_done]}")
        self._check_windows()
        runs = sum(len(task.starts) for task in self.world.tasks)
        assert runs <= len(self.world.tasks) + self.world.copies
        self.override.__exit__(None, None, None)

    @rule(asked=demands, gate=st.booleans(), rank=st.sampled_from([0, 0, 0, 3]), count=st.integers(1, 6))
    def publish(self, asked: list[Demand], gate: bool, rank: int, count: int) -> None:
        """Some tasks of a kind are sent."""
        for _ in range(count):
            self.world.publish(asked, gate=gate, rank=rank)

    @precondition(lambda self: self.world.broker)
    @rule(index=numbers, dies=st.booleans())
    def deliver(self, index: int, dies: bool) -> None:
        """A message reaches a worker, and its task starts or waits."""
        message = self.world.broker[index % len(self.world.broker)]
        task = self.world.tasks[message.task]
        answer = self.world.deliver(index, dies=dies)
        self._compare(task.demands, message.ticket, answer)

    @rule(name=st.sampled_from(PUMPS), dies=st.sampled_from(["", "", "", "before", "after"]))
    def pump(self, name: str, dies: str) -> None:
        """A pump looks; the other one gets nothing."""
        turn = self.world.pump(name, dies=dies)
        for release in turn.releases:
            self._check_order(release)

    @precondition(lambda self: self.world.broker)
    @rule(by=steps)
    def all_arrive(self, by: int) -> None:
        """What is in the broker reaches workers, in no order, before the pump looks again."""
        self.time_passes(by)
        for index in range(len(self.world.broker)):
            self.deliver(index * 7, dies=False)

    @rule(by=steps)
    def some_are_released(self, by: int) -> None:
        """The leader looks, and what it publishes arrives at once; it has not said yet that it did."""
        self.time_passes(by)
        leader = self.store.client.get(self.world.room.key("room-leader"))
        self.pump(leader.decode() if leader else "a", dies="")
        if self.world.broker:
            self.all_arrive(by=by // 10)

    @rule(name=st.sampled_from(PUMPS))
    def elect(self, name: str) -> None:
        """The leader is gone for so long that another takes over."""
        self.world.elect(name)
        self.world.pump(name)

    @rule(by=steps)
    def time_passes(self, by: int) -> None:
        """The server's clock moves on."""
        self.clock.now += by
        self.model.now += by

    @precondition(lambda self: self.world.tasks)
    @rule(number=numbers)
    def revoke(self, number: int) -> None:
        """A task is revoked, wherever it is."""
        self.world.cancel(number % len(self.world.tasks))

    @rule(name=st.sampled_from(list(LIMITS)), seconds=st.integers(1, 3))
    def close(self, name: str, seconds: int) -> None:
        """A service says 429."""
        close_name(self.store, name, seconds)
        self.steered = True

    @rule(name=st.sampled_from(list(LIMITS)), rate=st.sampled_from(["5/s", "9/s", "300/m"]))
    def adjust(self, name: str, rate: str) -> None:
        """An operator changes a rate."""
        RateLimitManager().adjust_rate(name, rate)
        self.steered = True

    @invariant()
    def nothing_is_lost(self) -> None:
        """Each task has run, or is in the broker or in the room."""
        assert self.world.lost() == []

    def _compare(self, asked: list[Demand], ticket: str, answer: Any) -> None:
        """Tokens are taken exactly when there are some, and at most 50 ms ahead by a ticket's holder."""
        if self.steered or answer is None:
            return
        now = self.model.now
        if isinstance(answer, Started):
            ahead = round(answer.ahead * 1e6)
            assert 0 <= ahead <= (SLEEP if ticket else 0)
            if ahead:
                self.model.now = now + ahead - 1
                assert self.model.ask(asked)[0] == "wait", "it sleeps for nothing"
            self.model.now = now + ahead
            assert self.model.ask(asked)[0] == "granted"
            self.model.now = now
            for log in self.model.logs.values():  # newest first; none counts as older than one before it
                log[:] = list(accumulate(reversed(log), max))[::-1]
        elif isinstance(answer, Waits) and ticket:
            said = self.model.ask(asked)
            assert said[0] == "wait", "its token was there"
            assert said[1] > SLEEP

    def _check_order(self, release: Release) -> None:
        """Nobody who came later, or has a lower rank, goes first in a line."""
        task = self.world.tasks[int(release.id.partition("#")[0])]
        if release.ticket and len(task.demands) == 1:
            line = self.world.room.key("room-line", str(task.demands[0].bucket) + ":")
            ahead = self.store.client.zrangebyscore(line, "-inf", f"({release.place}")
            others = [self.world.tasks[int(one.partition(b"#")[0])] for one in ahead]
            assert not [one for one in others if len(one.demands) == 1]  # others may just have come over

    def _check_windows(self) -> None:
        if self.steered:
            return
        times = defaultdict(list)
        for task in self.world.tasks:
            for one in task.demands:
                times[one.bucket] += task.starts * one.cost
        for bucket, starts in times.items():
            check_windows(sorted(starts), *LIMITS[bucket.name])

    def _go_on(self) -> None:
        leader = (self.store.client.get(self.world.room.key("room-leader")) or b"a").decode()
        turn = self.world.pump(leader)
        while self.world.broker:
            self.world.deliver(0)
        if not turn.releases:
            self.clock.now += max(1_000, round(turn.wait * 1e6))


@pytest.fixture
def frozen_time() -> Iterator[None]:
    with frozen_scripts():
        yield


def test_nothing_is_lost_and_no_limit_is_broken(store_url: str, frozen_time: None) -> None:
    """A task would vanish, start twice for no reason, or start before there is a token for it."""
    machine = type("TheRoomHere", (TheRoom,), {"url": store_url})
    tries = settings.default
    if store_url.startswith("memory:"):  # each of its scripts takes milliseconds
        tries = settings(tries, max_examples=max(1, tries.max_examples // 6), stateful_step_count=15)
    run_state_machine_as_test(machine, settings=tries)


def walk(machine: TheRoom, dice: random.Random, steps: int) -> None:
    """A long life of one room, with crowds, deaths and late confirmations; Hypothesis tries short ones."""

    def demanded() -> list[Demand]:
        wanted = dice.sample(["even", "strict", "fast", "half"], dice.choice([1, 1, 2, 3]))
        return [demand(Bucket(name), dice.choice([1, 1, 3])) for name in wanted]

    def deliver() -> None:
        if machine.world.broker:
            machine.deliver(dice.randrange(1_000), dies=dice.random() < 0.05)

    def publish() -> None:
        machine.publish(demanded(), dice.random() < 0.5, dice.choice([0, 0, 3]), dice.randrange(1, 12))

    moves: list[Callable[[], object]] = [
        *[deliver] * 12,
        *[lambda: machine.pump(dice.choice(PUMPS), dies=dice.choice([""] * 12 + ["before", "after"]))] * 12,
        *[lambda: machine.time_passes(dice.choice([0, 500, 20_000, 100_000]))] * 10,
        *[
            lambda: machine.publish(
                demanded(), dice.random() < 0.5, dice.choice([0, 0, 3]), dice.randrange(1, 12)
            )
        ]
        * 2,
        lambda: machine.revoke(dice.randrange(1_000)) if machine.world.tasks else None,
        lambda: machine.elect(dice.choice(PUMPS)),
    ]
    for _ in range(steps):
        dice.choice(moves)()
        machine.nothing_is_lost()


@pytest.mark.parametrize("seed", range(3))
def test_a_long_life(redis_url: str, frozen_time: None, seed: int) -> None:
    """Rare meetings of deaths and crowds would lose a task or break a limit."""
    machine = type("TheRoomHere", (TheRoom,), {"url": redis_url})()
    try:
        walk(machine, random.Random(seed), 300)
    finally:
        machine.teardown()
