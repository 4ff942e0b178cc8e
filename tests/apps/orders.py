"""Idempotent tasks that write down what happens to them."""

import os
import time
from pathlib import Path
from typing import Any

from celery import signals

from celery_patterns import Event, Idempotency, IdempotentTask, idempotent, subscribe
from tests.ground.app import ground_app, history

app = ground_app(__name__)


def _record(event: Event) -> None:
    history().add("event", what=event.kind, task=event.task, id=event.task_id, key=event.key, **event.detail)


subscribe(_record)


@signals.task_success.connect
def _stored(sender: Any, **_: Any) -> None:
    history().add("stored", id=sender.request.id)


@app.task(bind=True, base=IdempotentTask, idempotency=Idempotency(key="order", lease=5))
def charge(self: Any, order: str, amount: int = 1) -> dict[str, Any]:
    history().add("effect", order=order, id=self.request.id, fence=self.request.fence, pid=os.getpid())
    return {"order": order, "amount": amount, "by": self.request.id}


@app.task(bind=True, base=IdempotentTask, idempotency=Idempotency(key="order", lease=1.5))
def slow(self: Any, order: str, gate: str) -> str:
    """Run until the gate is open."""
    history().add("started", order=order, id=self.request.id, fence=self.request.fence, pid=os.getpid())
    while not Path(gate).exists():
        time.sleep(0.01)
    history().add(
        "ended", order=order, id=self.request.id, fence=self.request.fence, lost=self.request.lease.lost
    )
    return f"{order} by {self.request.id} with fence {self.request.fence}"


@app.task(bind=True, base=IdempotentTask, idempotency=Idempotency(key="order", lease=5), max_retries=3)
def flaky(self: Any, order: str) -> str:
    """Fail once, then succeed."""
    history().add("attempt", order=order, id=self.request.id, retries=self.request.retries)
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return order


@idempotent(key="order", lease=5)
@app.task(autoretry_for=(ConnectionError,), retry_backoff=False, default_retry_delay=0)
def auto(order: str, path: str) -> str:
    """Fail until the file exists."""
    history().add("attempt", order=order)
    if not Path(path).exists():
        Path(path).touch()
        raise ConnectionError("not yet")
    return order


@app.task
def note(value: Any, label: str) -> Any:
    """What links and chains lead to."""
    history().add("note", label=label, value=value)
    return value


@app.task
def gather(values: list[Any], label: str) -> list[Any]:
    """What chords lead to."""
    history().add("gathered", label=label, values=values)
    return values
