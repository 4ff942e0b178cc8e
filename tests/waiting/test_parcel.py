"""Messages on their way into the room."""

from typing import Any

import pytest
from celery import Celery
from kombu.serialization import loads

from celery_patterns.waiting.parcel import CapturingProducer, Parcel


@pytest.fixture
def app() -> Celery:
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.task_compression = "gzip"
    return app


def captured(app: Celery, **options: Any) -> Parcel:
    """The parcel of a task that is sent with these options."""
    found = []

    @app.task(name="shop.echo")
    def echo(x: Any) -> Any:
        return x

    with app.connection_for_write() as connection:
        producer = CapturingProducer(
            connection, lambda body, how: found.append(Parcel.of_publication(body, how, "json"))
        )
        echo.apply_async(({"é": 1},), producer=producer, **options)
    (parcel,) = found
    return Parcel.of_stored(parcel.head().encode(), parcel.body)


def test_a_parcel_has_all_of_a_message(app: Celery) -> None:
    """A task would lose its priority, its headers, its route or its identity in the room."""
    parcel = captured(
        app,
        task_id="one",
        queue="mails",
        priority=3,
        headers={"tenant": "eu"},
        serializer="pickle",
        link=app.signature("next"),
    )
    assert (parcel.exchange, parcel.routing_key) == ("", "mails")
    assert parcel.headers["tenant"] == "eu"
    assert parcel.headers["id"] == parcel.properties["correlation_id"] == "one"
    assert parcel.properties["priority"] == 3
    assert parcel.content_type == "application/x-python-serialize"
    assert parcel.headers["compression"] == "application/x-gzip"


def test_a_body_is_as_celery_writes_it(app: Celery) -> None:
    """A worker could not read what comes out of the room."""
    app.conf.task_compression = None
    parcel = captured(app)
    args, kwargs, embed = loads(parcel.body, parcel.content_type, parcel.content_encoding)
    assert (args, kwargs) == ([{"é": 1}], {})
    assert set(embed) == {"callbacks", "errbacks", "chain", "chord"}


def test_only_the_task_is_captured(app: Celery) -> None:
    """Celery's own events would be taken for tasks, or be lost."""
    app.conf.task_send_sent_event = True
    with app.connection_for_read() as connection:
        queue = app.amqp.Queues([]).add("events", exchange="celeryev", exchange_type="topic", routing_key="#")
        events = connection.SimpleQueue(queue)
        captured(app)
        assert events.get(timeout=5).payload["type"] == "task-sent"
        events.close()
