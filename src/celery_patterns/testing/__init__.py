"""For the tests of projects that use the library: a store, a clock, events, two assertions.

Installing the package registers the pytest plugin; its fixtures are ``patterns_store``,
``patterns_clock`` and ``patterns_events``. Everything here also works without pytest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery_patterns.testing.assertions import CapturedEvents, assert_deferred, assert_replayed, capture
    from celery_patterns.testing.clock import MovableClock
    from celery_patterns.testing.store import memory_store

__all__ = [
    "CapturedEvents",
    "MovableClock",
    "assert_deferred",
    "assert_replayed",
    "capture",
    "memory_store",
]

_HOMES = {"MovableClock": "clock", "memory_store": "store"}


def __getattr__(name: str) -> Any:
    """Import what is asked for: every test run loads the plugin beside this, whether or not it uses it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'assertions')}"), name)
    globals()[name] = value
    return value
