"""The scripts of rate limits against a model in whole numbers: any calls, costs, changes, repetitions."""

from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from celery_patterns.core.operations import Operations
from celery_patterns.core.store import Store
from celery_patterns.policies.rate_limits.buckets import Bucket, Demand, Denied, Granted, ask, close
from celery_patterns.policies.rate_limits.rate import Rate
from celery_patterns.policies.rate_limits.steering import RateLimitManager, close_name
from celery_patterns.testing import memory_store
from tests.policies.rate_limits.frozen import START, FrozenClock, frozen_scripts
from tests.policies.rate_limits.model import Model, Steered

LIMITS = {
    "even": (Rate.of("3/s"), 1, False),
    "burst": (Rate.of("7/m"), 5, False),
    "fast": (Rate.of("1000/s"), 10, False),
    "strict": (Rate.of("6/s"), 6, True),
    "half": (Rate.of("10/10s"), 4, True),
}
KEYS = ["", '"acme"']

names = st.sampled_from(list(LIMITS))
bucket_of = st.builds(Bucket, names, st.sampled_from(KEYS))
steps = st.one_of(
    st.integers(0, 3), st.integers(0, 400_000), st.integers(0, 12_000_000), st.sampled_from([10**6, 10**9])
)


def demand(bucket: Bucket, cost: int = 1) -> Demand:
    rate, burst, strict = LIMITS[bucket.name]
    return Demand(bucket, rate, burst, min(cost, burst), strict)


demands = st.lists(
    st.builds(demand, bucket_of, st.integers(1, 6)), min_size=1, max_size=4, unique_by=lambda one: one.bucket
)


class Limits(RuleBasedStateMachine):
    """Callers ask for tokens of up to four buckets at once; operators steer."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.override = memory_store(self.url)
        self.store = self.override.__enter__()
        self.store.client.flushall()
        self.clock = FrozenClock(self.store)
        self.model = Model(START)
        self.manager = RateLimitManager()
        self.grants: dict[Bucket, list[int]] = defaultdict(list)
        self.steered = False
        self.operation = 0

    def teardown(self) -> None:
        """Leave no connection behind, and look at all that was granted."""
        self.override.__exit__(None, None, None)
        if not self.steered:
            for bucket, times in self.grants.items():
                check_windows(times, *LIMITS[bucket.name])

    @rule(asked=demands)
    def ask(self, asked: list[Demand]) -> None:
        """A call under several limits passes all of them, or spends nothing anywhere."""
        self._compare(asked, ask(self.store, asked))

    @rule(asked=demands, others=st.lists(demands, max_size=3))
    def ask_again_after_a_lost_reply(self, asked: list[Demand], others: list[list[Demand]]) -> None:
        """The same operation arrives twice, with others in between, and books once."""
        self.operation += 1
        first = ask_as(self.operation, self.store, asked)
        self._compare(asked, first)
        for other in others:
            self._compare(other, ask(self.store, other))
        if isinstance(first, Granted):
            assert ask_as(self.operation, self.store, asked) == first

    @rule(asked=demands, late=st.integers(1, 3))
    def a_copy_comes_late(self, asked: list[Demand], late: int) -> None:
        """What the network kept arrives after its caller's next command was granted, and books nothing."""
        self.operation += 3
        answer = ask_as(self.operation, self.store, asked)
        self._compare(asked, answer)
        if isinstance(answer, Granted):
            assert ask_as(self.operation - late, self.store, asked) == answer

    @rule(by=steps)
    def time_passes(self, by: int) -> None:
        """The server's clock moves on."""
        self.clock.now += by
        self.model.now += by

    @rule(asked=demands)
    def wait_as_told(self, asked: list[Demand]) -> None:
        """Who waits exactly as long as it was told passes; a microsecond less is too early."""
        answer = ask(self.store, asked)
        self._compare(asked, answer)
        if isinstance(answer, Denied):
            self.time_passes(round(answer.wait * 1e6) - 1)
            self._compare(asked, early := ask(self.store, asked))
            if not self.steered:  # a changed rate is counted with 2 us in reserve
                assert early == Denied(1e-6, early.which, early.pace)
            self.time_passes(1)
            self._compare(asked, last := ask(self.store, asked))
            assert isinstance(last, Granted)

    @rule(bucket=bucket_of, seconds=st.integers(0, 3))
    def a_service_says_429(self, bucket: Bucket, seconds: int) -> None:
        """One bucket is closed, or opened."""
        close(self.store, [bucket], seconds)
        self.model.close(bucket, seconds * 1_000_000)

    @rule(name=names, seconds=st.integers(1, 3))
    def a_name_is_closed(self, name: str, seconds: int) -> None:
        """All buckets of a name are closed."""
        close_name(self.store, name, seconds)
        set_now = self.model.steered.setdefault(name, Steered())
        set_now.closed = max(set_now.closed, self.model.now + seconds * 1_000_000)

    @rule(name=names, rate=st.sampled_from(["1/s", "9/s", "30/m"]), burst=st.sampled_from([None, 1, 8]))
    def an_operator_adjusts_a_rate(self, name: str, rate: str, burst: int | None) -> None:
        """The rate changes while calls come."""
        self.steered = True
        self.manager.adjust_rate(name, rate, burst=burst)
        set_now = self.model.steered.setdefault(name, Steered())
        set_now.rate = (Rate.of(rate).count, Rate.of(rate).per_us)
        set_now.burst = burst or set_now.burst

    @rule(percent=st.integers(1, 100))
    def an_operator_reduces_all_rates(self, percent: int) -> None:
        """All rates change while calls come."""
        self.steered = True
        self.manager.reduce_for_high_load(percent / 100)
        self.model.factor = Fraction(percent, 100)

    @precondition(lambda self: self.model.steered or self.model.factor != 1)
    @rule()
    def an_operator_takes_everything_back(self) -> None:
        """What is declared holds again, and nothing is closed."""
        self.steered = True
        self.manager.restore_defaults()
        self.model.steered, self.model.factor = {}, Fraction(1)
        for held in self.model.held.values():
            held.closed = 0

    def _compare(self, asked: list[Demand], answer: Any) -> None:
        expected = self.model.ask(asked)
        if expected[0] == "granted":
            assert answer == Granted(expected[1] / 1e6)
            for one in asked:
                self.grants[one.bucket] += [expected[1]] * one.cost
        else:
            assert isinstance(answer, Denied), (answer, expected)
            assert (round(answer.wait * 1e6), answer.which) == expected[1:]


def check_windows(times: list[int], rate: Rate, burst: int, strict: bool) -> None:
    """No window may see more than rate times window and burst; of a strict limit, the rate's count."""
    for first in range(len(times)):
        for last in range(first, len(times)):
            window, count = times[last] - times[first], last - first + 1
            assert (count - burst) * rate.per_us <= window * rate.count
            assert not strict or count <= rate.count or window >= rate.per_us


def ask_as(number: int, store: Store, asked: list[Demand]) -> Any:
    """Ask as an operation, always in the same slot, that another command may repeat."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Operations, "begin", lambda _: ("cp:limit-op:{cp}:tested", number))
        patch.setattr(Operations, "end", lambda *_: None)
        return ask(store, asked)


@pytest.fixture
def frozen_time() -> Iterator[None]:
    with frozen_scripts():
        yield


def test_the_scripts_do_what_the_model_does(store_url: str, frozen_time: None) -> None:
    """A limit would let one too many pass, spend where it denies, or wait longer than it must."""
    machine = type("LimitsHere", (Limits,), {"url": store_url})
    run_state_machine_as_test(machine)
