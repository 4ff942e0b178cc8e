"""Stores for the tests of rate limits."""

from collections.abc import Iterator

import pytest
from celery import Celery

from celery_patterns.core.store import Store
from celery_patterns.testing import MovableClock, memory_store
from tests.apps.witness import alone
from tests.core import conftest as _profiles  # noqa: F401 - how hard property tests try
from tests.policies.rate_limits.frozen import FrozenClock, frozen_scripts


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """Tasks of one test are not those of the next."""
    with alone():
        yield


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with memory_store(store_url) as store:
        yield store


@pytest.fixture
def clock(store: Store) -> Iterator[MovableClock]:
    clock = MovableClock(store)
    with clock.waits_in_place():
        yield clock


@pytest.fixture
def frozen(store: Store) -> Iterator[FrozenClock]:
    """A clock that stands still."""
    with frozen_scripts():
        yield FrozenClock(store)


@pytest.fixture
def app(store: Store) -> Celery:
    return Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)
