"""Tasks that die in all ways that Celery knows, and keep their dead letters."""

from pathlib import Path
from typing import Any

from celery_patterns import DeadLetterTask, Event, subscribe
from tests.ground.app import ground_app, history, in_worker

app = ground_app(__name__, worker_send_task_events=False)


def _happened(event: Event) -> None:
    history().add("event", what=event.kind, task=event.task, id=event.task_id, key=event.key, **event.detail)


if in_worker():
    subscribe(_happened)


@app.task(bind=True, base=DeadLetterTask)
def charge(self: Any, order: str, gate: str, seen: list[str] | None = None) -> str:
    """Fail until the gate is there, and spoil the arguments meanwhile."""
    history().add("attempt", order=order, id=self.request.id)
    if seen is not None:
        seen.append("spoilt")
    if not Path(gate).exists():
        raise ConnectionError(f"no gate for {order}")
    history().add("effect", order=order, id=self.request.id)
    return order


@app.task
def note(value: Any, label: str) -> Any:
    """What links and chains lead to."""
    history().add("note", label=label, value=value)
    return value


@app.task
def failed(request: Any, exc: Any, traceback: Any, label: str) -> None:
    """An errback."""
    history().add("errback", label=label)
