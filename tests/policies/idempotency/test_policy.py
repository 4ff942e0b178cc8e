"""Idempotency in eager mode, on fakeredis and on a real server: what each state of a record means."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import celery
import pytest
from celery import Celery
from pydantic import BaseModel

from celery_patterns import ALL_ARGS, Idempotency, IdempotentTask, PolicyError, idempotent
from celery_patterns.core.store import Store
from celery_patterns.errors import (
    IdempotencyInProgress,
    IdempotencyKeyReused,
    KeyArgumentError,
    ResultNotStored,
    RunLapsed,
    StoreUnavailable,
    StoreVersionError,
)
from celery_patterns.policies.idempotency.operate import find, forget
from celery_patterns.policies.idempotency.record import Record, record_key
from celery_patterns.testing import (
    CapturedEvents,
    MovableClock,
    assert_deferred,
    assert_replayed,
    memory_store,
)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with memory_store(store_url) as store:
        yield store


@pytest.fixture
def clock(store: Store) -> Iterator[MovableClock]:
    clock = MovableClock(store)
    with clock.waits_in_place():
        yield clock


@pytest.fixture
def app(store: Store) -> Celery:
    return Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)


Make = Callable[..., Any]


@pytest.fixture
def make(app: Celery) -> Make:
    """`make(body, key="order", ...)`: a task around a function."""

    def make(body: Callable[..., Any], **options: Any) -> Any:
        options.setdefault("key", "order")
        name = f"shop.{body.__name__}"
        return app.task(base=IdempotentTask, idempotency=Idempotency(**options), name=name, shared=False)(
            body
        )

    return make


def counted(runs: list[Any]) -> Callable[..., Any]:
    def charge(order: Any, amount: int = 1) -> dict[str, Any]:
        runs.append(order)
        return {"order": order, "amount": amount, "run": len(runs)}

    return charge


def test_a_duplicate_gets_the_first_result(make: Make) -> None:
    """A payment sent twice would be made twice."""
    runs: list[Any] = []
    charge = make(counted(runs))
    first = charge.apply(("A",)).get()
    with assert_replayed(charge, times=2):
        assert charge.apply(("A",)).get() == first
        assert charge.apply(kwargs={"order": "A", "amount": 1}).get() == first
    assert charge.apply(("B",)).get()["run"] == 2
    assert runs == ["A", "B"]


def test_a_record_lives_for_its_ttl(make: Make, clock: MovableClock) -> None:
    """A key would be remembered for longer or shorter than was asked."""
    runs: list[Any] = []
    charge = make(counted(runs), ttl=timedelta(minutes=10))
    charge.apply(("A",)).get()
    clock.advance(599)
    charge.apply(("A",)).get()
    assert runs == ["A"]
    clock.advance(2)
    charge.apply(("A",)).get()
    assert runs == ["A", "A"]


def test_a_failed_run_leaves_no_record(make: Make, store: Store) -> None:
    """A call that failed could never be made again."""
    failures = [ValueError("declined")]

    def charge(order: str) -> str:
        if failures:
            raise failures.pop()
        return "paid"

    task = make(charge)
    with pytest.raises(ValueError, match="declined"):
        task.apply(("A",)).get()
    assert store.client.keys("cp:idempotency:*") == []
    assert task.apply(("A",)).get() == "paid"


def test_cached_errors_are_given_to_duplicates(make: Make) -> None:
    """With cache_errors a declined card would be asked again and again."""
    runs: list[Any] = []

    def charge(order: str) -> str:
        runs.append(order)
        raise ValueError("declined")

    task = make(charge, cache_errors=True)
    for _ in range(3):
        with pytest.raises(ValueError, match="declined"):
            task.apply(("A",)).get()
    assert runs == ["A"]


def test_other_arguments_under_the_same_key_are_refused(make: Make, patterns_events: CapturedEvents) -> None:
    """A bug of the caller would silently drop the second payment."""
    runs: list[Any] = []
    charge = make(counted(runs))
    charge.apply(("A", 1)).get()
    with pytest.raises(IdempotencyKeyReused, match="other arguments"):
        charge.apply(("A", 2)).get()
    assert runs == ["A"]
    assert len(patterns_events.of("refused", charge)) == 1


@pytest.mark.parametrize("result", ["x" * 2_000, object()], ids=["too large", "unserialisable"])
def test_a_result_that_cannot_be_kept_is_recorded_without_its_value(make: Make, result: Any) -> None:
    """The effect would happen again because its result did not fit."""
    runs: list[Any] = []

    def charge(order: str) -> Any:
        runs.append(order)
        return result

    task = make(charge, max_result=1_000)
    assert task.apply(("A",)).get() is result
    with pytest.raises(ResultNotStored, match="max_result"):
        task.apply(("A",)).get()
    assert runs == ["A"]


def hold_elsewhere(store: Store, task: Any, order: str, lease: float = 60.0) -> Any:
    """Begin a run of the key as a delivery that lives in another process."""
    text = f'"{order}"'
    maker = task.__patterns__.keys("order")
    record = Record(
        store=store,
        key=record_key(store, task.name, text),
        owner="other-id/feed",
        fingerprint=maker.fingerprint(maker.bind((order,), {}), serialised=True),
        attempt=0,
    )
    return record, record.begin(lease=lease, ttl=1_000, on_lapsed="rerun", claim=60)


def test_a_duplicate_of_a_running_call_waits_and_then_gets_its_result(
    make: Make, store: Store, clock: MovableClock
) -> None:
    """A duplicate would run beside the first."""
    runs: list[Any] = []
    task = make(counted(runs))
    record, begun = hold_elsewhere(store, task, "A")
    moves = []
    advance = clock.advance

    def advance_and_end(by: float) -> None:
        advance(by)
        moves.append(by)
        if len(moves) == 3:
            record.complete(begun.fence, b'application/json utf-8\n"theirs"', 1_000)

    clock.advance = advance_and_end  # type: ignore[method-assign]
    with clock.waits_in_place(), assert_deferred(task, times=3), assert_replayed(task):
        assert task.apply(("A",)).get() == "theirs"
    assert runs == []


def test_that_a_result_was_handed_on_is_remembered_for_a_copy_that_comes_late(
    make: Make, store: Store
) -> None:
    """A copy that was put off for longer than the broker's redelivery takes would hand it on again."""
    task = make(counted([]))
    task.app.conf.broker_transport_options = {"visibility_timeout": 5}
    record, begun = hold_elsewhere(store, task, "A")
    record.complete(begun.fence, b'application/json utf-8\n"theirs"', 1_000)
    assert task.apply(("A",)).get() == "theirs"
    (claim,) = store.client.keys("*:to:*")
    assert 500 < store.client.ttl(claim) <= 600


@pytest.mark.parametrize(("choice", "outcome"), [("skip", None), ("raise", IdempotencyInProgress)])
def test_what_a_duplicate_does_is_a_choice(make: Make, store: Store, choice: Any, outcome: Any) -> None:
    """on_in_progress would be ignored."""
    runs: list[Any] = []
    task = make(counted(runs), on_in_progress=choice)
    hold_elsewhere(store, task, "A")
    if outcome is None:
        assert task.apply(("A",)).get() is None
    else:
        with pytest.raises(IdempotencyInProgress) as refused:
            task.apply(("A",)).get()
        assert 0 < refused.value.retry_after <= 60
    assert runs == []


def test_a_lapsed_run_is_rerun_with_a_higher_fence(
    make: Make, store: Store, clock: MovableClock, patterns_events: CapturedEvents
) -> None:
    """A key whose worker was killed would be blocked for ever, or its late holder would overwrite."""
    runs: list[Any] = []
    task = make(counted(runs))
    record, begun = hold_elsewhere(store, task, "A", lease=10)
    clock.advance(10.1)
    mine = task.apply(("A",)).get()
    assert runs == ["A"]
    lapsed = patterns_events.of("lapsed", task)[0]
    assert lapsed.detail["holder"] == "other-id"
    assert lapsed.detail["fence"] > begun.fence
    assert record.complete(begun.fence, b'application/json utf-8\n"late"', 1_000).successor
    assert task.apply(("A",)).get() == mine


def test_a_lapsed_run_may_be_left_to_a_person(make: Make, store: Store, clock: MovableClock) -> None:
    """on_lapsed="hold" would rerun a payment of which nobody knows whether it was made."""
    runs: list[Any] = []
    task = make(counted(runs), on_lapsed="hold")
    hold_elsewhere(store, task, "A", lease=10)
    clock.advance(11)
    looks = []
    advance = clock.advance

    def advance_and_forget(by: float) -> None:
        advance(by)
        looks.append(by)
        if len(looks) == 2:
            assert find(task.app, "shop.charge:A").state == "lapsed"  # type: ignore[union-attr]
            assert forget(task.app, "shop.charge:A")

    clock.advance = advance_and_forget  # type: ignore[method-assign]
    with clock.waits_in_place():
        task.apply(("A",)).get()
    assert runs == ["A"]
    assert len(looks) == 2


def test_a_lapsed_run_may_be_refused(make: Make, store: Store, clock: MovableClock) -> None:
    """on_lapsed="dead_letter" would rerun or wait instead of failing where a person sees it."""
    task = make(counted([]), on_lapsed="dead_letter")
    hold_elsewhere(store, task, "A", lease=10)
    clock.advance(11)
    with pytest.raises(RunLapsed, match="other-id"):
        task.apply(("A",)).get()


def test_a_call_within_itself_is_refused(app: Celery) -> None:
    """An eager call that calls itself under its own key would wait for itself for ever."""

    @app.task(base=IdempotentTask, idempotency=Idempotency(key="order"), shared=False)
    def charge(order: str) -> Any:
        return charge.apply((order,)).get()

    with pytest.raises(IdempotencyInProgress, match="this very process"):
        charge.apply(("A",)).get()


def test_a_direct_call_is_the_body_alone(make: Make) -> None:
    """A direct call would be replayed, unlike any other direct call of a Celery task."""
    runs: list[Any] = []
    charge = make(counted(runs))
    charge("A")
    charge("A")
    assert runs == ["A", "A"]


def test_an_eager_call_may_have_any_id(make: Make) -> None:
    """Two eager calls with one task id would wait for each other's hand-over."""
    runs: list[Any] = []
    charge = make(counted(runs))
    results = [charge.apply(("A",), task_id="same").get() for _ in range(3)]
    assert results == [results[0]] * 3
    assert runs == ["A"]


def test_tasks_with_one_name_share_keys(make: Make) -> None:
    """Two tasks that do the same thing could not agree on what was done."""
    runs: list[Any] = []

    def other(order: Any, amount: int = 1) -> None:
        runs.append("other")

    charge, twin = make(counted(runs), name="payments"), make(other, name="payments")
    first = charge.apply(("A",)).get()
    assert twin.apply(("A",)).get() == first
    assert runs == ["A"]


def test_the_header_overrides_the_key(make: Make) -> None:
    """A caller who knows better which calls are the same would have no say."""
    runs: list[Any] = []
    charge = make(counted(runs))
    for order in ("A", "A"):
        charge.apply((order,), headers={"cp-key": "special"}).get()
    charge.apply(("A",)).get()
    assert runs == ["A", "A"]
    with pytest.raises(KeyArgumentError, match="cp-key"):
        charge.apply(("A",), headers={"cp-key": 7}).get()


def test_a_newer_record_is_refused(make: Make, store: Store) -> None:
    """Old code would misread what newer code wrote."""
    charge = make(counted([]))
    newer = {"owner": "a/b", "fence": "1", "until": "1", "of": "2 x"}
    store.client.hset('cp:idempotency:{shop.charge:"A"}', mapping=newer)
    with pytest.raises(StoreVersionError, match="newer version"):
        charge.apply(("A",)).get()


def test_a_store_that_is_away_may_be_an_error(app: Celery) -> None:
    """on_store_error="raise" would wait, or worse, go ahead blind."""
    runs: list[Any] = []
    with memory_store("redis://127.0.0.1:1/0"):
        charge = idempotent(key="order", on_store_error="raise")(app.task(shared=False)(counted(runs)))
        with pytest.raises(StoreUnavailable):
            charge.apply(("A",)).get()
    assert runs == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "key"),
        ({"key": ""}, "name an argument"),
        ({"key": 7}, "key=7"),
        ({"key": ()}, "one or more"),
        ({"key": "{}"}, "field"),
        ({"key": "{a!r}"}, "field"),
        ({"key": "a", "ttl": 0}, "ttl=0"),
        ({"key": "a", "ttl": "1h"}, "ttl='1h'"),
        ({"key": "a", "lease": -1}, "lease=-1"),
        ({"key": "a", "ttl": 1e18}, "at most 100 years"),
        ({"key": "a", "lease": True}, "lease=True"),
        ({"key": "a", "on_in_progress": "wait"}, "'defer', 'skip', 'raise'"),
        ({"key": "a", "on_lapsed": "ignore"}, "'rerun', 'hold', 'dead_letter'"),
        ({"key": "a", "on_store_error": "ignore"}, "'defer', 'raise'"),
        ({"key": "a", "max_result": -1}, "max_result=-1"),
        ({"key": "a", "name": ""}, "name=''"),
        ({"key": "a", "unknown": 1}, "unknown"),
    ],
)
def test_a_wrong_option_fails_when_declared(options: dict[str, Any], message: str) -> None:
    """A typo would be found by the customers."""
    with pytest.raises(TypeError, match=message):
        Idempotency(**options)


def test_a_key_that_the_task_does_not_have_fails_when_declared(make: Make) -> None:
    """A misspelt key would fail at the first call, in production."""
    with pytest.raises(PolicyError, match=r"'oder'.*order, amount"):
        make(counted([]), key="oder").name  # noqa: B018 - the task is made at its first use


@pytest.mark.parametrize("key", [lambda oder: oder, len, "order.", "order..id"])
def test_a_key_that_means_nothing_fails_when_declared(make: Make, key: Any) -> None:
    """A typo would make another key of each call, and no duplicate would be noticed."""
    with pytest.raises(PolicyError, match="charge"):
        make(counted([]), key=key).name  # noqa: B018 - the task is made at its first use


def test_a_callable_may_take_all_arguments(make: Make) -> None:
    """A key that depends on several arguments could not be computed."""
    runs: list[Any] = []
    charge = make(counted(runs), key=lambda arguments: arguments["order"].lower())
    assert charge.apply(("A",)).get() == charge.apply(("A",)).get()
    assert runs == ["A"]


def test_all_arguments_may_be_the_key(make: Make) -> None:
    """ALL_ARGS would tell apart what is the same, or not what differs."""
    runs: list[Any] = []
    charge = make(counted(runs), key=ALL_ARGS)
    for args in (("A",), ("A", 1), ("A", 2)):
        charge.apply(args).get()
    assert runs == ["A", "A"]


@pytest.mark.skipif(celery.__version__ < "5.7", reason="older Celery cannot publish models")
def test_a_model_may_be_published(app: Celery) -> None:
    """A call with a pydantic model would have no key at the producer, or another than at the worker."""
    runs: list[Any] = []

    class Order(BaseModel):
        number: str

    @app.task(base=IdempotentTask, idempotency=Idempotency(key="order"), pydantic=True, shared=False)
    def charge(order: Order) -> str:
        runs.append(order)
        return order.number

    app.conf.task_always_eager = True
    assert charge.delay(Order(number="A")).get() == charge.delay({"number": "A"}).get() == "A"
    assert len(runs) == 1
