"""Tasks that are retried, and write down when they ran."""

import time
from pathlib import Path
from typing import Any

from tenacity import stop_after_attempt, wait_fixed

from celery_patterns import (
    DeadLetterMixin,
    Event,
    Idempotency,
    IdempotentTask,
    RetryableTask,
    RetryPolicy,
    subscribe,
)
from tests.ground.app import ground_app, history, in_worker

app = ground_app(__name__, worker_send_task_events=False)


def _happened(event: Event) -> None:
    history().add("event", what=event.kind, task=event.task, id=event.task_id, key=event.key, **event.detail)


if in_worker():
    subscribe(_happened)

SOON = RetryPolicy(OSError, never_on=PermissionError, wait=wait_fixed(1), stop=stop_after_attempt(3))


class Patient(DeadLetterMixin, RetryableTask):
    """A task that is retried, and kept when that is in vain."""

    abstract = True
    retry_policy = SOON


class Declined(PermissionError):
    """An error that no retry mends."""


class Busy(OSError):
    """A service that says when to come back."""

    retry_after = 2.0


@app.task(bind=True, base=Patient)
def fetch(self: Any, name: str, gate: str, error: str = "OSError") -> str:
    """Fail until the gate is there."""
    history().add("attempt", name=name, id=self.request.id, retries=self.request.retries)
    kinds: dict[str, type[Exception]] = {"OSError": OSError, "Declined": Declined, "Busy": Busy}
    if Path(gate).exists():
        return name
    raise kinds[error](f"not for {name}")


@app.task(bind=True, base=Patient, max_retries=1)
def mixed(self: Any, name: str) -> None:
    """Fail; first by Celery's own retry, which allows one, and then by the policy."""
    history().add("attempt", name=name, retries=self.request.retries)
    raise self.retry(exc=OSError("no"), countdown=0)


class Careful(DeadLetterMixin, RetryableTask, IdempotentTask):
    """All three."""

    abstract = True
    retry_policy = SOON
    idempotency = Idempotency(key="order", cache_errors=True)


@app.task(bind=True, base=Careful)
def pay(self: Any, order: str, gate: str) -> str:
    """Fail until the gate is there; failures are remembered for duplicates."""
    history().add("attempt", name=order, retries=self.request.retries)
    if not Path(gate).exists():
        raise OSError(f"no gate for {order}")
    history().add("effect", order=order)
    return order


@app.task
def quick() -> float:
    """What a free slot does at once."""
    return time.time()


@app.task
def note(value: Any, label: str) -> Any:
    """What links and chains lead to."""
    history().add("note", label=label, value=value)
    return value
