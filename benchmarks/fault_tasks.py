"""The tasks that ``benchmarks.faults`` has a worker run: one for each library, locked by its ``key``."""

# ruff: noqa: PLC0415 - what is not installed is left out

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from celery import Celery, current_task

from benchmarks.faults import LONG_RUN, SHORT
from celery_patterns import Singleton, SingletonTask

if TYPE_CHECKING:
    from collections.abc import Callable

URL = os.environ.get("FAULTS_URL", "redis://localhost:6379")
LOG = os.environ.get("FAULTS_LOG", os.devnull)

Lease = float | str | None

app = Celery("faults", broker=f"{URL}/0", backend=f"{URL}/1")
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    patterns_url=f"{URL}/2",
    ONCE={"backend": "celery_once.backends.Redis", "settings": {"url": f"{URL}/2"}},
    singleton_backend_url=f"{URL}/2",
)
client = redis.Redis.from_url(f"{URL}/2")


def note(*fields: object) -> None:
    """Write down what happened, outside of the server."""
    log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, (" ".join(map(str, (*fields, time.time()))) + "\n").encode())
    os.close(log)


def body(key: str, call: int) -> str:
    """What all tasks do: ``key`` is ``<fault>:<library>``."""
    note("begin", key, call)
    fault = key.partition(":")[0]
    if fault.startswith("kill") and call == 1 and not Path(f"{LOG}.{key}").exists():
        Path(f"{LOG}.{key}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "expire":
        time.sleep(LONG_RUN)
    if fault == "retry" and not current_task.request.retries:
        raise current_task.retry(countdown=0.5, max_retries=3)
    note("end", key, call)
    return key


@app.task
def together(_: list[Any], key: str) -> None:
    """The body of a chord."""
    note("chord", key, 0)


def _task(name: str, lease: Lease, function: Callable[..., Any], **options: Any) -> Any:
    late = lease != "early"
    return app.task(
        name=f"faults.{name}.{lease or 'default'}", acks_late=late, reject_on_worker_lost=late, **options
    )(function)


def _seconds(lease: Lease) -> Any:
    """A lock's length, or nothing where it is the default."""
    return None if isinstance(lease, str) else lease


def _body() -> Callable[..., Any]:
    """The body as a function of its own, since Celery keeps one task for one function."""

    def run(key: str, call: int) -> str:
        return body(key, call)

    return run


def _ours(lease: Lease) -> Any:
    length = _seconds(lease)
    policy = Singleton(key="key", lease=length) if length else Singleton(key="key")
    return _task("ours", lease, _body(), base=SingletonTask, singleton=policy)


def _naive(lease: Lease) -> Any:
    def locked(key: str, call: int) -> str | None:
        if not client.set(f"naive:{key}", 1, nx=True, ex=int(_seconds(lease) or 300)):
            return None
        try:
            return body(key, call)
        finally:
            client.delete(f"naive:{key}")

    return _task("naive", lease, locked)


def _celery_singleton(lease: Lease) -> Any:
    from celery_singleton import Singleton as Peer

    return _task("singleton", lease, _body(), base=Peer, unique_on=["key"], lock_expiry=_seconds(lease))


def _celery_once(lease: Lease) -> Any:
    from celery_once import QueueOnce

    once: dict[str, Any] = {"graceful": True, "keys": ["key"]}
    if _seconds(lease):
        once["timeout"] = lease
    return _task("once", lease, _body(), base=QueueOnce, once=once)


def _celery_heimdall(lease: Lease) -> Any:
    from celery_heimdall import HeimdallTask

    class Peer(HeimdallTask):
        abstract = True

        def setup_redis(self) -> redis.Redis:
            return client

    heimdall: dict[str, Any] = {"unique": True, "key": lambda _, kwargs: f"heimdall:{kwargs['key']}"}
    if _seconds(lease):
        heimdall["unique_timeout"] = lease
    return _task("heimdall", lease, _body(), base=Peer, heimdall=heimdall)


_LIBRARIES = {
    "celery-singleton": _celery_singleton,
    "celery-once": _celery_once,
    "celery-heimdall": _celery_heimdall,
    "SET NX and DEL": _naive,
    "celery-patterns": _ours,
}

TASKS: dict[str, dict[float | str | None, Any]] = {}
"""By library, and by how long its lock lasts; ``None`` is its default, and ``"early"`` with an early ack."""
MISSING: list[str] = []
"""Libraries that are not installed."""

for library, make in _LIBRARIES.items():
    try:
        TASKS[library] = {lease: make(lease) for lease in (None, SHORT, "early")}
    except ImportError:
        MISSING.append(library)
