"""Changing limits at run time, and looking at them."""

from typing import Any
from uuid import UUID

import pytest
from celery import Celery

from celery_patterns import (
    PolicyError,
    RateLimitManager,
    RateLimits,
    TokenBucket,
    TokenBucketTask,
    acquire,
    penalize,
)
from celery_patterns.core.store import Store
from celery_patterns.policies.rate_limits import status
from celery_patterns.policies.rate_limits.buckets import Bucket, Denied, stand_in_line
from celery_patterns.testing import MovableClock

API = TokenBucket("1/h", burst=2, name="api")


@pytest.fixture
def manager(app: Celery, store: Store) -> RateLimitManager:
    return RateLimitManager(app)


def wait(app: Celery, limit: TokenBucket = API, arguments: Any = None) -> float:
    """How long a caller has to wait now; it takes the token if there is one."""
    return acquire(limit, arguments, app=app).wait


def use_up(app: Celery, limit: TokenBucket = API) -> float:
    """Take all tokens; the wait after that."""
    while not (left := wait(app, limit)):
        pass
    return left


def test_a_higher_rate_acts_on_who_waits_already(app: Celery, manager: RateLimitManager) -> None:
    """A limit that was raised would still keep everybody waiting for the old time."""
    assert use_up(app) == pytest.approx(3_600, abs=2)
    manager.adjust_rate("api", "100/s")
    assert wait(app) == pytest.approx(0.01, abs=0.001)


def test_a_lower_rate_lets_nobody_pass_who_had_no_token(
    app: Celery, manager: RateLimitManager, clock: MovableClock
) -> None:
    """A limit that was lowered would forget what had been spent."""
    fast = TokenBucket("1/s", burst=10, name="api")
    use_up(app, fast)
    manager.adjust_rate("api", "1/h")
    assert wait(app, fast) == pytest.approx(3_600, rel=0.1)


def test_a_burst_can_be_changed_with_the_rate(app: Celery, manager: RateLimitManager) -> None:
    """An operator could not let more, or fewer, in at once."""
    manager.adjust_rate("api", "1/h", burst=5)
    assert [wait(app) for _ in range(5)] == [0] * 5
    assert wait(app)
    manager.adjust_rate("api", "1/h", burst=1)
    assert wait(app) == pytest.approx(5 * 3_600, abs=5)


def test_a_burst_below_the_cost_waits_for_a_full_bucket(app: Celery, manager: RateLimitManager) -> None:
    """An operator who lowers a burst would make calls fail that cost more."""
    big = TokenBucket("1/s", burst=10, cost=10, name="big")
    manager.adjust_rate("big", "1/s", burst=2)
    assert wait(app, big) == 0
    assert wait(app, big) == pytest.approx(10, abs=1)


def test_high_load_reduces_all_limits(app: Celery, manager: RateLimitManager) -> None:
    """An operator would have to know and change each limit."""
    other = TokenBucket("1/m", key="tenant", name="other")
    manager.adjust_rate("api", "2/h")
    manager.reduce_for_high_load(0.25)
    assert use_up(app) == pytest.approx(7_200, abs=5)
    wait(app, other, {"tenant": "a"})
    assert wait(app, other, {"tenant": "a"}) == pytest.approx(240, abs=2)
    manager.restore_defaults()
    assert wait(app) == pytest.approx(3_600, abs=5)
    assert wait(app, other, {"tenant": "a"}) == pytest.approx(60, abs=2)


def test_high_load_reduces_a_strict_limit(app: Celery, manager: RateLimitManager) -> None:
    """A strict limit would go on at its full count."""
    strict = TokenBucket("10/h", burst=10, strict=True, name="strict")
    manager.reduce_for_high_load(0.5)
    assert [wait(app, strict) for _ in range(5)] == [0] * 5
    assert wait(app, strict) == pytest.approx(3_600, abs=5)


@pytest.mark.parametrize("factor", [0, -1, 1.01, 2, float("nan"), "half", None])
def test_a_factor_that_reduces_nothing_is_refused(manager: RateLimitManager, factor: float) -> None:
    """High load would be answered with more load, or with a full stop."""
    with pytest.raises(PolicyError, match=r"from 0\.01 to 1"):
        manager.reduce_for_high_load(factor)


@pytest.mark.parametrize(("rate", "burst"), [("fast", None), ("1/s", 0), ("1/s", 1.5), ("1/s", True)])
def test_a_wrong_change_is_refused(manager: RateLimitManager, rate: str, burst: Any) -> None:
    """A typo would stop a limit, or open it."""
    with pytest.raises(PolicyError):
        manager.adjust_rate("api", rate, burst=burst)


@pytest.mark.parametrize("name", ["", None, TokenBucket("1/s", name="api")])
def test_what_is_no_name_is_refused(manager: RateLimitManager, name: Any) -> None:
    """A limit in place of its name would raise something of the library's insides, or steer nothing."""
    for steer in (
        lambda: manager.adjust_rate(name, "5/s"),
        lambda: manager.penalize(name, 5),
        lambda: manager.refill(name),
    ):
        with pytest.raises(PolicyError, match="name="):
            steer()


@pytest.mark.parametrize(("rate", "burst"), [("99999999999999999/s", None), ("5/s", 99_999_999_999_999)])
def test_a_change_that_cannot_be_counted_is_refused(manager: RateLimitManager, rate: str, burst: Any) -> None:
    """A bucket would count in numbers that a double does not hold, and let more pass than it says."""
    with pytest.raises(PolicyError, match="too large"):
        manager.adjust_rate("api", rate, burst=burst)


def test_a_penalty_closes_all_keys_or_one(app: Celery, store: Store) -> None:
    """A 429 would not be heard by everybody, or be heard by those it is not for."""
    api = TokenBucket("100/s", burst=10, key="tenant", name="api")
    penalize("api", 30, key="a", app=app)
    assert wait(app, api, {"tenant": "a"}) == pytest.approx(30, abs=1)
    assert wait(app, api, {"tenant": "b"}) == 0
    penalize("api", 60, app=app)
    assert wait(app, api, {"tenant": "b"}) == pytest.approx(60, abs=1)


@pytest.mark.parametrize("value", [7, "7", 1.5, [1, "a"], {"b": 1, "a": 2}, UUID(int=7), ("eu", UUID(int=9))])
def test_a_penalty_finds_the_key_of_any_value(app: Celery, store: Store, value: Any) -> None:
    """A penalty would close a bucket that no call falls under."""
    names = ("region", "account") if isinstance(value, tuple) else "tenant"
    arguments = dict(zip(names, value, strict=True)) if isinstance(value, tuple) else {"tenant": value}
    keyed = TokenBucket("100/s", key=names, name="keyed")
    penalize("keyed", 30, key=value, app=app)
    assert wait(app, keyed, arguments) == pytest.approx(30, abs=1)


def test_a_penalty_is_never_shortened(app: Celery, manager: RateLimitManager) -> None:
    """The second of two 429s would open what the first has closed."""
    for seconds in (60, 5):
        manager.penalize("api", seconds)
        manager.penalize("other", seconds, key=("eu", 7))
    assert wait(app) == pytest.approx(60, abs=1)
    other = TokenBucket("1/s", key=("region", "account"), name="other")
    assert wait(app, other, {"region": "eu", "account": 7}) == pytest.approx(60, abs=1)


def test_a_penalty_survives_a_change_of_rate(app: Celery, manager: RateLimitManager) -> None:
    """A raise would open what a service has asked to close."""
    use_up(app)
    penalize("api", 50, key=None, app=app)
    manager.adjust_rate("api", "100/s")
    assert wait(app) == pytest.approx(50, abs=1)
    keyed = TokenBucket("1/h", key="tenant", name="keyed")
    wait(app, keyed, {"tenant": "a"})
    penalize("keyed", 50, key="a", app=app)
    manager.adjust_rate("keyed", "100/s")
    assert wait(app, keyed, {"tenant": "a"}) == pytest.approx(50, abs=1)
    assert wait(app, keyed, {"tenant": "a"}) == pytest.approx(50, abs=1)


def test_a_penalty_ends(app: Celery, store: Store, clock: MovableClock) -> None:
    """A limit would stay closed after the time that the service asked for."""
    keyed = TokenBucket("1/h", key="tenant", name="keyed")
    penalize("api", 50, app=app)
    penalize("keyed", 50, key="a", app=app)
    clock.advance(51)
    assert wait(app) == 0
    assert wait(app, keyed, {"tenant": "a"}) == 0


def test_taking_back_one_name_opens_it(app: Celery, manager: RateLimitManager) -> None:
    """An operator could not end a penalty that was a mistake."""
    keyed = TokenBucket("1/h", key="tenant", name="keyed")
    penalize("keyed", 5_000, app=app)
    penalize("keyed", 5_000, key="a", app=app)
    penalize("api", 5_000, app=app)
    manager.adjust_rate("keyed", "1/d")
    manager.restore_defaults("keyed")
    assert wait(app, keyed, {"tenant": "a"}) == 0
    assert wait(app, keyed, {"tenant": "a"}) == pytest.approx(3_600, abs=5)
    assert wait(app) > 4_000


def test_refilling_begins_anew(app: Celery, manager: RateLimitManager) -> None:
    """An operator could not let a burst through by hand."""
    strict = TokenBucket("3/h", burst=3, strict=True, name="strict")
    use_up(app, strict)
    manager.refill("strict")
    assert [wait(app, strict) for _ in range(3)] == [0] * 3


def test_a_name_with_a_wildcard_is_one_name(app: Celery, manager: RateLimitManager) -> None:
    """Refilling one limit would refill others whose names look alike."""
    for name in ("a*", "ab", "a?c", "[ab]"):
        use_up(app, TokenBucket("1/h", name=name))
    manager.refill("a*")
    assert wait(app, TokenBucket("1/h", name="a*")) == 0
    assert wait(app, TokenBucket("1/h", name="ab"))


class TestWhatIsWritten:
    """All that is set at run time is one text, which every call reads."""

    KEY = "cp:limit-set:{cp}"

    def test_what_is_taken_back_leaves_nothing(
        self, app: Celery, store: Store, manager: RateLimitManager
    ) -> None:
        """Each name that was ever changed would make every call slower."""
        for name in ("api", "other"):
            manager.adjust_rate(name, "5/s", burst=3)
            manager.penalize(name, 60)
        manager.reduce_for_high_load(0.5)
        manager.restore_defaults("api")
        manager.restore_defaults("other")
        assert store.client.get(self.KEY) == b"\n:1 2 0 0"
        manager.restore_defaults()
        assert not store.client.exists(self.KEY)

    def test_a_penalty_that_has_passed_is_left_out(
        self, app: Celery, store: Store, manager: RateLimitManager, clock: MovableClock
    ) -> None:
        """A service that says 429 under many names would fill the text for ever."""
        for number in range(20):
            manager.penalize(f"of {number}", 30)
        clock.advance(31)
        manager.penalize("api", 60)
        assert store.client.get(self.KEY).count(b"\n") == 1
        manager.adjust_rate("api", "5/s")
        clock.advance(61)
        manager.penalize("other", 1)
        assert wait(app) == 0
        assert store.client.get(self.KEY).startswith(b"\napi:5 1000000 0 ")

    def test_penalties_alone_end_by_themselves(self, store: Store, manager: RateLimitManager) -> None:
        """A penalty nobody takes back would be read for ever; one beside a rate would end the rate."""
        manager.penalize("api", 60)
        manager.penalize("other", 30)
        assert 55_000 < store.client.pttl(self.KEY) <= 61_000
        manager.adjust_rate("api", "5/s")
        assert store.client.pttl(self.KEY) == -1
        manager.penalize("other", 40)
        assert store.client.pttl(self.KEY) == -1

    def test_names_that_contain_each_other_are_told_apart(
        self, app: Celery, manager: RateLimitManager
    ) -> None:
        """A change of one limit would act on another one whose name looks alike."""
        names = ["api", "my api", "api 2", "%", "a.i", "a:p\ni", "a{p}i", "ä", "1 1 0 0"]
        for number, name in enumerate(names):
            limit = TokenBucket("1/h", name=name)
            assert [wait(app, limit) for _ in range(2)] == pytest.approx([0, 3_600], abs=5)
            manager.adjust_rate(name, f"1/{number + 2}d")
        for number, name in enumerate(names):
            limit = TokenBucket("1/h", name=name)
            assert wait(app, limit) == pytest.approx(86_400 * (number + 2), rel=0.01)
        assert {one.name for one in status.survey(app)} == set(names)

    def test_the_whole_share_is_no_reduction(self, store: Store, manager: RateLimitManager) -> None:
        """Load that is over would still be read about by every call."""
        manager.reduce_for_high_load(0.5)
        manager.reduce_for_high_load(1)
        assert not store.client.exists(self.KEY)


class TestSurvey:
    """What operators are shown."""

    @pytest.fixture
    def call(self, app: Celery) -> Any:
        """A task under two limits."""
        limits = RateLimits(
            TokenBucket("10/h", burst=5, key="tenant", name="tenant"),
            TokenBucket("60/h", burst=30, name="all"),
        )

        @app.task(base=TokenBucketTask, token_bucket=limits, name="shop.call", shared=False)
        def call(tenant: str) -> None: ...

        return call

    def test_a_limit_that_nobody_used_is_full(self, app: Celery, store: Store, call: Any) -> None:
        """A limit would be seen only once it is too late."""
        found = {one.name: one for one in status.survey(app)}
        assert set(found) == {"tenant", "all"}
        assert found["all"] == status.LimitStatus(
            name="all", rate="1/m", burst=30, declared="1/m", penalty=0, tasks=("shop.call",), buckets=()
        )

    def test_the_keys_with_fewest_tokens_come_first(self, app: Celery, store: Store, call: Any) -> None:
        """An operator would not find the tenant that is at its limit."""
        for tenant in ("a", "b", "b", "b", "c", "c"):
            call.apply((tenant,)).get()
        (found,) = status.survey(app, "tenant")
        assert [one.key for one in found.buckets] == ['"b"', '"c"', '"a"']
        assert [round(one.tokens) for one in found.buckets] == [2, 3, 4]
        (found,) = status.survey(app, "all")
        assert found.buckets[0].tokens == pytest.approx(24, abs=1)

    def test_what_is_set_is_seen(self, app: Celery, manager: RateLimitManager, call: Any) -> None:
        """An operator would not know who had changed what."""
        manager.adjust_rate("all", "600/m", burst=7)
        manager.reduce_for_high_load(0.5)
        manager.penalize("all", 60)
        manager.penalize("tenant", 30, key="x")
        found = {one.name: one for one in status.survey(app)}
        assert (found["all"].rate, found["all"].declared, found["all"].burst) == ("5/s", "1/m", 7)
        assert found["all"].penalty == pytest.approx(60, abs=10)
        assert found["tenant"].rate == "5/h"
        assert found["tenant"].buckets[0].penalty == pytest.approx(30, abs=10)

    def test_a_limit_that_no_task_declares_is_seen(self, app: Celery, store: Store) -> None:
        """Limits of web processes would be invisible."""
        acquire(TokenBucket("100/h", burst=9, key="a.b", name="web: 1"), {"a": {"b": 7}}, app=app)
        (found,) = status.survey(app)
        assert (found.name, found.rate, found.burst, found.declared) == ("web: 1", "100/h", 9, None)
        assert found.buckets[0].key == "7"
        assert found.buckets[0].tokens == pytest.approx(8, abs=0.2)

    def test_a_strict_limit_shows_what_its_period_leaves(self, app: Celery, store: Store) -> None:
        """A bucket that fills would look as if calls could pass."""
        strict = TokenBucket("6/h", burst=6, strict=True, name="strict")
        for _ in range(4):
            acquire(strict, app=app)
        (found,) = status.survey(app)
        assert found.buckets[0].tokens == pytest.approx(2, abs=0.1)

    def test_who_waits_is_counted(self, app: Celery, store: Store) -> None:
        """An operator would not see how many a limit holds up."""
        for task_id in ("x", "y", "x"):
            stand_in_line(store, Bucket("all"), task_id, Denied(5.0, 0, 1.0))
        stand_in_line(store, Bucket("tenant", '"a"'), "z", Denied(5.0, 0, 1.0))
        assert [(one.name, one.waiting) for one in status.survey(app)] == [("all", 2), ("tenant", 1)]
