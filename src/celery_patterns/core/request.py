"""The worker's parent: who a delivery is, and what happens when its process dies.

A task with policies gets a ``Request`` class of its own, so a task without any pays nothing. It

* makes the nonce of each delivery on receipt, in the parent. Parent and child then name the same
  owner, and a redelivered message is another owner than the delivery before it;
* tells the policies when the pool process that ran a delivery is gone. Celery sends no signal when
  a lost worker's message is requeued, so signals alone would leave leases to run out by themselves;
* remembers, while Celery reports a failure in the parent, which delivery it is about: the
  ``task_failure`` signal carries a task id only, and two deliveries can share it.

Imported by workers alone: a task names the class as text until one asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback  # type: ignore[attr-defined]
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery.exceptions import Reject
from celery.worker.request import Request
from celery.worker.state import revoked

from celery_patterns.core.lease import KILL_GRACE
from celery_patterns.core.nonce import new_nonce
from celery_patterns.core.parking import HOME_HEADER, OF_A_RELEASE, REVOKED_HEADER, TICKET_HEADER
from celery_patterns.core.policy import CONTENT_HEADER, NONCE_HEADER
from celery_patterns.core.reported import reporting

if TYPE_CHECKING:
    from celery.app.task import Context


class PolicyRequest(Request):
    """The request of a task that has policies."""

    _request_dict: dict[str, Any]
    _task: Any
    _context: Context
    _is_timed_out = False
    has_turn = False
    """Whether it comes from a line of the waiting room: a token, a place or a lock is meant for it."""

    def __init__(self, message: Any, **options: Any) -> None:
        super().__init__(message, **options)
        self._request_dict[NONCE_HEADER] = new_nonce()
        self._request_dict[CONTENT_HEADER] = message.content_type
        home = self._request_dict.pop(HOME_HEADER, None)
        self.has_turn = home is not None and TICKET_HEADER in self._request_dict
        if home is not None:  # what follows goes where the message was meant to go, not where it came from
            exchange, _, routing_key = home.partition("\n")
            self._request_dict["delivery_info"].update(exchange=exchange, routing_key=routing_key)
        if self._request_dict.pop(REVOKED_HEADER, False):
            revoked.add(self.id)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """The hard limit: the process is being killed, and will be gone in a moment."""
        if soft:
            super().on_timeout(soft, timeout)
            return
        self._tell_timed_out()
        with reporting(self._context):
            super().on_timeout(soft, timeout)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """The body raised, or its process is gone."""
        error = exc_info.exception
        error = error.exc if isinstance(error, ExceptionWithTraceback) else error
        if isinstance(error, (WorkerLostError, Terminated, SystemExit, KeyboardInterrupt)):
            self._tell_lost(0.0)
            for header in OF_A_RELEASE:  # a retry that Celery publishes from here has no turn
                (self._context.headers or {}).pop(header, None)
        elif isinstance(error, TimeLimitExceeded):
            self._tell_timed_out()
        if isinstance(error, (SystemExit, KeyboardInterrupt)) and not self._is_meant():
            exc_info = _lost(error)
        with reporting(self._context):
            super().on_failure(exc_info, send_failed_event, return_ok)
        if isinstance(error, Reject) and not error.requeue:  # type: ignore[attr-defined]  # 5.5 sends no signal
            self.tell_failed(error)

    def _is_meant(self) -> bool:
        """Whether the worker has ended the process itself: its task was revoked, or its connection lost."""
        return bool(getattr(self, "_already_revoked", False) or getattr(self, "_already_cancelled", False))

    def tell_failed(self, error: BaseException) -> None:
        """It will not run, though Celery has yet to say so."""
        self._task.__patterns__.failed(self._context, error)

    def _tell_timed_out(self) -> None:
        """Once, before its failure can be seen: pools of processes report that ahead of the limit itself."""
        if not self._is_timed_out:
            self._is_timed_out = True
            self._tell_lost(KILL_GRACE)

    def _tell_lost(self, grace: float) -> None:
        self._task.__patterns__.lost(self._context, grace)


def _lost(error: BaseException) -> Any:
    """A body that exits takes its process along: Celery 5.7 says so, 5.5 stumbles and loses the task."""
    try:
        raise WorkerLostError(f"The body ended its process: {error!r}")  # noqa: TRY301 - it needs a traceback
    except WorkerLostError:
        return ExceptionInfo()


def with_policies(request_class: type[Request]) -> type[Request]:
    """``request_class`` with what policies need, for tasks that bring a ``Request`` of their own."""
    if issubclass(request_class, PolicyRequest):
        return request_class
    if request_class is Request:
        return PolicyRequest
    return type(f"Policy{request_class.__name__}", (PolicyRequest, request_class), {})
