"""Tasks to be replayed by the thousand, and a replayer that is killed: `python -m tests.apps.replays`."""

import sys
from typing import Any

from celery_patterns import DeadLetters, DeadLetterTask, Event, subscribe
from celery_patterns.deadletters import Plan
from tests.ground.app import ground_app, history, in_worker

app = ground_app(__name__, worker_send_task_events=False, task_ignore_result=True)


def _happened(event: Event) -> None:
    if event.kind in {"stale", "buried"}:
        history().add("event", what=event.kind, id=event.task_id)


if in_worker():
    subscribe(_happened)


@app.task(bind=True, base=DeadLetterTask)
def ship(self: Any, order: str, fail: bool = False) -> None:
    """Have an effect that can be counted, or fail."""
    if fail:
        raise ValueError(order)
    history().add("shipped", order=order)


if __name__ == "__main__":
    sys.stdout.write("replaying\n")
    sys.stdout.flush()
    DeadLetters(app).replay(plan=Plan(rate=float(sys.argv[1]), canary=False, claim=0.3))
