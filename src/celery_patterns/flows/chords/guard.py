"""What ``fail_fast`` has given up does not run, wherever its message is by then.

A revocation is a broadcast: a worker that has not heard of it yet would start a part that its chord
has written down as revoked, and an errback would clean up under it. So the part itself asks when it
starts (``task_prerun``), which is one look at the record and nothing for any other chord. A signal
cannot keep a task from running; the guard around its ``run`` can. As with policies, it has to be
there before the worker builds its tracer for the task; the result backend puts it there.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from celery.exceptions import Ignore
from celery.signals import task_revoked
from celery.utils.log import get_task_logger

if TYPE_CHECKING:
    from celery import Celery

logger = get_task_logger(__name__)

REASON = "fail_fast: too many other parts are not ok"
_GIVEN_UP = "cp_given_up"
_GUARDED = "cp_guarded"


def guard_tasks(app: Celery) -> None:
    """Put the guard around all tasks of an app, at once or when it has made them; may be repeated."""
    if app.finalized:  # type: ignore[attr-defined]
        for task in list(app._tasks.values()):  # type: ignore[attr-defined]  # noqa: SLF001 - `tasks` would finalize
            _guard(task)
    else:
        app.on_after_finalize.connect(_on_finalize, sender=app, weak=False, dispatch_uid=__name__)


def give_up(request: Any) -> None:
    """Have the guard end the task that is about to run."""
    setattr(request, _GIVEN_UP, True)


def _on_finalize(sender: Celery, **_: Any) -> None:
    guard_tasks(sender)


def _guard(task: Any) -> None:
    run = task.run
    if getattr(run, _GUARDED, False):
        return

    @functools.wraps(run)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        request = task.request
        if getattr(request, _GIVEN_UP, False) and not request.called_directly:
            _end_as_revoked(task, request)
            raise Ignore(REASON)
        return run(*args, **kwargs)

    setattr(guarded, _GUARDED, True)
    task.run = guarded


def _end_as_revoked(task: Any, request: Any) -> None:
    """Do as a worker does with a task that it knows to be revoked."""
    logger.info("Not run, since its chord has given it up: %s[%s]", task.name, request.id)
    task.backend.mark_as_revoked(request.id, REASON, request=request, store_result=not request.ignore_result)
    task_revoked.send(sender=task, request=request, terminated=False, signum=None, expired=False)
