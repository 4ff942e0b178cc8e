"""What idempotency costs: ``python -m benchmarks.idempotency [ROUNDS]``.

The base is two round trips that do nothing: EVALSHA of an empty script, twice. A first run takes
two round trips (begin, complete), a replay one.
"""

from __future__ import annotations

import itertools
import sys

from benchmarks.interleaved import measure, pinned_server, report
from celery_patterns.core.store import Store
from celery_patterns.policies.idempotency.record import Ended, Record, Started, record_key

TARGETS = {"first run": 1.40, "replay": 0.85}
LEASE, TTL, CLAIM = 60.0, 86_400.0, 7_200.0
RESULT = b'application/json utf-8\n{"charged": true, "amount": 12.5}'


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with pinned_server() as url:
        store = Store(url)
        empty = store.client.script_load("return 1")
        numbers = itertools.count()

        def two_empty() -> None:
            store.client.evalsha(empty, 0)
            store.client.evalsha(empty, 0)

        def record(key: str, number: int) -> Record:
            name = record_key(store, "shop.charge", key)
            return Record(
                store=store, key=name, owner=f"task-{number}/nonce", fingerprint="sha256:ab", attempt=0
            )

        def first_run() -> None:
            number = next(numbers)
            mine = record(f"order-{number}", number)
            begun = mine.begin(lease=LEASE, ttl=TTL, on_lapsed="rerun", claim=CLAIM)
            assert isinstance(begun, Started)
            mine.complete(begun.fence, RESULT, TTL)

        def replay() -> None:
            number = next(numbers)
            begun = record("order-0", number).begin(lease=LEASE, ttl=TTL, on_lapsed="rerun", claim=CLAIM)
            assert isinstance(begun, Ended)

        first_run()
        actions = {"two empty EVALSHAs": two_empty, "first run": first_run, "replay": replay}
        met = report(measure(actions, rounds), "two empty EVALSHAs", TARGETS)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
