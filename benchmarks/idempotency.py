"""What idempotency costs: ``python -m benchmarks.idempotency [ROUNDS]``.

The base is two round trips that do nothing: EVALSHA of an empty script, twice. A first run takes
two round trips (begin, complete), a replay one.
"""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING

from benchmarks.interleaved import measure, pinned_server, report
from celery_patterns.core.store import Store
from celery_patterns.policies.idempotency.record import Ended, Record, Started, record_key

if TYPE_CHECKING:
    from collections.abc import Callable

BASE = "two empty EVALSHAs"
TARGETS = {"first run": 1.40, "replay": 0.85}
LEASE, TTL, CLAIM = 60.0, 86_400.0, 7_200.0
RESULT = b'application/json utf-8\n{"charged": true, "amount": 12.5}'


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with pinned_server() as url:
        medians = measure(actions(Store(url)), rounds)
    return 0 if report(medians, BASE, TARGETS) else 1


def actions(store: Store) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    empty = store.client.script_load("return 1")
    numbers = itertools.count()

    def two_empty() -> None:
        store.client.evalsha(empty, 0)
        store.client.evalsha(empty, 0)

    def first_run() -> None:
        number = next(numbers)
        mine = record(store, f"order-{number}", number)
        begun = mine.begin(lease=LEASE, ttl=TTL, on_lapsed="rerun", claim=CLAIM)
        assert isinstance(begun, Started)
        mine.complete(begun.fence, RESULT, TTL)

    def replay() -> None:
        mine = record(store, "order-0", next(numbers))
        assert isinstance(mine.begin(lease=LEASE, ttl=TTL, on_lapsed="rerun", claim=CLAIM), Ended)

    first_run()
    return {BASE: two_empty, "first run": first_run, "replay": replay}


def record(store: Store, key: str, number: int) -> Record:
    """The record of a key, as one task sees it."""
    name = record_key(store, "shop.charge", key)
    return Record(store=store, key=name, owner=f"task-{number}/nonce", fingerprint="sha256:ab", attempt=0)


if __name__ == "__main__":
    sys.exit(main())
