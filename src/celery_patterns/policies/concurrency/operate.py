"""What operators do with limits: see who has a place, have one given up, ask why a call would not run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_patterns.core.holders import Holder, keys_of, policies_of, spellings
from celery_patterns.core.store import store_of
from celery_patterns.policies.concurrency.places import KIND, Places

if TYPE_CHECKING:
    from celery_patterns.core.store import Store

_WHAT_A_CALL_DOES = {
    "defer": "would wait",
    "skip": "would be skipped",
    "raise": "would fail with ConcurrencyLimitReached",
}


def holders(app: Any) -> list[Holder]:
    """Who holds places now.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    store = store_of(app)
    with store.reporting():
        return [holder for key in keys_of(store, KIND, ":held") for holder in _holders(store, key)]


def find(app: Any, key: str) -> list[Holder]:
    """Who holds places under one limit, written as events write it, or with a plain word for a string.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    store = store_of(app)
    with store.reporting():
        return [holder for one in spellings(key) for holder in _holders(store, one)]


def release(app: Any, holder: Holder) -> bool:
    """Take the place from ``holder``; whether it still had it.

    What it still does goes on beside those who have a place, and its lease is lost.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    store = store_of(app)
    places = Places(store=store, key=_redis_key(store, holder.key), limit=1, lease=1, remember=1)
    return places.release(holder.owner, None, ended=False)


def explain(app: Any, key: str) -> list[str]:
    """Why a call with ``key`` would not run now, in a sentence for each limit of that name."""
    store = store_of(app)
    sentences = []
    for one in spellings(key):
        with store.reporting():
            living = [holder for holder in _holders(store, one) if holder.state == "running"]
            limit = int((store.client.get(_redis_key(store, one)) or b"1 0 0").split(b" ")[2])
        if not living:
            continue
        waiters = living[0].waiters
        taken = f"{len(living)} of {limit} places are taken, by {', '.join(each.task_id for each in living)}"
        if len(living) + waiters < limit:
            sentences.append(f"A call of {one} would run: {taken}.")
        else:
            sentences.append(f"A call of {_named(app, one)}: {taken}; {waiters} wait in line.")
    return sentences or [
        f"A call of {task} under the limit {key} would run: 0 of {policy.limit} places are taken."  # type: ignore[attr-defined]
        for task, policy in policies_of(app, KIND, key)
    ]


def _named(app: Any, key: str) -> str:
    for task, policy in policies_of(app, KIND, key):
        return f"{task} under the limit {key} {_WHAT_A_CALL_DOES[policy.on_conflict]}"  # type: ignore[attr-defined]
    return f"{key} would not run"


def _holders(store: Store, key: str) -> list[Holder]:
    base, now = _redis_key(store, key), store.now()
    waiters = store.client.zcount(f"{base}:looks", now * 1000, "inf")
    found = []
    for task_id in store.client.zrange(f"{base}:held", 0, -1):
        fields = store.client.hgetall(f"{base}:held:{task_id.decode()}")
        if fields:
            host = fields.get(b"host", b"").decode()
            found.append(Holder.of(KIND, key, fields, now, host=host, waiters=waiters))
    return found


def _redis_key(store: Store, key: str) -> str:
    return f"{store.prefix}:{KIND}:{{{key}}}"
