"""Which app asks a router. Celery does not say: a task knows its app, but a call by name alone has no task.

``send_task`` for a task of another service is such a call. Then the apps are asked whether they hold this
router in their ``task_routes``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import current_app
from celery._state import _get_active_apps  # type: ignore[attr-defined]
from kombu.utils.functional import maybe_evaluate

if TYPE_CHECKING:
    from celery import Celery
    from celery.app.task import Task


def app_of(router: object, task: Task[Any, Any] | None) -> Celery:
    """The app that publishes: the task's, else the one that holds the router.

    Where several apps hold the same router, the current one is meant. Give each its own router, or publish
    through tasks, if their brokers differ.
    """
    if task is not None:
        app: Celery = task.app
        return app
    current: Celery = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
    holders = [app for app in _get_active_apps() if _holds(app, router)]
    return current if current in holders or not holders else holders[0]


def router_behind(entry: object) -> object:
    """What Celery asks for an entry of ``task_routes``: a path imported, a bound method as its owner."""
    made = maybe_evaluate(entry)
    return getattr(made, "__self__", made)


def _holds(app: Celery, router: object) -> bool:
    """Whether the app has begun to publish, and asks this router."""
    return "amqp" in vars(app) and any(router_behind(entry) is router for entry in app.amqp.routes)
