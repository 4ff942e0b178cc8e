"""Whose a room is: what waits for one broker must never reach another."""

from typing import Any

import pytest
from celery import Celery

from celery_patterns.core.parking import Spot
from celery_patterns.core.store import Store
from celery_patterns.waiting.answers import Parked
from celery_patterns.waiting.broker import broker_of, transport_of
from celery_patterns.waiting.parcel import Parcel
from celery_patterns.waiting.queues import release_queues
from celery_patterns.waiting.room import Room

WHERE = Spot(line="x|y")


def app_on(url: Any, **options: Any) -> Celery:
    app = Celery("shop", broker=url, set_as_current=False)
    app.conf.broker_transport_options = options
    return app


def enter(room: Room, name: str = "a") -> Any:
    parcel = Parcel(body=b"", content_type="", content_encoding="", headers={"id": name})
    return room.enter(parcel, id=name, spot=WHERE, wait=60)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("redis://:secret@cache/", "redis://cache:6379/0"),
        ("amqp://web:a@mq//", "pyamqp://worker:b@mq:5672/%2F"),
        ("amqp://a;amqp://b", "amqp://b;amqp://a"),
        ("redis://a", ["redis://a"]),
    ],
)
def test_one_broker_is_known_under_all_its_urls(one: Any, other: Any) -> None:
    """Producers and workers that write its URL in other ways would have no room in common."""
    assert broker_of(app_on(one)) == broker_of(app_on(other))
    assert "secret" not in broker_of(app_on(one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("redis://cache/0", "redis://cache/1"),
        ("amqp://mq/shop", "amqp://mq/test"),
        ("redis://a", "redis://b"),
        ("redis://a", "amqp://a"),
    ],
)
def test_two_brokers_are_told_apart(one: str, other: str) -> None:
    """A task would be published where no worker knows it."""
    assert broker_of(app_on(one)) != broker_of(app_on(other))
    assert broker_of(app_on(one, global_keyprefix="a")) != broker_of(app_on(one))


def test_a_pump_leaves_alone_what_is_for_another_broker(store: Store) -> None:
    """Two apps that share a store and a prefix would get each other's tasks."""
    mine, theirs = Room(store, "amqp://mine"), Room(store, "amqp://theirs")
    assert mine.release("mine", (), 10).leads
    assert isinstance(enter(mine), Parked)
    mine.resign("mine")
    turn = theirs.release("theirs", (), 10)
    assert not turn.leads
    assert turn.broker == "amqp://mine"
    assert mine.release("mine", (), 10).leads


def test_calls_for_another_broker_do_not_come_in(store: Store) -> None:
    """They would be published to the broker of whoever leads."""
    mine, theirs = Room(store, "amqp://mine"), Room(store, "amqp://theirs")
    assert mine.release("mine", (), 10).leads
    assert mine.has_pump()
    assert not theirs.has_pump()
    assert enter(theirs) is None


def test_an_empty_room_is_anybodys(store: Store) -> None:
    """An app that moves to another broker would have no waiting room any more."""
    assert Room(store, "amqp://old").release("old", (), 10).leads
    Room(store, "amqp://old").resign("old")
    assert Room(store, "amqp://new").release("new", (), 10).leads


def test_what_waits_can_be_moved_with_its_broker(store: Store) -> None:
    """What waits while the broker moves would wait for ever."""
    old, new = Room(store, "amqp://old"), Room(store, "amqp://new")
    old.release("old", (), 10)
    enter(old)
    new.adopt()
    assert not old.release("old", (), 10).leads
    old.resign("old")
    assert new.release("new", (), 10).leads
    assert new.cancel(["a"]) == 1
    assert [one.id for one in new.release("new", (), 10).releases] == ["a"]


def test_release_queues_are_only_where_a_queue_is_there_by_being_named() -> None:
    """A worker on SQS would not start, since it may not make queues."""
    assert transport_of(app_on("sqs://")) == "sqs"
    assert release_queues(app_on("sqs://"), "cp") == []
    for url in ("redis://", "amqp://", "sentinel://a"):
        assert [one.name for one in release_queues(app_on(url), "cp")] == ["celery.cp.released"]
