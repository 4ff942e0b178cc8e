"""The tasks that ``benchmarks.overhead`` has a worker run: they do nothing, under more and more policies."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from tenacity import stop_after_attempt

from celery_patterns import (
    ConcurrencyLimit,
    DeadLetter,
    Idempotency,
    PolicyTask,
    RetryPolicy,
    Singleton,
    TokenBucket,
)

app = Celery("overhead", broker=os.environ.get("OVERHEAD_BROKER"), backend=os.environ.get("OVERHEAD_RESULTS"))
app.conf.update(
    patterns_url=os.environ.get("OVERHEAD_STORE"),
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    task_default_queue="overhead",
)

DEAD_LETTER = {"dead_letter": DeadLetter()}
RETRY = {"retry_policy": RetryPolicy(on=ConnectionError, stop=stop_after_attempt(5))}
IDEMPOTENCY = {"idempotency": Idempotency(key="number")}
SINGLETON = {"singleton": Singleton(key="number")}
LIMIT = {"token_bucket": TokenBucket("1000000/s", burst=100_000, name="overhead")}
PLACES = {"concurrency_limit": ConcurrencyLimit(100, name="overhead")}

VARIANTS: dict[str, dict[str, Any]] = {
    "dead letters": DEAD_LETTER,
    "retries": RETRY,
    "idempotency": IDEMPOTENCY,
    "singleton": SINGLETON,
    "rate limit": LIMIT,
    "concurrency limit": PLACES,
    "five policies": {**DEAD_LETTER, **RETRY, **IDEMPOTENCY, **SINGLETON, **LIMIT},
    "all six": {**DEAD_LETTER, **RETRY, **IDEMPOTENCY, **SINGLETON, **LIMIT, **PLACES},
}
"""Which policies a task has. All have late acknowledgement, so that it makes no difference."""


def _nothing(number: int) -> None:
    """What every task does."""


TASKS = {
    "bare task": app.task(_nothing, name="overhead.bare", acks_late=True, reject_on_worker_lost=True),
    **{
        name: app.task(
            _nothing,
            name=f"overhead.{name.replace(' ', '_')}",
            base=PolicyTask,
            acks_late=True,
            reject_on_worker_lost=True,
            **policies,
        )
        for name, policies in VARIANTS.items()
    },
}
