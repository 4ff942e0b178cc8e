"""For the tests of projects that use the library: a store, a clock, events, two assertions.

Installing the package registers the pytest plugin; its fixtures are ``patterns_store``,
``patterns_clock`` and ``patterns_events``. Everything here also works without pytest.
"""

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
