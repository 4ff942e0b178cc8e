"""Tasks that die in all ways that Celery knows, and keep their dead letters."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery.exceptions import Ignore, Reject

from celery_patterns import DeadLetter, DeadLetterTask, Event, subscribe
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


def _raise(error: BaseException) -> Any:
    raise error


def _for_ever() -> Any:
    while True:
        time.sleep(0.05)


def _elsewhere() -> Any:
    """Be put back into the queue once."""
    if history().count("began", how="requeue") == 1:
        raise Reject("not here", requeue=True)


_WAYS: dict[str, Callable[[Any], Any]] = {
    "raise": lambda _: _raise(ValueError("raised")),
    "retries": lambda task: _raise(task.retry(exc=OSError("again and again"), countdown=0)),
    "soft": lambda _: _for_ever(),
    "hard": lambda _: _for_ever(),
    "unserialisable": lambda _: object(),
    "sigkill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda _: os._exit(3),
    "sysexit": lambda _: _raise(SystemExit(3)),
    "reject": lambda _: _raise(Reject("no use", requeue=False)),
    "requeue": lambda _: _elsewhere(),
    "ignore": lambda _: _raise(Ignore()),
    "memory": lambda _: _raise(MemoryError("too much")),
    "fine": lambda _: "fine",
}


def _die(task: Any, how: str) -> Any:
    """End a body in one of the ways of the table."""
    return _WAYS[how](task)


class Early(DeadLetterTask):
    """Acknowledged before it runs."""

    abstract = True
    acks_late = False
    reject_on_worker_lost = False
    max_retries = 1


class Late(DeadLetterTask):
    """Acknowledged after it ran, and delivered again when its process is gone."""

    abstract = True
    dead_letter = DeadLetter(max_deliveries=2)
    max_retries = 1


@app.task(bind=True, base=Early)
def early(self: Any, how: str) -> Any:
    """Die, acknowledged before."""
    history().add("began", how=how, id=self.request.id)
    return _die(self, how)


@app.task(bind=True, base=Late)
def late(self: Any, how: str) -> Any:
    """Die, acknowledged after."""
    history().add("began", how=how, id=self.request.id)
    return _die(self, how)


@app.task(bind=True, base=Late, acks_on_failure=False, acks_on_timeout=False)
def unacknowledged(self: Any, how: str) -> Any:
    """Die, and give the message back to the broker."""
    history().add("began", how=how, id=self.request.id)
    return _die(self, how)


@app.task(bind=True, base=DeadLetterTask, retry_on_worker_lost=True, max_retries=1, default_retry_delay=0)
def again(self: Any, how: str) -> Any:
    """Die, and be retried by Celery's worker when the process is gone (since Celery 5.7)."""
    history().add("began", how=how, id=self.request.id)
    return _die(self, how)


@app.task(bind=True, base=DeadLetterTask)
def wait(self: Any, gate: str) -> str:
    """Run until the gate is there."""
    history().add("waiting", id=self.request.id)
    while not Path(gate).exists():
        time.sleep(0.01)
    return "waited"


@app.task(bind=True, base=DeadLetterTask)
def slow_failure(self: Any, gate: str) -> None:
    """Wait for the gate, and fail."""
    history().add("began", id=self.request.id)
    while not Path(gate).exists():
        time.sleep(0.01)
    raise ValueError("in vain")


@app.task(bind=True, base=DeadLetterTask)
def doubtful(self: Any, gate: str) -> str:
    """Fail at first; a replay waits for the gate, and ends as that says."""
    if self.request.headers is None or "cp-replay" not in self.request.headers:
        raise ConnectionError("at first")
    history().add("replayed", id=self.request.id)
    while not Path(gate).exists():
        time.sleep(0.01)
    if Path(gate).read_text() == "ignore":
        raise Ignore
    return "done"


@app.task
def gather(values: list[Any], label: str) -> list[Any]:
    """What chords lead to."""
    history().add("gathered", label=label, values=values)
    return values


@app.task(bind=True, base=DeadLetterTask, dead_letter=DeadLetter(redact=["card"]))
def pay(self: Any, card: str, amount: int) -> None:
    """Fail, and say what nobody should read."""
    raise ValueError(f"declined: {card}")
