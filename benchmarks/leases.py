"""What a lock and a place under a limit cost: ``python -m benchmarks.leases [ROUNDS]``.

The base is two round trips that do nothing: EVALSHA of an empty script, twice. Taking a lease and
giving it back are one round trip each; what is remembered of the end is part of the latter.
"""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING

from benchmarks.interleaved import measure, pinned_server, report
from celery_patterns.core.store import Store
from celery_patterns.policies.concurrency import places
from celery_patterns.policies.singleton import lock

if TYPE_CHECKING:
    from collections.abc import Callable

BASE = "two empty EVALSHAs"
TARGET = 1.25
LEASE, REMEMBER, QUEUED = 60.0, 3_600.0, 3_600.0


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with pinned_server() as url:
        medians = measure(actions(Store(url)), rounds)
    return 0 if report(medians, BASE, {"singleton, acquire + release": TARGET}) else 1


def actions(store: Store) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    empty = store.client.script_load("return 1")
    numbers = itertools.count()

    def singleton(key: str) -> lock.Lock:
        name = lock.lock_key(store, "shop.sync", key)
        return lock.Lock(store=store, key=name, on_conflict="use_existing", lease=LEASE, remember=REMEMBER)

    def two_empty() -> None:
        store.client.evalsha(empty, 0)
        store.client.evalsha(empty, 0)

    one, busy = singleton("doc-free"), singleton("doc-held")
    under = places.Places(
        store=store, key=places.limit_key(store, "export", None), limit=10, lease=LEASE, remember=REMEMBER
    )
    busy.queue("task", QUEUED)

    def run_alone() -> None:
        owner = f"task-{next(numbers)}/nonce"
        begun = one.begin(owner)
        assert isinstance(begun, lock.Started)
        one.release(owner, begun.fence, ended=True)

    def publish_and_run() -> None:
        number = next(numbers)
        one.queue(f"task-{number}", QUEUED)
        begun = one.begin(f"task-{number}/nonce")
        assert isinstance(begun, lock.Started)
        one.release(f"task-{number}/nonce", begun.fence, ended=True)

    def duplicate() -> None:
        assert isinstance(busy.queue("other", QUEUED), lock.Held)

    def run_under_limit() -> None:
        owner = f"task-{next(numbers)}/nonce"
        begun = under.acquire(owner)
        assert isinstance(begun, places.Started)
        under.release(owner, begun.fence, ended=True)

    return {
        BASE: two_empty,
        "singleton, acquire + release": run_alone,
        "singleton, publish + acquire + release": publish_and_run,
        "singleton, a duplicate at publish": duplicate,
        "limit, acquire + release": run_under_limit,
    }


if __name__ == "__main__":
    sys.exit(main())
