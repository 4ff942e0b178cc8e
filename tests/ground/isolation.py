"""Each test, and each module of tests, leaves this process's Celery as it found it.

Celery and the library keep what a process declares: tasks for apps that do not exist yet, policies by
function, subscribers, apps. What one test declares would reach the next one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from celery import _state

from celery_patterns.core import events
from celery_patterns.core import task as declarations


@contextmanager
def isolated() -> Iterator[None]:
    """Forget afterwards what was declared meanwhile."""
    apps, finalizers = set(_state._get_active_apps()), set(_state._on_app_finalizers)
    attached = {function: list(policies) for function, policies in declarations._attached.items()}
    subscribers = events._subscribers
    current = _state._tls.current_app
    try:
        yield
    finally:
        for app in set(_state._get_active_apps()) - apps:
            app.close()
        _state._on_app_finalizers.intersection_update(finalizers)
        declarations._attached.clear()
        declarations._attached.update(attached)
        events._subscribers = subscribers
        _state._tls.current_app = current
