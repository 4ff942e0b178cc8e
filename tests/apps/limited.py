"""Limited tasks that write down when they were let in, and when they ran."""

import os
import time
from typing import Any

from celery_patterns import (
    Event,
    RateLimits,
    Singleton,
    SingletonTask,
    Throttled,
    TokenBucket,
    TokenBucketTask,
    idempotent,
    subscribe,
    token_bucket,
)
from celery_patterns.policies.rate_limits import start
from tests.ground.app import ground_app, history, in_worker

app = ground_app(__name__, worker_send_task_events=False)


def _happened(event: Event) -> None:
    history().add("event", what=event.kind, task=event.task, id=event.task_id, key=event.key, **event.detail)


if in_worker():
    subscribe(_happened)
    if app.conf.get("short_pauses"):
        start.LONGEST_PAUSE = 0.02
        start.stand_in_line = lambda *_: (0.02, 1)  # type: ignore[assignment]


def _started(task: Any, **more: Any) -> None:
    request = task.request
    history().add(
        "started",
        id=request.id,
        granted=request.granted_at,
        body=time.time(),
        retries=request.retries,
        **more,
    )


@app.task(bind=True, base=TokenBucketTask, token_bucket=TokenBucket("50/s", burst=5, name="busy"))
def busy(self: Any, number: int = 0) -> int:
    """One of many."""
    _started(self, number=number)
    return number


@app.task(
    bind=True,
    base=SingletonTask,
    singleton=Singleton(key="key", scope="while_executing", on_conflict="defer"),
)
def alone(self: Any, key: str, number: int) -> int:
    """One at a time."""
    history().add("started", id=self.request.id, key=key, number=number)
    time.sleep(0.05)
    return number


@app.task(
    bind=True,
    base=TokenBucketTask,
    token_bucket=TokenBucket("50/s", burst=5, name="late"),
    acks_late=True,
    reject_on_worker_lost=True,
)
def late(self: Any, number: int) -> None:
    """One of many that survive a kill."""
    again = bool((self.request.delivery_info or {}).get("redelivered"))
    _started(self, number=number, worker=os.getppid(), redelivered=again)


@app.task(bind=True, base=TokenBucketTask, token_bucket=TokenBucket("1/s", name="ticking"))
def tick(self: Any) -> None:
    """Once a second."""
    _started(self)


@app.task
def hold(gate: str) -> None:
    """Keep a slot until the gate is open."""
    history().add("held")
    while not os.path.exists(gate):  # noqa: PTH110 - a path as it came
        time.sleep(0.01)


@app.task(bind=True)
def plain(self: Any) -> None:
    """No limit concerns it."""
    history().add("started", id=self.request.id)


@app.task(bind=True, base=TokenBucketTask, token_bucket=TokenBucket("1/h", name="slow"))
def slow(self: Any, number: int = 0) -> int:
    """Almost never."""
    _started(self, number=number)
    return number


@app.task(bind=True, base=TokenBucketTask, token_bucket=TokenBucket("1/h", name="slow"), max_retries=1)
def flaky(self: Any) -> int:
    """Fails once."""
    _started(self)
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return int(self.request.retries)


@app.task(
    bind=True,
    base=TokenBucketTask,
    token_bucket=TokenBucket("1000/s", burst=100, name="service"),
    autoretry_for=(Exception,),
    max_retries=0,
)
def throttled(self: Any, seconds: float) -> int:
    """The service says 429, once to each task."""
    _started(self)
    if history().count("throttled", id=self.request.id) == 0:
        history().add("throttled", id=self.request.id)
        raise Throttled(retry_after=seconds)
    return int(self.request.retries)


@app.task(bind=True, base=TokenBucketTask, token_bucket=TokenBucket("1000/s", burst=100, name="service"))
def other(self: Any) -> None:
    """Calls the same service."""
    _started(self)


@app.task(
    bind=True,
    base=TokenBucketTask,
    token_bucket=RateLimits(
        TokenBucket("1000/s", burst=3, name="all"),
        TokenBucket("2/s", key="tenant", name="tenant", on_limited="skip"),
    ),
)
def of_tenant(self: Any, tenant: str) -> str:
    """Two limits at once; skipped where nobody waits for it."""
    _started(self, tenant=tenant)
    return tenant


@idempotent(key="order")
@token_bucket("20/s", name="orders")
@app.task(bind=True)
def charge(self: Any, order: str) -> str:
    """At most so many a second, and each order once."""
    _started(self, order=order)
    return order


@app.task
def free(sent: float) -> float:
    """Not limited; how long it took to get its turn."""
    return time.time() - sent


@app.task
def gather(values: list[Any]) -> list[Any]:
    """What chords lead to."""
    return values
