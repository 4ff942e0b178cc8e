"""The pytest plugin: fixtures for the tests of projects that use the library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_patterns.core.store import Store
    from celery_patterns.testing.assertions import CapturedEvents
    from celery_patterns.testing.clock import MovableClock

# The library is imported by the fixtures that need it: a project's test run loads this plugin
# whether or not it uses it, and before coverage measures anything.


@pytest.fixture
def patterns_store() -> Iterator[Store]:
    """An empty in-memory store, which all apps of the process use during the test."""
    from celery_patterns.testing.store import memory_store  # noqa: PLC0415

    with memory_store() as store:
        yield store


@pytest.fixture
def patterns_clock(patterns_store: Store) -> Iterator[MovableClock]:
    """The store's clock, to be moved; eager calls that are put off move it instead of sleeping."""
    from celery_patterns.testing.clock import MovableClock  # noqa: PLC0415

    clock = MovableClock(patterns_store)
    with clock.waits_in_place():
        yield clock


@pytest.fixture
def patterns_events() -> Iterator[CapturedEvents]:
    """All events of this process during the test."""
    from celery_patterns.testing.assertions import capture  # noqa: PLC0415

    with capture() as events:
        yield events
