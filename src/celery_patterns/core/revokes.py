"""A revoke of a call that a worker keeps until its eta is heard at once.

Celery 5.7 writes REVOKED as soon as a worker hears of the revoke; its signal comes when the eta has come, be
that in a week, and until then the call would keep what it holds. So the worker that has the message tells the
policies with the first. What no worker has is in the queue, and is told when one meets it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.exceptions import Ignore
from celery.worker.control import Panel

from celery_patterns.core.request import PolicyRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _revoking(revoke: Callable[..., Any]) -> Callable[..., Any]:
    """Celery's handler of revokes, and then ours."""

    def revoke_and_tell(state: Any, task_id: Any, *args: Any, **kwargs: Any) -> Any:
        answer = revoke(state, task_id, *args, **kwargs)
        ids = {task_id} if isinstance(task_id, str) else set(task_id or ())
        for request in _scheduled(state.consumer.timer):
            if request.id in ids:
                request.tell_failed(Ignore("revoked"))
        return answer

    return revoke_and_tell


def _scheduled(timer: Any) -> Iterator[PolicyRequest]:
    """The deliveries that wait for their eta, as Celery's own ``inspect scheduled`` finds them."""
    for waiting in list(timer.schedule.queue):
        first = next(iter(waiting.entry.args), None)
        if isinstance(first, PolicyRequest):
            yield first


Panel.data["revoke"] = _revoking(Panel.data["revoke"])
