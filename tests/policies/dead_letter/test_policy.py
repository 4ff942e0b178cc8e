"""Dead letters in eager mode, and each delivery by itself: what runs, what is kept, what is counted."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, Task

from celery_patterns import (
    DeadLetter,
    DeadLetterMixin,
    DeadLetters,
    DeadLetterTask,
    Idempotency,
    IdempotentTask,
    PolicyError,
    dead_letter,
)
from celery_patterns.core.store import Store
from celery_patterns.deadletters import deliveries
from celery_patterns.deadletters.store import begin
from celery_patterns.errors import StoreVersionError
from celery_patterns.testing import CapturedEvents, MovableClock, capture, memory_store

FIRST_FORMAT = Path(__file__).parent / "entry_v1.json"


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with memory_store(store_url) as store:
        yield store


@pytest.fixture
def app(store: Store) -> Celery:
    return Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)


@pytest.fixture
def desk(app: Celery) -> DeadLetters:
    return DeadLetters(app)


@pytest.fixture
def events() -> Iterator[CapturedEvents]:
    with capture() as events:
        yield events


def failing(order: str, items: list[str] | None = None) -> None:
    if items is not None:
        items.append("spoilt")
    raise ValueError(order)


def test_a_failure_is_kept_as_it_was_sent(app: Celery, desk: DeadLetters, events: CapturedEvents) -> None:
    """What the body did to its arguments would be replayed."""
    task = app.task(base=DeadLetterTask, name="shop.fail")(failing)
    with pytest.raises(ValueError, match="A"):
        task.apply(("A",), {"items": []}).get()
    (entry,) = desk.list().entries
    assert entry.letter.decoded(app)[:2] == (["A"], {"items": []})
    assert (entry.task, entry.exception, entry.message, entry.deaths) == ("shop.fail", "ValueError", "A", 1)
    assert entry.where == ("test_policy.py:failing",)
    assert "raise ValueError(order)" in entry.traceback
    (event,) = events.of("dead_lettered")
    assert (event.key, event.detail["source"], event.detail["state"]) == (entry.id, "failed", "open")


def test_what_does_not_fail_is_not_kept(app: Celery, desk: DeadLetters) -> None:
    """Every task would be a dead letter."""

    @app.task(base=DeadLetterTask)
    def task() -> int:
        return 7

    assert task.apply().get() == 7
    assert not any(desk.counts().values())


def test_all_ways_to_write_it_are_one(app: Celery, desk: DeadLetters) -> None:
    """A spelling would silently keep nothing."""

    class Payment(IdempotentTask, DeadLetterMixin):
        abstract = True
        idempotency = Idempotency(key="order")
        dead_letter = DeadLetter("payments")

    decorated = dead_letter("mail")(app.task(name="shop.decorated")(failing))
    mixed = app.task(base=Payment, name="shop.mixed")(failing)
    based = app.task(base=DeadLetterTask, name="shop.based")(failing)
    for task in (decorated, mixed, based):
        with pytest.raises(ValueError, match="A"):
            task.apply(("A",)).get()
    assert {one.task: one.queue for one in desk.list().entries} == {
        "shop.decorated": "mail",
        "shop.mixed": "payments",
        "shop.based": "dead",
    }
    assert all(task.acks_late and task.reject_on_worker_lost for task in (decorated, mixed, based))


def test_a_mixin_on_a_plain_task_fails_when_declared() -> None:
    """A task would look as if its failures were kept."""
    with pytest.raises(PolicyError, match="DeadLetterTask"):
        type("Payment", (DeadLetterMixin, Task), {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue": ""}, "queue=''"),
        ({"queue": failing}, "@dead_letter"),
        ({"retention": 0}, "retention=0"),
        ({"max_deliveries": 0}, "max_deliveries=0"),
        ({"max_deliveries": True}, "max_deliveries=True"),
        ({"redact": "card"}, "redact='card'"),
    ],
)
def test_a_wrong_option_fails_when_declared(options: dict[str, Any], message: str) -> None:
    """A typo would be found by whoever needs the entry."""
    with pytest.raises(PolicyError, match=message):
        DeadLetter(**options)


def test_an_eager_failure_without_a_store_is_only_logged(
    app: Celery, events: CapturedEvents, caplog: pytest.LogCaptureFixture
) -> None:
    """An eager call has no broker to keep it, and must not hang or change its error for that."""
    task = app.task(base=DeadLetterTask, name="shop.fail")(failing)
    with memory_store("redis://127.0.0.1:1/0"), pytest.raises(ValueError, match="A"):
        task.apply(("A",)).get()
    assert events.of("unstored")
    assert '["A"]' in caplog.text


def vanish(app: Celery, delivery: str, most: int = 3) -> deliveries.Sign:
    """Begin a body, and have its process stop without a word."""
    sign = deliveries.begin(app, "t", delivery, most)
    assert isinstance(sign, deliveries.Sign)
    deliveries.keeper.drop(sign)
    return sign


def test_only_deliveries_that_vanished_are_counted(app: Celery, store: Store) -> None:
    """A task that merely takes longer than the broker waits would be taken for poison."""
    clock = MovableClock(store)
    living = vanish(app, "t/living", 9)
    for n in range(3):
        vanish(app, f"t/{n}", 9)
    clock.advance(deliveries.LIFE * 0.8)
    assert living.renew()
    clock.advance(deliveries.LIFE * 0.8)
    assert deliveries.begin(app, "t", "t/9", 3) == deliveries.Poison(3)
    begun = deliveries.begin(app, "t", "t/9", 5)
    assert isinstance(begun, deliveries.Sign)
    deliveries.end(app, "t", begun.owner, begun)
    assert living.renew(), "another delivery's end says nothing of this one"
    assert isinstance(vanish(app, "t/10", 2), deliveries.Sign), "a reported end resets the count"


def test_who_cannot_tell_whether_another_lives_waits(app: Celery, store: Store) -> None:
    """A task could kill any number of workers that are restarted within seconds."""
    clock = MovableClock(store)
    sign = vanish(app, "t/1")
    vanish(app, "t/2")
    clock.advance(1)
    vanish(app, "t/3")
    unsure = deliveries.begin(app, "t", "t/4", 3)
    assert isinstance(unsure, deliveries.Unsure)
    assert unsure.seconds == pytest.approx(deliveries.LIFE - 1, abs=0.5)
    assert sign.renew()
    clock.advance(unsure.seconds)
    assert isinstance(deliveries.begin(app, "t", "t/4", 3), deliveries.Unsure), "one of them lives"
    clock.advance(deliveries.LIFE)
    assert deliveries.begin(app, "t", "t/4", 3) == deliveries.Poison(3)


def test_a_lost_process_counts_at_once_if_its_body_had_begun(app: Celery) -> None:
    """A task could kill ten workers before its first sign runs out, or be counted while it waits."""
    deliveries.lost(app, "t", "t/0")
    for n in (1, 2):
        vanish(app, f"t/{n}", 2)
        deliveries.lost(app, "t", f"t/{n}")
    assert deliveries.begin(app, "t", "t/3", 2) == deliveries.Poison(2)


def test_a_delivery_that_begins_again_in_another_process_is_counted(app: Celery) -> None:
    """A child that dies at once may do so before the worker knows that it began, which gives its job away."""
    assert isinstance(vanish(app, "t/1", 2), deliveries.Sign)
    assert isinstance(vanish(app, "t/1", 2), deliveries.Sign)
    assert deliveries.begin(app, "t", "t/1", 2) == deliveries.Poison(2)


def test_entries_of_the_first_format_are_read(app: Celery, desk: DeadLetters) -> None:
    """After an upgrade, the entries of yesterday would be unreadable."""
    _restore(desk, json.loads(FIRST_FORMAT.read_text()))
    entry = desk.get("8b1f")
    assert (entry.task, entry.exception, entry.deaths, entry.state) == (
        "shop.charge",
        "ConnectionError",
        2,
        "open",
    )
    assert entry.letter.decoded(app)[:2] == (["A-17"], {"amount": 4200})
    assert [one.exception for one in entry.attempts] == ["TimeoutError"]
    assert [note.what for note in entry.history] == ["died", "died"]
    assert [one.count for one in desk.groups()] == [1]
    assert begin(app, "8b1f", 0) is not True


def test_entries_of_a_newer_format_are_refused(app: Celery, desk: DeadLetters) -> None:
    """Old code would read something else than new code wrote."""
    stored = json.loads(FIRST_FORMAT.read_text())
    stored["entry"]["v"] = base64.b64encode(b"2").decode()
    _restore(desk, stored)
    with pytest.raises(StoreVersionError, match="newer version"):
        desk.get("8b1f")


def _restore(desk: DeadLetters, stored: dict[str, Any]) -> None:
    """Put an entry into the store as the first version wrote it."""
    root, client = desk.query.root, desk.store.client
    key = f"{root}:entry:{stored['id']}"
    client.hset(key, mapping={name: base64.b64decode(value) for name, value in stored["entry"].items()})
    client.rpush(f"{key}:history", *stored["history"])
    client.hset(f"{root}:causes", mapping=stored["causes"])
    for index, died in stored["indexes"].items():
        client.zadd(f"{root}:{index}", {stored["id"]: died})
