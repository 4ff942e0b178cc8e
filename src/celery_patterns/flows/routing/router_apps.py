"""Which app asks a router. Celery does not say: a task knows its app, but a call by name alone has no task.

``send_task`` for a task of another service is such a call.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from celery import current_app
from celery._state import _get_active_apps  # type: ignore[attr-defined]
from celery.app.routes import Router
from kombu.utils.functional import maybe_evaluate

if TYPE_CHECKING:
    from celery import Celery
    from celery.app.task import Task


_DEPTH: Final = 10
"""How far up Celery's Router may stand: an override and its ``super()`` lie between."""


def app_of(router: object, task: Task[Any, Any] | None) -> Celery:
    """The app that publishes: the task's, else the one that asks, else one that holds the router."""
    if task is not None:
        app: Celery = task.app
        return app
    asking = _asking()
    if asking is not None:
        return asking
    current: Celery = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
    holders = [app for app in _get_active_apps() if _holds(app, router)]
    return current if current in holders or not holders else holders[0]


def router_behind(entry: object) -> object:
    """What Celery asks for an entry of ``task_routes``: a path imported, a bound method as its owner."""
    made = maybe_evaluate(entry)
    return getattr(made, "__self__", made)


def _asking() -> Celery | None:
    """The app whose own Router called us, found on the stack.

    Apps on different brokers may share one router, and the call itself does not tell them apart.
    """
    frame = sys._getframe(2)  # noqa: SLF001 - only the stack knows
    for _ in range(_DEPTH):
        if frame.f_code is Router.query_router.__code__:
            app: Celery | None = frame.f_locals["self"].app
            return app
        if frame.f_back is None:
            break
        frame = frame.f_back
    return None


def _holds(app: Celery, router: object) -> bool:
    """Whether the app has begun to publish, and asks this router."""
    return "amqp" in vars(app) and any(router_behind(entry) is router for entry in app.amqp.routes)
