"""Checked by mypy --strict, never run: singletons and concurrency limits as a type checker sees them.

Where a line is wrong on purpose, mypy has to say so: an `ignore` that is not needed is an error itself.
"""

from datetime import timedelta
from typing import Any, assert_type

from celery import Celery
from celery.app.task import Task
from celery.result import AsyncResult

from celery_patterns import (
    ALL_ARGS,
    ConcurrencyLimit,
    ConcurrencyLimitedTask,
    Lease,
    NonOverlappingTask,
    Singleton,
    SingletonTask,
    concurrency_limit,
    schedule_lock,
    singleton,
    without_overlapping,
)
from celery_patterns.errors import ConcurrencyLimitReached, ScheduleLockError, SingletonConflict

app = Celery("shop")

# --- the values ------------------------------------------------------------------------------------------

assert_type(Singleton(), Singleton)
Singleton(
    "doc", name="docs", scope="until_executing", on_conflict="keep_latest", queued_ttl=timedelta(days=1)
)
Singleton(ALL_ARGS, lease=0.5, on_store_error="raise")
Singleton("doc", "docs")  # type: ignore[call-arg]
Singleton(5)  # type: ignore[arg-type]
Singleton(scope="always")  # type: ignore[arg-type]
Singleton(on_conflict="wait")  # type: ignore[arg-type]
Singleton().lease = 5  # type: ignore[misc]

assert_type(ConcurrencyLimit(3), ConcurrencyLimit)
ConcurrencyLimit(3, key=("tenant", "table"), name="partner", on_conflict="skip", lease=timedelta(minutes=1))
ConcurrencyLimit()  # type: ignore[call-arg]
ConcurrencyLimit("3")  # type: ignore[arg-type]
ConcurrencyLimit(3, "tenant")  # type: ignore[call-arg]
ConcurrencyLimit(3, on_conflict="replace")  # type: ignore[arg-type]

# --- base classes and decorators -------------------------------------------------------------------------


@app.task(base=SingletonTask, singleton=Singleton("doc"))
def index(doc: str) -> str:
    return doc


@app.task(base=NonOverlappingTask)
def clean_up() -> None:
    """Do nothing."""


class PartnerTask(ConcurrencyLimitedTask, SingletonTask):
    """A base of a project's own, with two policies."""

    abstract = True
    singleton = Singleton("url")
    concurrency_limit = ConcurrencyLimit(3, name="partner")


@singleton(on_conflict="skip")
@concurrency_limit(2, key="doc")
@app.task
def plain(doc: str) -> str:
    return doc


@without_overlapping("doc", lease=5)
@app.task
def nightly(doc: str) -> str:
    return doc


assert_type(index, SingletonTask)
assert_type(clean_up, NonOverlappingTask)
assert_type(plain, Task[Any, Any])
assert_type(nightly, Task[Any, Any])
assert_type(index.delay("a"), AsyncResult[Any])
concurrency_limit()  # type: ignore[call-arg]
without_overlapping(scope="until_executed")  # type: ignore[call-arg]

# --- any other code --------------------------------------------------------------------------------------

try:
    with schedule_lock("nightly", timedelta(minutes=10), app=app) as lease:
        assert_type(lease, Lease)
except ScheduleLockError as taken:
    assert_type(taken.retry_after, float | None)
except (SingletonConflict, ConcurrencyLimitReached) as refused:
    assert_type(refused.retry_after, float | None)
schedule_lock("nightly")  # type: ignore[call-arg]
