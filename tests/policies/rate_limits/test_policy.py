"""Limited tasks in eager mode, on fakeredis and on a real server: when they start, and what else they do."""

import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery

from celery_patterns import RateLimits, TokenBucket, TokenBucketTask, disabled, penalize
from celery_patterns.core import entering
from celery_patterns.core.store import Store
from celery_patterns.errors import (
    KeyArgumentError,
    RateLimitExceeded,
    StoreUnavailable,
    StoreVersionError,
    Throttled,
)
from celery_patterns.policies.rate_limits import start
from celery_patterns.testing import CapturedEvents, MovableClock, assert_deferred, memory_store

Make = Callable[..., Any]


@pytest.fixture
def make(app: Celery) -> Make:
    """`make(body, "25/s", burst=...)`: a limited task around a function."""

    def make(body: Callable[..., Any], *rate: Any, **options: Any) -> Any:
        value = rate[0] if isinstance(rate[0], RateLimits) else TokenBucket(*rate, **options)
        name = f"shop.{body.__name__.strip('<>')}"
        name += str(len(names)) if name in names else ""
        names.append(name)
        return app.task(base=TokenBucketTask, token_bucket=value, name=name, shared=False)(body)

    names: list[str] = []

    return make


def waits(events: CapturedEvents) -> list[float]:
    """How long calls had to wait, as they were told."""
    return [event.detail["wait"] for event in events.of("deferred")]


def charge(order: int = 0) -> int:
    return order


def counted(runs: list[int]) -> Callable[..., None]:
    """A body that counts its runs."""

    def count() -> None:
        runs.append(1)

    return count


def test_a_burst_passes_and_the_next_waits_exactly(
    make: Make, clock: MovableClock, patterns_events: CapturedEvents
) -> None:
    """A limit would let too many pass, or keep calls waiting for longer than it must."""
    task = make(charge, "1/s", burst=3)
    for order in range(3):
        assert task.apply((order,)).get() == order
    assert waits(patterns_events) == []
    assert task.apply((3,)).get() == 3
    assert waits(patterns_events) == [pytest.approx(1.0, abs=0.5)]


def test_a_limit_is_shared_by_all_that_name_it(
    make: Make, clock: MovableClock, patterns_events: CapturedEvents
) -> None:
    """Two tasks that call one service would call it twice as often."""

    def refund() -> None: ...

    one, two = make(charge, "1/m", name="stripe"), make(refund, "1/m", name="stripe")
    one.apply().get()
    two.apply().get()
    assert waits(patterns_events)[0] == pytest.approx(60, abs=1)
    assert {event.key for event in patterns_events} == {"stripe"}


def test_each_key_has_a_bucket_of_its_own(
    make: Make, clock: MovableClock, patterns_events: CapturedEvents
) -> None:
    """One tenant would use up what is there for all."""

    def call(tenant: str) -> None: ...

    task = make(call, "1/m", key="tenant")
    for tenant in ("a", "b", "c"):
        task.apply((tenant,)).get()
    assert not patterns_events
    task.apply(kwargs={"tenant": "b"}).get()
    assert patterns_events[0].key == 'shop.call:"b"'


def test_a_sender_cannot_walk_around_a_limit(make: Make, clock: MovableClock) -> None:
    """A key given with a call, for idempotency, would give each call a bucket of its own."""

    def call(tenant: str) -> None: ...

    task = make(call, "1/m", key="tenant")
    task.apply(("a",), headers={"cp-key": "one"}).get()
    with assert_deferred(task):
        task.apply(("a",), headers={"cp-key": "two"}).get()


def test_a_cost_may_be_an_argument(make: Make, clock: MovableClock, patterns_events: CapturedEvents) -> None:
    """A call that does the work of ten would count as one."""

    def send(mails: int) -> int:
        return mails

    task = make(send, "10/s", burst=20, cost="mails")
    assert task.apply((15,)).get() == 15
    assert task.apply((0,)).get() == 0
    assert not patterns_events
    task.apply((10,)).get()
    assert waits(patterns_events) == [pytest.approx(0.5, abs=0.1)]


def test_a_cost_may_be_reckoned(make: Make, clock: MovableClock) -> None:
    """A list of mails would have to come with its length."""

    def send(mails: list[str]) -> int:
        return len(mails)

    task = make(send, "1/m", burst=3, cost=lambda mails: len(mails) + 0)
    task.apply((["a", "b", "c"],)).get()
    with assert_deferred(task):
        task.apply((["d"],)).get()


@pytest.mark.parametrize("cost", [-1, 1.5, "2", None, True])
def test_what_is_no_cost_is_refused(make: Make, cost: Any) -> None:
    """A call would pass for nothing, or give tokens back."""

    def send(mails: Any) -> None: ...

    task = make(send, "10/s", burst=20, cost="mails")
    with pytest.raises(KeyArgumentError, match="whole number"):
        task.apply((cost,)).get()
    with pytest.raises(KeyArgumentError, match="whole number"):
        task.delay(cost)


def test_what_can_never_pass_fails_at_once(make: Make) -> None:
    """A call that costs more than the bucket holds would wait for ever."""

    def send(mails: int) -> None: ...

    task = make(send, "10/s", burst=20, cost="mails")
    with pytest.raises(RateLimitExceeded, match="burst=20") as refused:
        task.apply((21,)).get()
    assert refused.value.retry_after is None


def test_several_limits_are_all_or_nothing(
    make: Make, clock: MovableClock, patterns_events: CapturedEvents
) -> None:
    """When the second of two limits denies, the first would have spent a token."""

    def call(tenant: str) -> None: ...

    both = make(
        call,
        RateLimits(
            TokenBucket("1/h", burst=3, name="all"),
            TokenBucket("1/m", key="tenant", name="tenant", on_limited="raise"),
        ),
    )
    both.apply(("a",)).get()
    for _ in range(10):
        with pytest.raises(RateLimitExceeded, match='tenant:"a"'):
            both.apply(("a",)).get()
    both.apply(("b",)).get()
    both.apply(("c",)).get()
    assert not patterns_events.of("deferred")


def test_limits_without_a_name_are_their_tasks(
    make: Make, clock: MovableClock, patterns_events: CapturedEvents
) -> None:
    """Two limits of one task would share a bucket."""
    task = make(charge, RateLimits(TokenBucket("1/s", burst=9), TokenBucket("1/m", burst=2)))
    for _ in range(3):
        task.apply().get()
    assert {event.key for event in patterns_events} == {"shop.charge#2"}


@pytest.mark.parametrize("count", [1, 2])
def test_a_limited_call_may_be_skipped(make: Make, patterns_events: CapturedEvents, count: int) -> None:
    """on_limited="skip" would run the body, or wait."""
    runs: list[int] = []
    task = make(counted(runs), "1/h", on_limited="skip", name="x")
    task.apply().get()
    for _ in range(count):
        assert task.apply().get() is None
    assert runs == [1]
    assert len(patterns_events.of("skipped")) == count


def test_a_limited_call_may_be_refused(make: Make, patterns_events: CapturedEvents) -> None:
    """on_limited="raise" would wait."""
    task = make(charge, "1/m", on_limited="raise")
    task.apply().get()
    with pytest.raises(RateLimitExceeded) as refused:
        task.apply().get()
    assert refused.value.retry_after == pytest.approx(60, abs=1)
    assert len(patterns_events.of("refused", task)) == 1


def test_who_would_wait_for_too_long_fails_at_once(make: Make, clock: MovableClock) -> None:
    """A call whose answer nobody needs in an hour would still wait for it."""
    task = make(charge, "1/m", max_wait=timedelta(seconds=90))
    task.apply().get()
    with assert_deferred(task):
        task.apply().get()
    task.apply().get()
    penalize("shop.charge", 120, app=task.app)
    with pytest.raises(RateLimitExceeded, match="max_wait is 90 s") as refused:
        task.apply().get()
    assert refused.value.retry_after == pytest.approx(120, abs=2)


def test_a_429_closes_the_limit_and_costs_nothing(
    make: Make, clock: MovableClock, patterns_events: CapturedEvents
) -> None:
    """A service that asks to be left alone would be asked again by everybody else."""
    answers: list[Any] = [Throttled(retry_after="30")]
    retries = []

    def call() -> str:
        retries.append(task.request.retries)
        if answers:
            raise answers.pop()
        return "200"

    task = make(call, "100/s", burst=100, name="stripe")
    other = make(charge, "100/s", burst=100, name="stripe")
    began = clock.store.now()
    assert task.apply().get() == "200"
    assert clock.store.now() - began >= 30
    assert retries == [0, 0]
    answers.append(Throttled(5))
    with clock.waits_in_place():
        task.apply().get()
    assert [event.detail["retry_after"] for event in patterns_events.of("throttled")] == [30, 5]
    penalize("stripe", 5, app=task.app)
    with assert_deferred(other):
        other.apply().get()


def test_a_429_closes_the_bucket_of_its_key_only(make: Make, clock: MovableClock) -> None:
    """One tenant's 429 would stop all the others."""

    def call(tenant: str, throttled: bool = False) -> None:
        if throttled and clock.store.now() < deadline:
            raise Throttled(timedelta(seconds=30))

    task = make(call, "100/s", burst=100, key="tenant", max_wait=1)
    deadline = clock.store.now() + 30
    with pytest.raises(RateLimitExceeded):
        task.apply(("a", True)).get()
    task.apply(("b",)).get()
    with pytest.raises(RateLimitExceeded):
        task.apply(("a",)).get()


@pytest.mark.parametrize("name", ["second", "elsewhere"])
def test_a_429_may_name_its_limit(make: Make, name: str) -> None:
    """A 429 of one service would close another's limit."""

    def call() -> None:
        raise Throttled(60, name)

    limits = [TokenBucket("100/s", name=one, burst=100, max_wait=1) for one in ("first", "second")]
    with pytest.raises(RateLimitExceeded):
        make(call, RateLimits(*limits)).apply().get()
    make(charge, "100/s", name="first", burst=100, on_limited="raise").apply().get()
    with pytest.raises(RateLimitExceeded):
        make(charge, "100/s", name=name, burst=100, on_limited="raise").apply().get()


def test_throttled_survives_pickling() -> None:
    """Celery pickles errors: a worker would die of one that cannot be made again."""
    for error in (Throttled(5), Throttled("7", "stripe"), RateLimitExceeded("no", 3.5)):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), vars(again), str(again)) == (type(error), vars(error), str(error))


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(0, 0), (2.5, 2.5), (timedelta(minutes=1), 60), ("120", 120), (" 7 ", 7), ("1.5", 1.5), (-5, 0)],
)
def test_retry_after_is_read_as_it_comes(written: Any, seconds: float) -> None:
    """The header of a response would have to be parsed by each task."""
    assert Throttled(written).retry_after == seconds


def test_retry_after_may_be_a_date() -> None:
    """Half of the services answer with a date."""
    assert Throttled("Wed, 21 Oct 2099 07:28:00 GMT").retry_after > 1e9
    assert Throttled("Wed, 21 Oct 2015 07:28:00 -0000").retry_after == 0


@pytest.mark.parametrize("written", ["soon", "", "nan", float("nan"), float("inf"), None])
def test_what_is_no_retry_after_is_refused(written: Any) -> None:
    """A missing header would close a limit for ever, or not at all."""
    with pytest.raises(ValueError, match="Retry-After"):
        Throttled(written)


def test_the_body_knows_when_its_start_counts(make: Make, store: Store) -> None:
    """A body that writes down when it was let in would have to guess."""

    def call() -> float:
        return float(task.request.granted_at)

    task = make(call, "10/s")
    assert task.apply().get() == pytest.approx(store.now(), abs=1)


def test_a_stale_grant_asks_again(make: Make, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped between its grant and the body would start in another window's time."""
    ticks = iter([0.0, 1.001, 1.001, 5.0, 5.1, 5.1])  # asked, came, and looked at once more
    for module in (entering, start):
        monkeypatch.setattr(module, "monotonic", lambda: next(ticks))
    runs: list[int] = []
    make(counted(runs), "1/h", burst=3, name="x").apply().get()
    monkeypatch.undo()
    assert runs == [1]
    task = make(charge, "1/h", burst=3, name="x", on_limited="raise")
    task.apply().get()
    with pytest.raises(RateLimitExceeded):
        task.apply().get()


def test_a_store_that_is_always_slow_counts_as_away(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer would be too old, and cost a token, for ever."""
    ticks = iter(range(0, 100, 2))
    for module in (entering, start):
        monkeypatch.setattr(module, "monotonic", lambda: float(next(ticks)))
    task = make(charge, "1/h", burst=10, on_store_error="raise")
    with pytest.raises(StoreUnavailable, match="too late"):
        task.apply().get()


@pytest.mark.parametrize(("choice", "runs"), [("raise", 0), ("allow", 1)])
def test_a_store_that_is_away(app: Celery, choice: Any, runs: int, patterns_events: CapturedEvents) -> None:
    """A limiter would open by accident when it cannot count, or block where it was told not to."""
    done: list[int] = []
    with memory_store("redis://127.0.0.1:1/0"):
        task = app.task(
            base=TokenBucketTask,
            token_bucket=TokenBucket("1/s", on_store_error=choice),
            name="x",
            shared=False,
        )(counted(done))
        if choice == "raise":
            with pytest.raises(StoreUnavailable):
                task.apply().get()
        else:
            task.apply().get()
    assert len(done) == runs
    assert [event.kind for event in patterns_events] == ["store_error"]


def test_a_newer_bucket_is_refused(make: Make, store: Store) -> None:
    """Old code would misread what newer code wrote, and let everybody pass."""
    store.client.set("cp:limit:{cp}:shop.charge:", "v2 1795160000000000 0 0 1 40000 100")
    with pytest.raises(StoreVersionError, match=r"shop\.charge"):
        make(charge, "1/s").apply().get()


def test_the_kill_switch_opens_a_limit(make: Make) -> None:
    """An operator could not switch a limit off that stops everything."""
    task = make(charge, "1/h", on_limited="raise")
    task.apply().get()
    with disabled("token_bucket"):
        task.apply().get()
    with pytest.raises(RateLimitExceeded):
        task.apply().get()


def test_a_direct_call_is_the_body_alone(make: Make) -> None:
    """A direct call would wait, unlike any other direct call of a Celery task."""
    task = make(charge, "1/h", on_limited="raise")
    assert [task(1), task(2), task(3)] == [1, 2, 3]


def test_a_name_may_hold_anything(make: Make, clock: MovableClock) -> None:
    """A limit's name would run into the key of another, or break the hash tag."""
    tasks = [
        make(charge, "1/m", name=name, on_limited="raise")
        for name in ("a", "a:", "{a}", "a:b", "ä b\n", "*", ":", "%3A")
    ]
    for task in tasks:
        task.apply().get()
    for task in tasks:
        with pytest.raises(RateLimitExceeded):
            task.apply().get()
