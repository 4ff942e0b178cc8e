"""A lock for any code: ``with schedule_lock("nightly", 600):``."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from celery._state import get_current_app

from celery_patterns.core.durations import Seconds, seconds
from celery_patterns.core.events import Event, emit
from celery_patterns.core.lease import Lease, keeper, task_id_of
from celery_patterns.core.nonce import new_nonce
from celery_patterns.core.store import store_of, tag
from celery_patterns.errors import PolicyError, ScheduleLockError, StoreUnavailable
from celery_patterns.policies.singleton.lock import Held, Lock, Started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

KIND = "schedule_lock"


@contextmanager
def schedule_lock(name: str, timeout: Seconds, *, app: Celery | None = None) -> Iterator[Lease]:
    """Hold the lock ``name`` meanwhile; for management commands, cron jobs, any code.

    It does not wait: whoever comes second has nothing to do. For tasks, ``@without_overlapping`` says
    the same without a line in the body.

    Args:
        name: The lock's name; one for all processes that share a store.
        timeout: The lease's length, in seconds or as ``timedelta``: how long the lock outlives a
            process that is killed. It is renewed meanwhile, so the work may take longer.
        app: The app whose store is used; default: the current one.

    Yields:
        The lease: its ``fence`` is for what you write to, its ``lost`` says that you should stop.

    Raises:
        PolicyError: ``name`` or ``timeout`` is out of range.
        ScheduleLockError: The lock is held by another, or the store is out of reach.

    Example:
        >>> with memory_store(), schedule_lock("nightly", 600) as lease:
        ...     lease.lost
        False
    """
    if not isinstance(name, str) or not name:
        raise PolicyError(f"schedule_lock({name!r}): give a name that is not empty")
    length = seconds("timeout", timeout, least=0.1)
    store = store_of(app or get_current_app())
    lock = Lock(
        store=store,
        key=store.key(KIND, tag(name)),
        on_conflict="raise",
        lease=length,
        remember=length,
        host=socket.gethostname(),
    )
    lease = _take(lock, f"{socket.gethostname()}:{os.getpid()}:{new_nonce()}/lock", name)
    keeper.hold(lease)
    try:
        yield lease
    finally:
        keeper.drop(lease)
        _give_back(lock, lease, name)


def _take(lock: Lock, owner: str, name: str) -> Lease:
    try:
        begun = lock.begin(owner)
    except StoreUnavailable as error:
        raise ScheduleLockError(f"schedule_lock({name!r}): {error}", None) from error
    if isinstance(begun, Started):
        return Lease(
            store=lock.store, key=lock.key, owner=owner, fence=begun.fence, length=lock.lease, keep=lock.keep
        )
    left = begun.left if isinstance(begun, Held) else None
    holder = task_id_of(begun.owner) if isinstance(begun, Held) else "another"
    _tell("refused", name, owner, holder=holder)
    raise ScheduleLockError(f"schedule_lock({name!r}) is held by {holder}", left)


def _give_back(lock: Lock, lease: Lease, name: str) -> None:
    """Release it. The work is done, so what fails here is reported and no more."""

    def report() -> None:
        successor = lock.release(lease.owner, lease.fence, ended=False)
        if successor is not None:
            _tell("superseded", name, lease.owner, by=task_id_of(successor) or None, fence=lease.fence)

    try:
        report()
    except StoreUnavailable as error:
        _tell("store_error", name, lease.owner, at="release", error=str(error))
        keeper.finish(lease, report, lambda: None)


def _tell(kind: str, name: str, owner: str, **detail: object) -> None:
    emit(Event(kind=kind, policy=KIND, task=name, task_id=task_id_of(owner), key=tag(name), detail=detail))
