"""Deaths made by hand, for tests of the store without workers."""

from typing import Any

from celery import Celery
from kombu.serialization import dumps

from celery_patterns.core.policy import REPLAY_HEADER
from celery_patterns.deadletters.cause import Cause
from celery_patterns.deadletters.message import Message
from celery_patterns.deadletters.store import Death, Stored, put

TASK = "shop.charge"


def die(
    app: Celery,
    entry: str,
    *,
    replay: int = 0,
    by: str | None = None,
    error: Exception | None = None,
    task: str = TASK,
    kwargs: dict[str, Any] | None = None,
    **options: Any,
) -> Stored:
    """Let a task die, as a worker would report it."""
    headers = {"task": task, "id": entry, "retries": 0, "root_id": entry, "eta": None, "expires": None}
    headers |= options.pop("headers", {})
    if replay:
        headers[REPLAY_HEADER] = f"{entry}/{replay}"
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    content_type, encoding, body = dumps(([], kwargs or {"order": entry}, embed), serializer="json")
    letter = Message(
        body=body.encode(),
        content_type=content_type,
        content_encoding=encoding,
        headers=headers,
        routing_key=options.pop("routing_key", "celery"),
    )
    cause = Cause.of(app, error or ConnectionError("no route"))
    death = Death(
        letter=letter,
        cause=cause,
        by=by or f"{entry}/{replay}",
        queue=options.pop("queue", "dead"),
        worker="w1",
        retention=options.pop("retention", 60.0),
        **options,
    )
    return put(app, death)
