"""When a worker starts: it hears of revokes, gets ready for tasks, and says what does not go together."""

from __future__ import annotations

import logging
import warnings
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, Any

from celery.app import app_or_default
from celery.signals import celeryd_after_setup, worker_init, worker_process_init

from celery_patterns.core.acks import is_lost_by_a_kill
from celery_patterns.core.install import seam_of
from celery_patterns.core.script import read_all
from celery_patterns.core.settings import disabled_kinds, setting
from celery_patterns.core.store import FAILURES, store_of
from celery_patterns.errors import PatternsWarning, PolicyError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery import Celery

    from celery_patterns.core.policy import Policy

logger = logging.getLogger("celery_patterns")


@worker_init.connect
def _hear_of_revokes(**_: Any) -> None:
    import_module("celery_patterns.core.revokes")  # whoever only publishes does without a worker's modules


@worker_init.connect
def _read_ahead(**_: Any) -> None:
    """What the first task of each pool process would have to wait for, it inherits."""
    read_all()
    import_module("encodings.idna")  # which looking a host up needs


@worker_process_init.connect
def _connect_ahead(**_: Any) -> None:
    """Nor does the first task of a pool process wait for a connection, nor a process for its store."""
    app = app_or_default()
    if any(_policies(task) for task in app.tasks.values()):
        Thread(target=_connect, args=(app,), name="celery-patterns-connect", daemon=True).start()


def _connect(app: Celery) -> None:
    try:
        store = store_of(app)
        with store.reporting():
            store.client.ping()
    except (StoreUnavailable, PolicyError, *FAILURES) as error:
        logger.debug("No store yet: %s", error)  # the first task that needs one says so


@celeryd_after_setup.connect
def _warn(instance: Any, **_: Any) -> None:
    for text in (_of_kills(instance.app), _of_switches(instance.app), _of_store(instance.app)):
        if text:
            warnings.warn(text, PatternsWarning, stacklevel=1)


def _of_store(app: Celery) -> str | None:
    """Say at once what is wrong with settings that each task would fail of."""
    if setting(app, "patterns_url", None) is None or not any(map(_policies, app.tasks.values())):
        return None
    try:
        store_of(app)
    except PolicyError as error:
        return str(error)
    return None


def _of_kills(app: Celery) -> str | None:
    """Name the tasks that a kill loses, though nobody asked for that."""
    lost = [
        task.name
        for task in app.tasks.values()
        if any(policy.late_acks == "warn" for policy in _policies(task)) and is_lost_by_a_kill(task)
    ]
    if not lost:
        return None
    return (
        f"{', '.join(sorted(lost))}: when the process of such a task is killed, it is not run again; "
        "set acks_late and reject_on_worker_lost on it, or acks_late=False if that is meant"
    )


def _of_switches(app: Celery) -> str | None:
    """Name what is to be switched off and is nowhere on, as a misspelt kind is."""
    kinds = {policy.kind for task in app.tasks.values() for policy in _policies(task)}
    nowhere = {*disabled_kinds(app)} - {"*"} - kinds
    if not nowhere:
        return None
    return (
        f"patterns_disabled names {', '.join(map(repr, sorted(nowhere)))}, which no task of this worker has; "
        f"its tasks have {', '.join(map(repr, sorted(kinds))) or 'none'}"
    )


def _policies(task: Any) -> Iterable[Policy]:
    seam = seam_of(task)
    return seam.policies if seam is not None else ()
