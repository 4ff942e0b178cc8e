"""A task that kills its whole worker, and one whose process is killed right after its death was stored."""

import os
import signal
from typing import Any

from celery_patterns import DeadLetter, DeadLetterTask, Event, subscribe
from celery_patterns.deadletters import deliveries
from celery_patterns.policies.dead_letter import burial
from tests.ground.app import ground_app, history, in_worker

app = ground_app(__name__)


def _happened(event: Event) -> None:
    history().add("event", what=event.kind, id=event.task_id)


if in_worker():
    subscribe(_happened)
    deliveries.LIFE = 0.5

_put = burial.put


def _put_and_die(*args: Any) -> Any:
    """Store the death; kill this process the first time, before it can report anything."""
    stored = _put(*args)
    if not history().count("killed"):
        history().add("killed")
        os.kill(os.getpid(), signal.SIGKILL)
    return stored


@app.task(bind=True, base=DeadLetterTask, dead_letter=DeadLetter(max_deliveries=2))
def kill_all(self: Any) -> None:
    """Take the whole worker along."""
    history().add("began", id=self.request.id)
    os.killpg(os.getpgid(os.getppid()), signal.SIGKILL)


@app.task(bind=True, base=DeadLetterTask)
def fail(self: Any, order: str) -> None:
    """Fail; the process dies when the death is stored."""
    burial.put = _put_and_die
    history().add("began", id=self.request.id)
    raise ValueError(order)


@app.task
def note(label: str) -> None:
    """What errbacks lead to."""
    history().add("note", label=label)
