"""Tasks that write down where they came from, behind a router."""

import os
from typing import Any

from celery import signature

from celery_patterns import Rule, TaskPriority, TaskRouter, task_queues_for
from tests.ground.app import ground_app, history

router = TaskRouter(
    [
        Rule(urgent=True, queue="fast", priority=TaskPriority.CRITICAL, name="urgent"),
        Rule("*.work", when=lambda level: level == "CRITICAL", priority=TaskPriority.CRITICAL),
        Rule("*.work", when=lambda level: level == "HIGH", priority=TaskPriority.HIGH, name="high"),
        Rule("*.work", when=lambda level: level == "LOW", priority=TaskPriority.LOW, name="low"),
        Rule("*.work", when=lambda level: level == "BULK", priority=TaskPriority.BULK, name="bulk"),
        Rule("*.again", queue="slow", priority=TaskPriority.BULK, name="again"),
    ]
)
"""A level NORMAL is what no rule speaks of."""

app = ground_app(
    __name__,
    task_routes=[router],
    worker_prefetch_multiplier=1,
    **task_queues_for(
        router, "bulk", queue_type=os.environ.get("ROUTED_QUEUES", "classic"), default="celery"
    ),
)


def _write(self: Any, event: str, **fields: Any) -> None:
    """Write down the queue and the priority that the message came with.

    The calls inside a map have no message of their own.
    """
    came = self.request.delivery_info or {"routing_key": "", "priority": None}
    history().add(event, queue=came["routing_key"].rpartition(".")[2], priority=came["priority"], **fields)


@app.task(shared=False, bind=True)
def work(self: Any, level: str, number: int) -> None:
    """Do nothing, at some priority."""
    _write(self, "work", level=level, number=number)


@app.task(shared=False, bind=True, max_retries=2)
def again(self: Any, countdown: float) -> int:
    """Run three times."""
    _write(self, "again", retries=self.request.retries, urgent=(self.request.headers or {}).get("cp-urgent"))
    if self.request.retries < 2:
        raise self.retry(countdown=countdown)
    return self.request.retries


@app.task(shared=False, bind=True)
def step(self: Any, *args: Any) -> str:
    """Be a part of a canvas."""
    _write(self, "step", label=args[-1])
    return str(args[-1])


@app.task(shared=False, bind=True)
def fail(self: Any, *args: Any) -> None:
    """Be a part of a canvas that goes wrong."""
    _write(self, "step", label=args[-1])
    raise RuntimeError(args[-1])


@app.task(shared=False, ignore_result=True)
def launch(canvas: Any) -> None:
    """Publish a canvas. Celery's results of a canvas would outlive the test in the test's process."""
    signature(canvas, app=app).delay()
