"""A store, a clock and a worker inside the test, for what needs no processes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery

from celery_patterns import ConcurrencyLimit, ConcurrencyLimitedTask
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
    """`make(2, on_conflict="skip")`: an `export(tenant, number)` under a limit, whose body may be given."""

    def make(limit: int, body: Callable[..., Any] | None = None, **options: Any) -> Any:
        task_options = {
            name: options.pop(name)
            for name in list(options)
            if name not in ConcurrencyLimit.__dataclass_fields__
        }

        def export(self: Any, tenant: str, number: int = 1) -> Any:
            runs.append((tenant, number))
            return body(self, tenant, number) if body else f"{tenant}{number}"

        return app.task(
            base=ConcurrencyLimitedTask,
            concurrency_limit=ConcurrencyLimit(limit, **options),
            name="shop.export",
            bind=True,
            shared=False,
            **task_options,
        )(export)

    return make
