"""The tasks that ``benchmarks.drain`` has workers run; how, is in the environment."""

from __future__ import annotations

import json
import os
import time
from itertools import count
from typing import Any

from celery import Celery, signals

from celery_patterns import TokenBucket, TokenBucketTask

HOW = json.loads(os.environ.get("DRAIN", "{}"))

app = Celery("drain", broker=HOW.get("broker"), backend=None)
app.conf.update(
    patterns_url=HOW.get("store"),
    patterns_waiting_room=HOW.get("room", True),
    patterns_gate=HOW.get("gate"),
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=HOW.get("prefetch", 4),
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)

_log = os.open(HOW["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT) if "log" in HOW else None


def _note(*fields: Any) -> None:
    if _log is not None:
        os.write(_log, (" ".join(map(str, fields)) + "\n").encode())


def send(task: Any, *args: Any) -> None:
    """Publish a task and note when the broker, or the room, had it."""
    task.delay(*args)
    if task.name.startswith("drain."):
        _note("sent", time.time())


_probes = count()


def send_free() -> None:
    """Publish a task that no limit concerns."""
    number = next(_probes)
    free.delay(number)
    _note("probed", time.time(), number)


@signals.task_prerun.connect
def _delivered(task: Any, **_: Any) -> None:
    if task.name.startswith("drain."):
        _note("delivered", time.time())


@app.task(
    bind=True,
    base=TokenBucketTask,
    name="drain.limited",
    token_bucket=TokenBucket(HOW.get("rate", "100/s"), burst=HOW.get("burst", 1), name="drain"),
)
def limited(self: Any, number: int) -> None:
    _note("started", time.time(), self.request.granted_at, number)


@app.task(name="drain.native", rate_limit=HOW.get("rate", "100/s"))
def native(number: int) -> None:
    now = time.time()
    _note("started", now, now, number)


@app.task(bind=True, name="drain.naive", max_retries=None)
def naive(self: Any, number: int) -> None:
    """What people write: ask, and back off."""
    from celery_patterns import acquire  # noqa: PLC0415 - for this task only

    bucket = TokenBucket(HOW["rate"], burst=HOW["burst"], name="drain")
    if not acquire(bucket):
        raise self.retry(countdown=2**self.request.retries)
    now = time.time()
    _note("started", now, now, number)


@app.task(name="free")
def free(number: int) -> None:
    _note("free", time.time(), number)


@app.task(name="block")
def block(seconds: float) -> None:
    time.sleep(seconds)
