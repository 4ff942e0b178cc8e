"""When a task is acknowledged: what surviving a kill needs, set or at least asked for.

A message that is acknowledged before its task runs is gone when the process is killed. Policies that
promise to outlive that set late acknowledgement themselves (``late_acks = "set"``); the others hold
without it, but a killed task is lost to its caller, so a worker says so once when it starts (``startup``).
"""

from __future__ import annotations

from typing import Any

from celery import Task
from celery.app.annotations import resolve_all

ACK_SETTINGS = ("acks_late", "reject_on_worker_lost")
"""What a task must set so that it is delivered again after its process was killed."""


def set_late_acks(task: Any) -> None:
    """Have ``task`` survive a kill, unless its author decided otherwise."""
    for setting in ACK_SETTINGS:
        if not _is_decided(task, setting):
            setattr(task, setting, True)


def is_lost_by_a_kill(task: Any) -> bool:
    """Whether ``task`` is not delivered again after a kill, without its author having said so."""
    if not task.acks_late:
        return not _is_decided(task, "acks_late")
    survives = task.reject_on_worker_lost or getattr(task, "retry_on_worker_lost", None)  # Celery 5.7's
    return not (survives or _is_decided(task, "reject_on_worker_lost"))


def _is_decided(task: Any, setting: str) -> bool:
    annotated = [name for one in resolve_all(task.app.annotations, task) for name in one]
    return setting in annotated or _is_written(task, setting)


def _is_written(task: Any, setting: str) -> bool:
    """Whether the author of a task wrote a setting, on it or on a base.

    Celery fills what was not written with its defaults when it binds a class, so the value alone
    does not tell; but a class keeps its attributes in the order in which they were set.
    """
    for one in type(task).__mro__:
        if one is Task:
            return False
        names = list(vars(one))
        if setting in names and ("__bound__" not in names or names.index(setting) < names.index("__bound__")):
            return vars(one)[setting] is not None
    return False
