"""The tasks that ``benchmarks.handover`` has a worker run; where, is in the environment."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery, signals

from celery_patterns import (
    ConcurrencyLimit,
    ConcurrencyLimitedTask,
    Idempotency,
    IdempotentTask,
    Singleton,
    SingletonTask,
)

URL = os.environ.get("HANDOVER", "redis://localhost")

app = Celery("handover", broker=f"{URL}/0", backend=f"{URL}/2")
app.conf.update(
    patterns_url=f"{URL}/1",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=4,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)

_log = os.open(os.environ["HANDOVER_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(*fields: Any) -> None:
    os.write(_log, (" ".join(map(str, fields)) + "\n").encode())


@signals.task_prerun.connect
def _delivered(**_: Any) -> None:
    note("delivered", time.time())


@signals.task_success.connect
def _done(**_: Any) -> None:
    note("done", time.time())


def _hold(seconds: float) -> None:
    note("began", time.time())
    time.sleep(seconds)
    note("ended", time.time())


@app.task(
    base=SingletonTask,
    singleton=Singleton(key="key", scope="while_executing", on_conflict="defer"),
    name="handover.singleton",
)
def singleton(key: str, number: int, seconds: float) -> None:  # noqa: ARG001 - for the key, or to tell calls apart
    _hold(seconds)


@app.task(
    base=ConcurrencyLimitedTask,
    concurrency_limit=ConcurrencyLimit(1, key="key"),
    name="handover.concurrency_limit",
)
def concurrency_limit(key: str, number: int, seconds: float) -> None:  # noqa: ARG001 - for the key, or to tell calls apart
    _hold(seconds)


@app.task(base=IdempotentTask, idempotency=Idempotency(key="key"), name="handover.idempotency")
def idempotency(key: str, seconds: float) -> None:  # noqa: ARG001 - for the key, or to tell calls apart
    _hold(seconds)
