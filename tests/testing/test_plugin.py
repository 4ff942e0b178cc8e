"""What projects get for their own tests: a store, a clock that moves, events, two assertions."""

import inspect
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery

from celery_patterns import Event, Idempotency, IdempotentTask
from celery_patterns.core import postpone
from celery_patterns.core.events import emit
from celery_patterns.core.keys import KeyMaker
from celery_patterns.core.store import Store, store_of
from celery_patterns.policies.idempotency.record import Record, Started
from celery_patterns.testing import (
    CapturedEvents,
    MovableClock,
    assert_deferred,
    assert_replayed,
    capture,
    memory_store,
)

pytest_plugins = ["pytester"]


@pytest.fixture
def app() -> Celery:
    """A project's app, whose settings name servers that no test should reach."""
    return Celery("shop", broker="redis://production/0", backend="redis://production/1")


@pytest.fixture
def charge(app: Celery) -> Any:
    """A project's task."""

    @app.task(
        base=IdempotentTask, idempotency=Idempotency(key="order", lease=60), name="shop.charge", shared=False
    )
    def charge(order: int, amount: int = 1) -> str:
        return f"charged {order} at {time.monotonic()}"

    return charge


def running_elsewhere(store: Store, charge: Any, order: int) -> None:
    """Another process begins the task, and is never heard of again."""
    maker = KeyMaker("order", charge.name, inspect.signature(charge.run), "json")
    arguments = maker.bind((order,), {})
    record = Record(
        store=store,
        key=store.key("idempotency", charge.name, maker.key(arguments, serialised=False)),
        owner="elsewhere/1",
        fingerprint=maker.fingerprint(arguments, serialised=False),
        attempt=0,
    )
    begun = record.begin(lease=60, ttl=600, on_lapsed="rerun", claim=60)
    assert isinstance(begun, Started)


# --- the store -------------------------------------------------------------------------------------------


def test_all_apps_use_the_tests_store(patterns_store: Store, app: Celery, charge: Any) -> None:
    """A project's tests would write to the server in its settings."""
    assert store_of(app) is patterns_store is store_of(Celery("another"))
    assert charge.apply((1,)).get() == charge.apply((1,)).get()
    assert patterns_store.client.keys()


def test_the_next_test_has_an_empty_store(patterns_store: Store) -> None:
    """The outcome of a test would depend on those before it (see the one above)."""
    assert not patterns_store.client.keys()


def test_without_the_fixture_an_app_keeps_its_own_store(app: Celery) -> None:
    """One test's store would stay for all that follow."""
    assert store_of(app).url == "redis://production/1"


def test_the_store_also_works_without_pytest(app: Celery, redis_url: str) -> None:
    """Projects that use unittest could not test with it; nor against a real server."""
    with memory_store() as one, memory_store() as inner:
        assert store_of(app) is inner
        inner.client.set("key", "value")
        assert one.client.get("key") is None
    with memory_store(redis_url) as real:
        assert real.url == redis_url
        assert real.client.ping()
    assert store_of(app).url == "redis://production/1"


# --- the clock -------------------------------------------------------------------------------------------


def test_what_expires_does_so_when_the_clock_moves(store_url: str) -> None:
    """A test of what happens tomorrow would have to wait until then."""
    store, other = Store(store_url), Store(store_url, prefix="other")
    clock = MovableClock(store)
    store.client.set("cp:a", 1, px=10_000)
    store.client.set("cp:b", 1, px=20_000)
    store.client.set("cp:stays", 1)
    other.client.set("other:a", 1, px=10_000)
    clock.advance(9)
    clock.advance(timedelta(seconds=2))
    assert {*store.client.keys()} == {b"cp:clock", b"cp:b", b"cp:stays", b"other:a"}
    assert 8_000 < store.client.pttl("cp:b") <= 9_000
    assert 8_000 < other.client.pttl("other:a") <= 10_000
    store.close()


def test_leases_and_results_end_when_the_clock_moves(
    patterns_store: Store, patterns_clock: MovableClock, charge: Any, patterns_events: CapturedEvents
) -> None:
    """The clock would move what Redis expires, and not what the scripts compare, or the reverse."""
    running_elsewhere(patterns_store, charge, 1)
    patterns_clock.advance(61)
    first = charge.apply((1,)).get()
    assert [event.kind for event in patterns_events] == ["lapsed"]
    patterns_clock.advance(timedelta(hours=23))
    assert charge.apply((1,)).get() == first
    patterns_clock.advance(timedelta(hours=2))
    assert charge.apply((1,)).get() != first


def test_the_clock_runs_on_by_itself(
    patterns_store: Store, patterns_clock: MovableClock, wait_for: Any
) -> None:
    """A body that waits for a lease to lapse would wait for ever."""
    patterns_clock.advance(10)
    moved = patterns_store.now()
    assert moved > time.time() + 9
    wait_for(lambda: patterns_store.now() > moved)


def test_the_clock_does_not_go_back(patterns_clock: MovableClock) -> None:
    """What has expired would be awaited again, and never come back."""
    with pytest.raises(ValueError, match="negative"):
        patterns_clock.advance(-1)


def test_a_call_that_is_put_off_moves_the_clock(
    patterns_store: Store, patterns_clock: MovableClock, charge: Any
) -> None:
    """A test of a deferral would sleep for as long as the lease lasts."""
    running_elsewhere(patterns_store, charge, 1)
    begun, begun_there = time.monotonic(), patterns_store.now()
    with assert_deferred(charge) as events:
        assert charge.apply((1,)).get().startswith("charged 1")
    assert time.monotonic() - begun < 20
    assert patterns_store.now() - begun_there > 55
    assert sum(event.detail["delay"] for event in events.of("deferred")) > 55


def test_sleep_is_itself_again_after_the_test() -> None:
    """Eager calls outside of tests would no longer wait (see the one above)."""
    assert postpone.sleep is time.sleep


# --- events and assertions -------------------------------------------------------------------------------


def test_events_are_captured_while_the_test_runs(patterns_events: CapturedEvents) -> None:
    """A test could not see what the library did; or see what it did to another test."""
    emit(Event(kind="replayed", policy="idempotency", task="shop.charge"))
    with capture() as inner:
        emit(Event(kind="skipped", policy="idempotency", task="shop.charge"))
    emit(Event(kind="replayed", policy="idempotency", task="shop.refund"))
    assert [event.kind for event in patterns_events] == ["replayed", "skipped", "replayed"]
    assert [event.kind for event in inner] == ["skipped"]


def test_captured_events_are_picked_by_kind_and_task(charge: Any) -> None:
    """A test of one task would count what happened to another."""
    events = CapturedEvents(
        Event(kind=kind, policy="idempotency", task=task)
        for kind, task in [
            ("replayed", "shop.charge"),
            ("replayed", "shop.refund"),
            ("skipped", "shop.charge"),
        ]
    )
    assert len(events.of("replayed")) == 2
    assert events.of("replayed", charge) == events.of("replayed", "shop.charge") == [events[0]]


def test_events_of_other_threads_are_captured(patterns_events: CapturedEvents) -> None:
    """What a renewal thread, or a worker in a thread of the test, did would be missed."""
    thread = threading.Thread(target=emit, args=(Event(kind="lapsed", policy="x", task="t"),))
    thread.start()
    thread.join()
    assert [event.kind for event in patterns_events] == ["lapsed"]


@pytest.mark.parametrize("times", [None, 2])
def test_a_replay_is_asserted(times: int | None, patterns_store: Store, charge: Any) -> None:
    """A project could not prove that its duplicates are caught."""
    charge.apply((1,))
    with assert_replayed(charge, times=times) as events:
        charge.apply((1,))
        charge.apply((), {"order": 1, "amount": 1})
    assert len(events.of("replayed")) == 2


@pytest.mark.parametrize(
    ("calls", "whose", "times", "message"),
    [
        (
            1,
            "shop.charge",
            None,
            r"shop\.charge to be replayed at least once.* saw it 0 times: no event at all",
        ),
        (3, "shop.charge", 1, r"replayed 1 times.* saw it 2 times: replayed shop\.charge, replayed"),
        (2, "shop.charge", 0, r"replayed 0 times.* saw it 1 times"),
        (2, "shop.refund", None, r"shop\.refund to be replayed.* saw it 0 times: replayed shop\.charge"),
        (1, None, None, r"a task to be replayed at least once"),
    ],
)
@pytest.mark.usefixtures("patterns_store")
def test_a_replay_that_did_not_happen_fails_and_tells_what_did(
    calls: int, whose: str | None, times: int | None, message: str, charge: Any
) -> None:
    """A test would pass although the pattern does not work; or fail and not say why."""
    with pytest.raises(AssertionError, match=message), assert_replayed(whose, times=times):
        [charge.apply((7,)) for _ in range(calls)]


@pytest.mark.usefixtures("patterns_store")
def test_a_deferral_that_did_not_happen_fails(charge: Any) -> None:
    """A test would pass although nothing was put off."""
    with pytest.raises(AssertionError, match=r"shop\.charge to be deferred"), assert_deferred(charge):
        charge.apply((1,))


@pytest.mark.parametrize("asserts", [assert_replayed, assert_deferred])
def test_an_error_inside_is_told_before_what_is_missing(asserts: Callable[..., Any]) -> None:
    """The cause of a failure would be hidden behind its consequence."""
    with pytest.raises(ZeroDivisionError), asserts():
        _ = 1 / 0


# --- in a project of its own -----------------------------------------------------------------------------

PROJECT = """
    import pytest
    from celery import Celery
    from celery_patterns import Idempotency, IdempotentTask, idempotent, subscribe
    from celery_patterns.testing import assert_deferred, assert_replayed

    app = Celery("shop", broker="redis://production/0", set_as_current=False)
    charged = []

    @idempotent(key="order")
    @app.task
    def charge(order):
        charged.append(order)
        return f"charged {order}"

    def test_a_duplicate_is_replayed(patterns_store):
        assert charge.apply((1,)).get() == "charged 1"
        with assert_replayed(charge, times=1):
            assert charge.apply((1,)).get() == "charged 1"
        assert charged == [1]

    def test_the_store_is_empty_again(patterns_store):
        charge.apply((1,)).get()
        assert charged == [1, 1]

    def test_a_day_later_it_runs_again(patterns_clock, patterns_events):
        charge.apply((2,)).get()
        patterns_clock.advance(86_401)
        charge.apply((2,)).get()
        assert charged[-2:] == [2, 2]
        assert not patterns_events.of("replayed")

    def test_that_fails(patterns_store):
        with assert_deferred(charge):
            charge.apply((3,)).get()
"""


def test_a_project_has_it_all_by_installing_the_package(pytester: pytest.Pytester) -> None:
    """Users would have to find out what to import into their conftest."""
    pytester.makepyfile(inspect.cleandoc(PROJECT))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-q")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        ["*AssertionError: expected *charge to be deferred at least once, but saw it 0 times*"]
    )


def test_a_projects_fixtures_are_described(pytester: pytest.Pytester) -> None:
    """`pytest --fixtures` is where users look first."""
    result = pytester.runpytest_inprocess("--fixtures", "-q", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines_random(
        ["patterns_store*", "*An empty in-memory store*", "patterns_clock*", "patterns_events*"]
    )


def test_the_plugin_alone_imports_neither_celery_nor_redis() -> None:
    """Every test run would pay for it, and coverage would miss what was imported that early."""
    asked = "import sys, celery_patterns.testing.plugin; print({'celery', 'redis'} & {*sys.modules})"
    ran = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
