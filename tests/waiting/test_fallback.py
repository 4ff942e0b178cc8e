"""Where there is no waiting room, calls wait as they always did."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from celery_patterns import TokenBucket, TokenBucketTask
from celery_patterns.core.store import Store, store_of
from celery_patterns.errors import PolicyError
from celery_patterns.testing import CapturedEvents, MovableClock
from celery_patterns.waiting import lookout
from celery_patterns.waiting.broker import room_of
from celery_patterns.waiting.room import Room
from tests.apps.witness import alone
from tests.ground.inline import InlineWorker, inline_app


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with alone():
        yield


@pytest.fixture
def clock(store: Store) -> Iterator[MovableClock]:
    clock = MovableClock(store)
    with clock.waits_in_place():
        yield clock


@pytest.fixture
def app() -> Iterator[Celery]:
    yield inline_app()
    lookout._looked.clear()


def lead(room: Room) -> None:
    """Have a pump lead, however slow the machine is."""
    assert room.release("pump", (), 0).leads
    room.store.client.persist(room.key("room-leader"))


def limited(app: Celery, runs: list[int]) -> Any:
    @app.task(
        base=TokenBucketTask, token_bucket=TokenBucket("1/s", name="slow"), name="shop.limited", shared=False
    )
    def run(number: int) -> int:
        runs.append(number)
        return number

    return run


def test_without_a_pump_a_call_waits_as_a_countdown(
    app: Celery, store: Store, clock: MovableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A task would be parked for nobody to release."""
    runs: list[int] = []
    task, worker = limited(app, runs), InlineWorker(app, clock)
    for number in range(3):
        task.delay(number)
    assert not list(store.client.scan_iter(match="cp:room*"))
    worker.run()
    assert sorted(runs) == [0, 1, 2]
    assert not list(store.client.scan_iter(match="cp:room*"))
    assert caplog.text.count("No pump serves") == 1, "said once"


def test_with_a_pump_a_call_is_parked(app: Celery, store: Store, clock: MovableClock) -> None:
    """The room would never be used."""
    runs: list[int] = []
    task, worker = limited(app, runs), InlineWorker(app, clock)
    lead(room_of(app))
    for number in range(3):
        task.delay(number)
    worker.run()
    assert runs == [0]
    assert room_of(app).length("slow:") == 2


def test_switched_off_a_call_waits_as_a_countdown(app: Celery, store: Store, clock: MovableClock) -> None:
    """The setting would do nothing."""
    app.conf.patterns_waiting_room = False
    runs: list[int] = []
    task, worker = limited(app, runs), InlineWorker(app, clock)
    lead(room_of(app))
    for number in range(2):
        task.delay(number)
    assert room_of(app).length("slow:") == 0
    worker.run()
    assert runs == [0, 1]


def test_the_pump_of_another_broker_is_none(app: Celery, store: Store, clock: MovableClock) -> None:
    """A task would be released to a broker where nobody knows it."""
    runs: list[int] = []
    task, worker = limited(app, runs), InlineWorker(app, clock)
    lead(Room(store, "amqp://elsewhere"))
    for number in range(2):
        task.delay(number)
    worker.run()
    assert runs == [0, 1]


def test_eager_calls_wait_in_place(
    app: Celery, store: Store, clock: MovableClock, patterns_events: CapturedEvents
) -> None:
    """An eager test would hang, or its task be parked where no worker is."""
    runs: list[int] = []
    task = limited(app, runs)
    lead(room_of(app))
    app.conf.task_always_eager = True
    for number in range(2):
        assert task.delay(number).get() == number
        assert task.apply((number,)).get() == number
    assert runs == [0, 0, 1, 1]
    assert not patterns_events.of("parked")


def test_direct_calls_ask_nobody(app: Celery, store: Store) -> None:
    """Plain Python would need a store."""
    runs: list[int] = []
    task = limited(app, runs)
    lead(room_of(app))
    assert [task(1), task(2)] == [1, 2]
    assert not list(store.client.scan_iter(match="cp:limit:*"))


def test_an_app_without_a_store_publishes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer that needs no store otherwise would fail, or its worker not start."""
    app = inline_app()
    with pytest.raises(PolicyError):
        store_of(app)
    task = limited(app, [])
    assert task.delay(1).id
    assert not lookout.has_pump(app)


def test_an_unreachable_store_does_not_keep_a_producer(caplog: pytest.LogCaptureFixture) -> None:
    """A web process would fail, or wait at each call, while the store is away."""
    app = inline_app(patterns_url="redis://127.0.0.1:1/0")
    task = limited(app, [])
    assert task.delay(1).id
    assert task.delay(2).id
    assert caplog.text.count("it is published and asks when it starts") == 1
    assert not lookout.has_pump(app)
