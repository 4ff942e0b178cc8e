"""Each test, and each module of tests, leaves this process's Celery as it found it.

Celery and the library keep what a process declares: tasks for apps that do not exist yet, policies by
function, subscribers, receivers of signals, apps. What one test declares would reach the next one.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import _state, signals
from celery.utils.dispatch import Signal

from celery_patterns.core import events
from celery_patterns.core import task as declarations

DECLARED = frozenset(_state._on_app_finalizers)
"""What every app of this process gets, before any module of tests was imported: Celery's own tasks."""

SIGNALS = [signal for signal in vars(signals).values() if isinstance(signal, Signal)]


@contextmanager
def from_nothing() -> Iterator[None]:
    """As `isolated`, and without the tasks of all the modules that were imported to collect their tests."""
    before = set(_state._on_app_finalizers)
    _state._on_app_finalizers.intersection_update(DECLARED)
    try:
        with isolated():
            yield
    finally:
        _state._on_app_finalizers.update(before)


@contextmanager
def isolated() -> Iterator[None]:
    """Forget afterwards what was declared meanwhile."""
    apps, finalizers = set(_state._get_active_apps()), set(_state._on_app_finalizers)
    attached = {function: list(policies) for function, policies in declarations._attached.items()}
    subscribers = events._subscribers
    receivers = [list(signal.receivers) for signal in SIGNALS]
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
        for signal, before in zip(SIGNALS, receivers, strict=True):
            signal.receivers = [one for one in signal.receivers if one in before or not _of_tests(one[1])]
        _state._tls.current_app = current


def _of_tests(receiver: Any) -> bool:
    """Whether a module of tests connected it: what a library connects, once imported, stays."""
    function = receiver() if isinstance(receiver, weakref.ref) else receiver
    return function is None or str(getattr(function, "__module__", "")).startswith("tests.")
