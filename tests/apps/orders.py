"""Idempotent tasks that write down what happens to them."""

import time
from pathlib import Path
from typing import Any

from celery import signals

from celery_patterns import Event, Idempotency, IdempotentTask, idempotent, subscribe
from tests.ground.app import ground_app, history, in_worker

app = ground_app(__name__, worker_send_task_events=False)


def _happened(event: Event) -> None:
    history().add("event", what=event.kind, task=event.task, id=event.task_id, key=event.key, **event.detail)


if in_worker():
    subscribe(_happened)


@signals.task_success.connect
def _stored(sender: Any, **_: Any) -> None:
    history().add("stored", id=sender.request.id)


@app.task(bind=True, base=IdempotentTask, idempotency=Idempotency(key="order", lease=60))
def charge(self: Any, order: str, amount: int = 1, seconds: float = 0.0) -> dict[str, Any]:
    """Charge at once, or after a while."""
    time.sleep(seconds)
    history().add("effect", order=order, id=self.request.id, fence=self.request.fence)
    time.sleep(seconds)
    return {"order": order, "amount": amount, "by": self.request.id, "fence": self.request.fence}


@app.task(bind=True, base=IdempotentTask, idempotency=Idempotency(key="order", lease=3))
def slow(self: Any, order: str, gate: str) -> dict[str, Any]:
    """Run until the gate is open."""
    return _until_open(self, order, gate)


@app.task(bind=True, base=IdempotentTask, idempotency=Idempotency(key="order", lease=60))
def long_lease(self: Any, order: str, gate: str) -> dict[str, Any]:
    """The same, under a lease that nobody wants to wait for."""
    return _until_open(self, order, gate)


@app.task(bind=True, base=IdempotentTask, idempotency=Idempotency(key="order", lease=60), time_limit=1)
def limited(self: Any, order: str, gate: str) -> dict[str, Any]:
    """The same, with a hard time limit."""
    return _until_open(self, order, gate)


def _until_open(self: Any, order: str, gate: str) -> dict[str, Any]:
    request = self.request
    history().add("started", order=order, id=request.id, fence=request.fence)
    while not Path(gate).exists():
        time.sleep(0.01)
    history().add("ended", order=order, id=request.id, fence=request.fence, lost=request.lease.lost)
    return {"order": order, "by": request.id, "fence": request.fence}


@app.task(bind=True, base=IdempotentTask, idempotency=Idempotency(key="order", lease=60), max_retries=3)
def flaky(self: Any, order: str) -> str:
    """Fail once, then succeed."""
    history().add("attempt", order=order, id=self.request.id, retries=self.request.retries)
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return order


@idempotent(key="order", lease=60)
@app.task(autoretry_for=(ConnectionError,), retry_backoff=False, default_retry_delay=0)
def auto(order: str, path: str) -> str:
    """Fail until the file exists, and make it."""
    history().add("attempt", order=order)
    if not Path(path).exists():
        Path(path).touch()
        raise ConnectionError("not yet")
    return order


@app.task(acks_late=True, reject_on_worker_lost=True)
def note(value: Any, label: str) -> Any:
    """What links and chains lead to."""
    history().add("note", label=label, value=value)
    return value


@app.task(acks_late=True, reject_on_worker_lost=True)
def gather(values: list[Any], label: str) -> list[Any]:
    """What chords lead to."""
    history().add("gathered", label=label, values=values)
    return values
