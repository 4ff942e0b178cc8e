"""Calls on their way through the gate: one, a whole group, and when an answer is lost."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from celery import Celery, chord, group

from celery_patterns import TokenBucket, TokenBucketTask
from celery_patterns.core.store import Store
from celery_patterns.errors import StoreUnavailable
from celery_patterns.testing import MovableClock
from celery_patterns.waiting import gate, lookout
from celery_patterns.waiting.answers import Entry
from celery_patterns.waiting.broker import room_of
from celery_patterns.waiting.room import Room
from tests.apps.witness import alone
from tests.ground.inline import InlineWorker, inline_app


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with alone():
        yield


@pytest.fixture
def worker(store: Store) -> Iterator[InlineWorker]:
    """A worker, a pump that leads, and a limit of three at once."""
    clock = MovableClock(store)
    with clock.waits_in_place():
        worker = InlineWorker(inline_app(), clock)
        room = room_of(worker.app)
        assert room.release("pump", (), 0).leads
        store.client.persist(room.key("room-leader"))  # however slow the machine is
        yield worker
        lookout._looked.clear()
        gate._shut.clear()


def limited(app: Celery, runs: list[int]) -> Any:
    bucket = TokenBucket("1/h", burst=3, name="slow")

    @app.task(base=TokenBucketTask, token_bucket=bucket, name="shop.limited", shared=False)
    def run(number: int) -> int:
        runs.append(number)
        return number

    return run


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many calls were asked for in each round trip."""
    sizes: list[int] = []
    enter_all = Room.enter_all

    def counting(room: Room, entries: Sequence[Entry]) -> Any:
        sizes.append(len(entries))
        return enter_all(room, entries)

    monkeypatch.setattr(Room, "enter_all", counting)
    return sizes


def test_a_group_goes_through_in_chunks(worker: InlineWorker, asked: list[int]) -> None:
    """A group of 10,000 would take as many round trips, or lose those of its last chunk."""
    runs: list[int] = []
    task = limited(worker.app, runs)
    found = group(task.s(number) for number in range(250)).apply_async()
    assert len(found) == 250
    assert asked == [100, 100, 50]
    assert room_of(worker.app).length("slow:") == 247
    worker.run()
    assert runs == [0, 1, 2]


def test_the_calls_of_a_chord_do_as_well(worker: InlineWorker, asked: list[int]) -> None:
    """A chord's header would wait for as many answers as it has parts."""
    task = limited(worker.app, [])

    @worker.app.task(name="shop.body", shared=False)
    def body(results: list[int]) -> int:
        return len(results)

    chord([task.s(number) for number in range(120)], app=worker.app)(body.s())
    assert asked == [100, 20]


def test_what_was_called_before_a_call_failed_is_sent(worker: InlineWorker) -> None:
    """Calls that were made would be lost with the one that could not be."""
    runs: list[int] = []
    task = limited(worker.app, runs)

    def calls() -> Iterator[Any]:
        yield task.s(1)
        yield task.s(object())

    with pytest.raises(Exception, match="serializable"):
        group(list(calls())).apply_async()
    worker.run()
    assert runs == [1]


def losing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls come into the room, and nobody is told."""
    enter_all = Room.enter_all

    def lost(room: Room, entries: Sequence[Entry]) -> Any:
        enter_all(room, entries)
        raise StoreUnavailable("the answer is lost")

    monkeypatch.setattr(Room, "enter_all", lost)


def test_a_lost_answer_at_the_gate_makes_no_second_run(
    worker: InlineWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that was parked is published as well, and would run twice."""
    runs: list[int] = []
    task = limited(worker.app, runs)
    room = room_of(worker.app)
    assert [task.delay(number).id for number in range(3)]
    with monkeypatch.context() as patch:
        losing_answers(patch)
        task.delay(3)
    assert room.length("slow:") == 1
    worker.run()
    assert sorted(runs) == [0, 1, 2]
    assert room.length("slow:") == 1, "it is parked once, by the worker"
    assert len(room.release("pump", (), 10).releases) == 0


def test_a_lost_answer_at_the_worker_makes_no_second_run(
    worker: InlineWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that was parked waits as a countdown as well, and would run twice."""
    worker.app.conf.patterns_gate = False
    runs: list[int] = []
    task = limited(worker.app, runs)
    room = room_of(worker.app)
    for number in range(4):
        task.delay(number)
    with monkeypatch.context() as patch:
        losing_answers(patch)
        for message in worker.take():
            worker.deliver(message)
        worker.waiting.clear()
    assert room.length("slow:") == 1
    room.store.client.delete(room.key("limit", "slow:"))  # there are tokens again
    worker.run()
    assert sorted(runs) == [0, 1, 2, 3]
    assert room.length("slow:") == 0
