"""The task that looks after a chord when nobody else does: at its deadline, and when a claim may have lapsed.

It may be delivered more than once, and late: what has ended is not ended again.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from celery import shared_task
from celery.utils.log import get_task_logger
from celery.utils.time import maybe_iso8601, maybe_make_aware

from celery_patterns.core.redelivery import longest_wait
from celery_patterns.flows.chords.signatures import starters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

logger = get_task_logger(__name__)

TASK = "celery_patterns.watch_chord"
RETRY = 15
"""Seconds until the next try when Redis is away."""


@shared_task(
    name=TASK, bind=True, acks_late=True, reject_on_worker_lost=True, ignore_result=True, max_retries=None
)
def watch_chord(self: Any, chord_id: str, body: dict[str, Any]) -> None:
    """Give up the parts of a chord that have not reported by its deadline, and hand its end on."""
    backend = self.app.backend
    if not getattr(backend, "makes_partial_chords", False):
        logger.error(
            "Chord %s needs the result backend partial+redis:// on every worker that consumes from %r",
            chord_id,
            self.request.delivery_info.get("routing_key"),
        )
        return
    try:
        left = backend.watch_chord(chord_id, body, late=_late(self.request.eta))
    except backend.connection_errors as error:
        raise self.retry(exc=error, countdown=RETRY) from error
    if left is not None:
        watch_later(self.app, chord_id, body, left)


def watch_later(app: Celery, chord_id: str, body: Mapping[str, Any], delay: float) -> None:
    """Have the chord looked after in ``delay`` seconds, or before: then the task sends itself again.

    No message waits for so long that the broker would deliver it a second time. Fractions of a
    second are rounded up, since RabbitMQ's quorum queues refuse them.
    """
    countdown = math.ceil(min(delay, longest_wait(app)))
    app.send_task(
        TASK, (chord_id, dict(body)), countdown=countdown, ignore_result=True, **_where_it_goes(app, body)
    )


def _late(eta: str | None) -> float:
    """How many seconds ago a message was due; the clocks of producers and workers may differ a little."""
    due = maybe_iso8601(eta)
    return (datetime.now(UTC) - maybe_make_aware(due, UTC)).total_seconds() if due else 0.0


def _where_it_goes(app: Celery, body: Mapping[str, Any]) -> dict[str, Any]:
    """The way that the body goes: where it can run, somebody consumes."""
    first = next(starters(body))
    given = {name: first["options"].get(name) for name in ("queue", "exchange", "routing_key")}
    chosen = {name: value for name, value in given.items() if value is not None}
    if chosen:
        return chosen
    task = app.tasks.get(first["task"])
    queue = getattr(task, "queue", None) or app.amqp.router.route({}, first["task"])["queue"]
    return {"queue": getattr(queue, "name", queue)}
