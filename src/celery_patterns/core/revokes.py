"""A worker hears of a revoke: what it holds of the call, and what waits elsewhere, ends at once.

Celery 5.7 writes REVOKED as soon as a worker hears of the revoke of a call that it keeps until its eta; its
signal comes when the eta has come, be that in a week, and until then the call would keep what it holds. So
the worker that has the message tells the policies with the first. What no worker has is in the queue, and is
told when one meets it; or it waits in a place of our own, which listens here.

Imported by workers alone, when they start: nobody else takes commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from celery.exceptions import Ignore
from celery.worker.control import Panel

from celery_patterns.core.request import PolicyRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from celery import Celery


class Listener(Protocol):
    """What is told of each revoke, after Celery has heard of it. It must not raise."""

    def revoked(self, app: Celery, ids: Sequence[str]) -> None:
        """The tasks of these ids are revoked."""

    def revoked_by_stamps(self, app: Celery, headers: Mapping[str, Any]) -> None:
        """The tasks that bear one of these stamps are."""


_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Have ``listener`` told from now on, if it is not already."""
    if listener not in _listeners:
        _listeners.append(listener)


def _revoking(revoke: Callable[..., Any]) -> Callable[..., Any]:
    """Celery's handler of revokes, and then ours."""

    def revoke_and_tell(state: Any, task_id: Any, *args: Any, **kwargs: Any) -> Any:
        answer = revoke(state, task_id, *args, **kwargs)
        ids = [task_id] if isinstance(task_id, str) else list(task_id or ())
        for request in _scheduled(state.consumer.timer):
            if request.id in ids:
                request.tell_failed(Ignore("revoked"))
        for listener in _listeners if ids else ():
            listener.revoked(state.app, ids)
        return answer

    return revoke_and_tell


def _revoking_by_stamps(revoke: Callable[..., Any]) -> Callable[..., Any]:
    """Celery's handler of revokes by stamped headers, and then ours."""

    def revoke_and_tell(state: Any, headers: Any, *args: Any, **kwargs: Any) -> Any:
        answer = revoke(state, headers, *args, **kwargs)
        named = dict(one.split("=")[:2] for one in headers) if isinstance(headers, list) else headers
        for listener in _listeners:
            listener.revoked_by_stamps(state.app, named)
        return answer

    return revoke_and_tell


def _scheduled(timer: Any) -> Iterator[PolicyRequest]:
    """The deliveries that wait for their eta, as Celery's own ``inspect scheduled`` finds them."""
    for waiting in list(timer.schedule.queue):
        first = next(iter(waiting.entry.args), None)
        if isinstance(first, PolicyRequest):
            yield first


Panel.data["revoke"] = _revoking(Panel.data["revoke"])
Panel.data["revoke_by_stamped_headers"] = _revoking_by_stamps(Panel.data["revoke_by_stamped_headers"])
