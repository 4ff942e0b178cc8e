"""A task in a queue of RabbitMQ's that has a delivery limit."""

import os
import signal
from typing import Any

from celery_patterns import DeadLetterTask, dead_letter_queue
from tests.ground.app import ground_app, history

app = ground_app(
    __name__,
    task_queues=[dead_letter_queue("orders", delivery_limit=2)],
    task_default_queue="orders",
    worker_detect_quorum_queues=True,
)


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def lethal(self: Any, order: str) -> None:
    """Kill the process: a plain task, which nothing but the broker counts."""
    history().add("began", order=order)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(bind=True, base=DeadLetterTask)
def charge(self: Any, order: str, fail: bool = True) -> str:
    """Fail, unless told otherwise."""
    if fail:
        raise ValueError(order)
    return order
