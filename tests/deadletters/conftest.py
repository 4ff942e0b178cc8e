"""An app whose dead letters are in an empty store, and whose broker is in memory."""

from collections.abc import Iterator

import pytest
from celery import Celery

from celery_patterns.core.store import Store
from celery_patterns.deadletters import DeadLetters
from celery_patterns.testing import MovableClock, memory_store


@pytest.fixture
def store(every_store_url: str) -> Iterator[Store]:
    with memory_store(every_store_url) as store:
        yield store


@pytest.fixture
def app(store: Store) -> Celery:
    return Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)


@pytest.fixture
def desk(app: Celery) -> DeadLetters:
    return DeadLetters(app)


@pytest.fixture
def clock(store: Store) -> MovableClock:
    return MovableClock(store)
