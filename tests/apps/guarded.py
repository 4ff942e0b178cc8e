"""Tasks under singletons and concurrency limits that write down what happens to them."""

import time
from pathlib import Path
from typing import Any

from celery_patterns import (
    ConcurrencyLimit,
    ConcurrencyLimitedTask,
    Event,
    NonOverlappingTask,
    Singleton,
    SingletonTask,
    singleton,
    subscribe,
)
from tests.ground.app import ground_app, history, in_worker

app = ground_app(__name__, worker_send_task_events=False, worker_lost_wait=0.5)


def _happened(event: Event) -> None:
    history().add("event", what=event.kind, task=event.task, id=event.task_id, key=event.key, **event.detail)


if in_worker():
    subscribe(_happened)

LATE = {"acks_late": True, "reject_on_worker_lost": True}
EARLY = {"acks_late": False}


@app.task(bind=True, base=SingletonTask, singleton=Singleton("doc", queued_ttl=600), **LATE)
def sync(self: Any, doc: str, version: int = 1) -> str:
    """Run at once."""
    history().add("ran", doc=doc, version=version, id=self.request.id)
    return f"{doc}{version}"


@app.task(bind=True, base=SingletonTask, singleton=Singleton("doc", queued_ttl=2, lease=60), **LATE)
def hasty(self: Any, doc: str, version: int = 1, gate: str = "") -> str:
    """The same, with a lock that does not wait long for its message."""
    history().add("ran", doc=doc, version=version, id=self.request.id)
    while gate and not Path(gate).exists():
        time.sleep(0.01)
    return f"{doc}{version}"


@app.task(bind=True, base=SingletonTask, singleton=Singleton("doc", on_conflict="defer"), **LATE)
def in_turn(self: Any, doc: str, version: int, gate: str = "") -> int:
    """Run one after the other."""
    history().add("ran", doc=doc, version=version, id=self.request.id)
    while gate and not Path(gate).exists():
        time.sleep(0.01)
    return version


@app.task(bind=True, base=SingletonTask, singleton=Singleton("doc", on_conflict="defer", lease=2), **LATE)
def in_turn_soon(self: Any, doc: str, version: int, gate: str = "") -> int:
    """The same, with a lease that lapses soon."""
    history().add("ran", doc=doc, version=version, id=self.request.id)
    while gate and not Path(gate).exists():
        time.sleep(0.01)
    return version


@app.task(bind=True, base=SingletonTask, singleton=Singleton("doc", lease=2), **LATE)
def slow(self: Any, doc: str, gate: str) -> str:
    """Run until the gate is open."""
    return _until_open(self, doc, gate)


@app.task(bind=True, base=SingletonTask, singleton=Singleton("doc", lease=60), **LATE)
def late(self: Any, doc: str, gate: str) -> str:
    """The same, under a lease that nobody wants to wait for."""
    return _until_open(self, doc, gate)


@app.task(bind=True, base=SingletonTask, singleton=Singleton("doc", lease=60), **EARLY)
def early(self: Any, doc: str, gate: str) -> str:
    """The same, acknowledged before it runs."""
    return _until_open(self, doc, gate)


@app.task(bind=True, base=SingletonTask, singleton=Singleton("doc", lease=60), time_limit=1, **EARLY)
def limited(self: Any, doc: str, gate: str) -> str:
    """The same, with a hard time limit."""
    return _until_open(self, doc, gate)


def _until_open(task: Any, doc: str, gate: str) -> str:
    request = task.request
    history().add("started", doc=doc, id=request.id, fence=request.fence)
    while not Path(gate).exists():
        time.sleep(0.01)
    history().add("ended", doc=doc, id=request.id, fence=request.fence, lost=request.lease.lost)
    return doc


@app.task(bind=True, base=SingletonTask, singleton=Singleton("doc", queued_ttl=600), max_retries=3, **LATE)
def flaky(self: Any, doc: str, countdown: float) -> str:
    """Fail once, then succeed."""
    history().add("attempt", doc=doc, id=self.request.id, retries=self.request.retries)
    if self.request.retries == 0:
        raise self.retry(countdown=countdown)
    return doc


@singleton("doc", queued_ttl=600)
@app.task(bind=True, autoretry_for=(ConnectionError,), retry_backoff=False, default_retry_delay=0, **LATE)
def auto(self: Any, doc: str) -> str:
    """The same, by a decorator and Celery's own retries."""
    history().add("attempt", doc=doc, id=self.request.id, retries=self.request.retries)
    if self.request.retries < 2:
        raise ConnectionError("not yet")
    return doc


@app.task(bind=True, base=NonOverlappingTask, **LATE)
def nightly(self: Any, gate: str) -> str:
    """Run until the gate is open; what beat would send."""
    history().add("started", id=self.request.id)
    while not Path(gate).exists():
        time.sleep(0.01)
    return self.request.id  # type: ignore[no-any-return]


@app.task(bind=True, base=ConcurrencyLimitedTask, concurrency_limit=ConcurrencyLimit(2, lease=3), **LATE)
def export(self: Any, number: int, seconds: float) -> int:
    """Take a while; two at a time."""
    history().add("enter", number=number, fence=self.request.fence)
    time.sleep(seconds)
    history().add("leave", number=number)
    return number


@app.task
def note(value: Any, label: str) -> Any:
    """What links and chains lead to."""
    history().add("note", label=label, value=value)
    return value


@app.task
def gather(values: list[Any], label: str) -> list[Any]:
    """What chords lead to."""
    history().add("gathered", label=label)
    return values
