"""A store, a clock and a worker inside the test, for what needs no processes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery

from celery_patterns import Singleton, SingletonTask
from celery_patterns.core.store import Store
from celery_patterns.testing import MovableClock, memory_store
from tests.ground.inline import InlineWorker, inline_app

Make = Callable[..., Any]


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
def app() -> Celery:
    return inline_app()


@pytest.fixture
def work(app: Celery, clock: MovableClock) -> InlineWorker:
    return InlineWorker(app, clock)


@pytest.fixture
def runs() -> list[Any]:
    """The arguments with which bodies ran, in order."""
    return []


@pytest.fixture
def make(app: Celery, runs: list[Any]) -> Make:
    """`make(on_conflict="skip")`: a singleton `sync(doc, version)` by `doc`, whose body may be given."""

    def make(body: Callable[..., Any] | None = None, **options: Any) -> Any:
        task_options = {
            name: options.pop(name) for name in list(options) if name not in Singleton.__dataclass_fields__
        }
        options.setdefault("key", "doc")

        def sync(self: Any, doc: Any, version: int = 1) -> Any:
            runs.append((doc, version))
            return body(self, doc, version) if body else f"{doc}{version}"

        return app.task(
            base=SingletonTask,
            singleton=Singleton(**options),
            name="shop.sync",
            bind=True,
            shared=False,
            **task_options,
        )(sync)

    return make
