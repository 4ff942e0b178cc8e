"""Two functions for code that handles failures itself, in the words that such code uses elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celery import current_app
from kombu.serialization import dumps

from celery_patterns.deadletters.cause import Cause
from celery_patterns.deadletters.desk import DeadLetters
from celery_patterns.deadletters.message import Message
from celery_patterns.deadletters.query import Filter
from celery_patterns.deadletters.replay import Plan, Report
from celery_patterns.deadletters.store import Death, put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery

RETENTION = 30 * 86_400.0


def move_to_dlq(
    task: Any,
    data: Mapping[str, Any] | Sequence[Any],
    exc: BaseException,
    *,
    queue: str = "dead",
    app: Celery | None = None,
) -> str:
    """Keep a call as a dead letter, whether or not it ever was a message; returns its id.

    Use it where code catches a failure itself and goes on. A task whose failures leave it needs a
    :class:`~celery_patterns.DeadLetter` instead, which keeps the real message with its place in a
    chain or chord.

    Args:
        task: The task, or its name: what a replay would run.
        data: Its keyword arguments, or a sequence of its positional ones.
        exc: Why it is a dead letter.
        queue: The dead-letter queue.
        app: The app; default: that of the task, or the current one.

    Raises:
        StoreUnavailable: It could not be stored.
        kombu.exceptions.EncodeError: The task serializer cannot carry ``data``.
    """
    app = app or getattr(task, "app", None) or current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
    name = task if isinstance(task, str) else task.name
    args, kwargs = ([], dict(data)) if isinstance(data, Mapping) else (list(data), {})
    task_id = str(uuid4())
    route = app.amqp.router.route({}, name, tuple(args), kwargs)
    message = app.amqp.create_task_message(task_id, name, args, kwargs)
    content_type, encoding, body = dumps(message.body, serializer=app.conf.task_serializer)
    letter = Message(
        body=body.encode(encoding) if isinstance(body, str) else body,
        content_type=content_type,
        content_encoding=encoding,
        headers=dict(message.headers),
        routing_key=getattr(route.get("queue"), "name", None) or app.conf.task_default_queue,
    )
    death = Death(
        letter=letter,
        cause=Cause.of(app, exc, "moved"),
        by=f"{task_id}/moved",
        queue=queue,
        worker="",
        retention=RETENTION,
    )
    return put(app, death).id


def process_dlq(task_name: str, limit: int = 100, *, app: Celery | None = None) -> Report:
    """Run up to ``limit`` open dead letters of one task again, the oldest first, with a canary.

    Args:
        task_name: The task's name, or a pattern such as ``"shop.*"``.
        limit: How many.
        app: The app; default: the current one.
    """
    app = app or current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
    return DeadLetters(app).replay(Filter(task=task_name), Plan(limit=limit))
