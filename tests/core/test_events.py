"""Events: told to every subscriber, in order, and never at the task's cost."""

import logging
import pickle
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from celery_patterns import Event, subscribe
from celery_patterns.core import events as module
from celery_patterns.core.events import emit

EVENT = Event(kind="replayed", policy="idempotency", task="shop.charge", task_id="1", key="shop.charge:42")


@pytest.fixture(autouse=True)
def _only_mine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules of tasks that other tests have imported subscribe as well."""
    monkeypatch.setattr(module, "_subscribers", ())
    yield
    assert module._subscribers == (), "a test has left a subscriber behind"


def test_every_subscriber_is_told_in_order() -> None:
    """Metrics would count what the audit log does not hold."""
    told: list[Any] = []
    stops = [subscribe(lambda event, name=name: told.append((name, event))) for name in "abc"]
    emit(EVENT)
    assert told == [("a", EVENT), ("b", EVENT), ("c", EVENT)]
    for stop in stops:
        stop()


def test_an_unsubscribed_one_is_not_told() -> None:
    """A test's subscriber would stay, and see the events of all later tests."""
    told: list[Event] = []
    stop = subscribe(told.append)
    stop()
    stop()
    emit(EVENT)
    assert told == []


def test_a_subscriber_may_unsubscribe_while_it_is_told() -> None:
    """One that waits for a single event would skip its neighbour's."""
    told: list[str] = []

    def once(_: Event) -> None:
        told.append("once")
        stops[0]()

    stops = [subscribe(once), subscribe(lambda _: told.append("always"))]
    emit(EVENT)
    emit(EVENT)
    assert told == ["once", "always", "always"]
    stops[1]()


def test_a_subscriber_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A mistake in somebody's metrics would fail payments, or hide them from the audit log."""
    told: list[Event] = []

    def broken(_: Event) -> None:
        raise RuntimeError("no metrics today")

    stops = [subscribe(broken), subscribe(told.append)]
    with caplog.at_level(logging.ERROR, "celery_patterns"):
        emit(EVENT)
    assert told == [EVENT]
    assert "no metrics today" in caplog.text
    assert "'replayed'" in caplog.text
    for stop in stops:
        stop()


def test_an_interruption_is_not_swallowed() -> None:
    """A worker that is told to end while a subscriber runs would go on."""

    def interrupted(_: Event) -> None:
        raise SystemExit(1)

    stop = subscribe(interrupted)
    with pytest.raises(SystemExit):
        emit(EVENT)
    stop()


def test_an_event_is_a_value() -> None:
    """One subscriber could change what the next one sees; events could not be sent to another process."""
    with pytest.raises(FrozenInstanceError):
        EVENT.kind = "skipped"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(EVENT)) == EVENT
    assert Event(kind="a", policy="b", task="c").detail == {}
