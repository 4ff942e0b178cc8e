"""What the caller of a task sees while it is put off: RETRY, stored before the next message is out.

Celery stores it afterwards. The next delivery may then have ended already, in another process, and
what it has stored is overwritten: the task ran, and its caller waits for ever. ::

    this delivery                      the next one
    publishes, to arrive in 1 ms
                                       runs, and stores SUCCESS
    stores RETRY

So whoever puts a task off stores first and publishes then; and when Celery's tracer comes to store
what is stored, the backend does nothing for this one request.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery_patterns.core.policy import Call

logger = logging.getLogger("celery_patterns")

_SHOWN = "cp_shown"


def show_retry(call: Call, reason: Exception) -> None:
    """Have the running call show as RETRY, with ``reason``, from now on until its next delivery.

    A result backend that is out of reach stops nobody: the task goes on, and shows what it showed before.
    """
    task, request = call.task, call.request
    backend = task.backend
    ignores = task.ignore_result or getattr(request, "ignore_result", False)
    if not ignores or task.store_errors_even_if_ignored:
        try:
            backend.mark_as_retry(request.id, reason, request=request)
        except Exception:
            logger.exception("%s[%s] is put off, and does not show it", call.name, request.id)
    setattr(request, _SHOWN, True)
    if not hasattr(backend.mark_as_retry, _SHOWN):
        backend.mark_as_retry = _unless_shown(backend.mark_as_retry)


def _unless_shown(mark_as_retry: Any) -> Any:
    @functools.wraps(mark_as_retry)
    def unless_shown(*args: Any, request: Any = None, **options: Any) -> Any:
        if getattr(request, _SHOWN, False):
            return None
        return mark_as_retry(*args, request=request, **options)

    setattr(unless_shown, _SHOWN, True)
    return unless_shown
