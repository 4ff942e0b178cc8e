"""What processes write down of what Celery and the library do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import current_task, signals

from celery_patterns import Event, subscribe
from tests.ground.app import history


def watch() -> None:
    """Write down what happens in this process from now on."""
    subscribe(_happened)
    for signal, receiver in _RECEIVERS:
        signal.connect(receiver)


@contextmanager
def watching() -> Iterator[None]:
    """As `watch`, and no longer than this."""
    stop = subscribe(_happened)
    for signal, receiver in _RECEIVERS:
        signal.connect(receiver)
    try:
        yield
    finally:
        stop()
        for signal, receiver in _RECEIVERS:
            signal.disconnect(receiver)


def _happened(event: Event) -> None:
    told = {"policy": event.policy, "task": event.task, "id": event.task_id, "key": event.key}
    history().add("event", what=event.kind, **told, detail=dict(event.detail))


def sent(sender: str, headers: dict[str, Any], **_: Any) -> None:
    """A message went out."""
    by = current_task.request.id if current_task else None
    history().add("sent", id=headers["id"], task=sender, by=by, parent=os.getppid())


def _received(request: Any, **_: Any) -> None:
    history().add("received", id=request.id, redelivered=bool(request.delivery_info.get("redelivered")))


def _stored(sender: Any, **_: Any) -> None:
    history().add("stored", id=sender.request.id)


def _failed(task_id: str, exception: BaseException, **_: Any) -> None:
    history().add("failed", id=task_id, error=type(exception).__name__)


_RECEIVERS = (
    (signals.after_task_publish, sent),
    (signals.task_received, _received),
    (signals.task_success, _stored),
    (signals.task_failure, _failed),
)
