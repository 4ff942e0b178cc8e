"""What Celery does not tell the result backend of the parts of a chord, and signals do tell.

=========================  =============================================================
``Ignore``, ``Reject``     ``task_postrun``, in the process that ran the task
a task nobody here knows   ``task_unknown``, in the worker's parent
that a part runs           ``task_prerun``, and ``task_postrun`` after a retry (fail_fast)
where nobody would report  ``task_prerun``, on a worker with another result backend
=========================  =============================================================

``Ignore`` is not always an end: ``self.replace`` raises it while another task goes on under the
same id, and our policies raise it to end a redelivered copy. Who raised it tells.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from celery import Task, states
from celery.app.task import Context
from celery.exceptions import NotRegistered
from celery.signals import task_postrun, task_prerun, task_unknown
from celery.utils.log import get_task_logger

from celery_patterns.flows.chords.fail_fast import may_start, waits_again
from celery_patterns.flows.chords.guard import give_up
from celery_patterns.flows.chords.parts import parts_of

if TYPE_CHECKING:
    from types import CodeType

logger = get_task_logger(__name__)

_REPLACING: CodeType = Task.on_replace.__code__
_OURS = __name__.partition(".")[0]


def listen() -> None:
    """Have the signals told to this module; may be repeated."""
    task_prerun.connect(_on_prerun, weak=False, dispatch_uid=f"{__name__}.prerun")
    task_postrun.connect(_on_postrun, weak=False, dispatch_uid=f"{__name__}.postrun")
    task_unknown.connect(_on_unknown, weak=False, dispatch_uid=f"{__name__}.unknown")


def _on_prerun(task: Any, **_: Any) -> None:
    """A task is about to run."""
    request = task.request
    is_in_canvas = request.chord or request.chain
    is_ours = is_in_canvas and getattr(task.backend, "makes_partial_chords", False)
    if is_in_canvas and not is_ours:
        _complain_of(task, request)
    elif is_ours and not may_start(task.backend, request):
        give_up(request)


def _complain_of(task: Any, request: Any) -> None:
    """A part runs where nobody will report it."""
    for part in parts_of(request):
        _complain(str(part.mark.id), part.task, task.backend.as_uri())


@lru_cache(maxsize=128)
def _complain(chord_id: str, name: str | None, uri: str) -> None:
    """Say so, once for each chord."""
    logger.error(
        "%s is a part of partial chord %s, but the result backend of this worker is %s: what becomes of the "
        'chord\'s parts here is not reported. Put "partial+" before it on every worker that runs parts',
        name,
        chord_id,
        uri,
    )


def _on_postrun(task: Any, state: str | None, retval: Any, **_: Any) -> None:
    """A task has run; of one that was ignored or rejected nobody else tells the backend."""
    if state == states.IGNORED and not _goes_on(retval):
        _tell(task.backend, task.request, state, retval)
    elif state == states.REJECTED and not retval.requeue:
        _tell(task.backend, task.request, states.FAILURE, retval)
    elif state == states.RETRY and getattr(task.backend, "makes_partial_chords", False):
        waits_again(task.backend, task.request)


def _on_unknown(sender: Any, message: Any, name: str, **_: Any) -> None:
    """A worker got a task that it does not know, and has rejected its message."""
    try:
        _, _, embed = message.payload
    except Exception:  # noqa: BLE001 - whatever the decoder raises: then only a deadline can know
        return
    request = Context(embed, id=message.headers["id"], task=name)
    _tell(sender.app.backend, request, states.FAILURE, NotRegistered(name))


def _tell(backend: Any, request: Any, state: str, error: BaseException) -> None:
    if getattr(backend, "makes_partial_chords", False):
        backend.report_unreported(request, state, error)


def _goes_on(ignore: BaseException) -> bool:
    """Whether ``Ignore`` was raised for another run of the same task id."""
    traceback, last = ignore.__traceback__, None
    while traceback is not None:
        last = traceback.tb_frame
        if last.f_code is _REPLACING:
            return True
        traceback = traceback.tb_next
    return last is not None and str(last.f_globals.get("__name__")).partition(".")[0] == _OURS
