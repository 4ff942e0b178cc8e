"""Messages that reach no task: of an unknown task, or not a task message at all.

Celery rejects them, which on Redis means that they are gone. A worker that has at least one task
with dead letters keeps them as well, in the dead-letter queue ``"unroutable"``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celery import signals
from kombu.exceptions import DecodeError

from celery_patterns.core.events import Event, emit
from celery_patterns.core.settings import disabled_kinds
from celery_patterns.deadletters.cause import Cause
from celery_patterns.deadletters.message import Message
from celery_patterns.deadletters.store import KIND, Death, put
from celery_patterns.errors import PatternsError

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger("celery_patterns")

QUEUE = "unroutable"
RETENTION = 30 * 86_400.0


def watch_worker() -> None:
    """Keep what this process's worker has no task for; a second call changes nothing."""
    signals.task_unknown.connect(_on_unknown, weak=False, dispatch_uid="celery-patterns-unknown")
    signals.task_rejected.connect(_on_rejected, weak=False, dispatch_uid="celery-patterns-rejected")


def _on_unknown(sender: Any, message: Any, exc: Exception, **_: Any) -> None:
    _keep(sender.app, message, exc, "unknown task")


def _on_rejected(sender: Any, message: Any, exc: Exception | None, **_: Any) -> None:
    _keep(sender.app, message, exc or DecodeError("not a task message"), "rejected message")


def _keep(app: Celery, message: Any, error: Exception, source: str) -> None:
    if {"*", KIND} & set(disabled_kinds(app)) or not _has_dead_letters(app):
        return
    letter = Message.of_delivery(message)
    task = str(letter.headers.setdefault("task", "(none)"))
    task_id = str(letter.headers.setdefault("id", uuid4().hex))
    death = Death(
        letter=letter,
        cause=Cause.of(app, error, source),
        by=f"{task_id}/{uuid4().hex[:16]}",
        queue=QUEUE,
        worker="",
        retention=RETENTION,
    )
    try:
        put(app, death)
    except PatternsError as trouble:
        logger.critical(
            "No dead letter of %s[%s] could be stored (%s): headers %r, body %r",
            task,
            task_id,
            trouble,
            letter.headers,
            letter.body[:100_000],
        )
        return
    emit(
        Event(
            kind="dead_lettered",
            policy=KIND,
            task=task,
            task_id=task_id,
            key=task_id,
            detail={"source": source},
        )
    )


def _has_dead_letters(app: Celery) -> bool:
    return any(
        policy.kind == KIND
        for task in app.tasks.values()
        if (seam := getattr(task, "__patterns__", None)) is not None
        for policy in seam.policies
    )
