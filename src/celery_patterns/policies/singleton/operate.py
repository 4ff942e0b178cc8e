"""What operators do with locks: see who has them, have one released, ask why a call would not run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_patterns.core.holders import Holder, keys_of, policies_of, spellings
from celery_patterns.core.store import store_of
from celery_patterns.policies.singleton import schedule
from celery_patterns.policies.singleton.lock import KIND, Lock

if TYPE_CHECKING:
    from celery_patterns.core.store import Store

KINDS = (KIND, schedule.KIND)

_WHAT_A_CALL_DOES = {
    "use_existing": "would not run but get the result of",
    "skip": "would be skipped in favour of",
    "raise": "would fail with SingletonConflict because of",
    "defer": "would wait for",
    "replace": "would take the place of, or wait for,",
    "keep_latest": "would wait, as the newest that counts, for",
}


def holders(app: Any) -> list[Holder]:
    """Who holds locks now: singletons' and schedule locks.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    store = store_of(app)
    with store.reporting():
        found = [_holder(store, kind, key) for kind in KINDS for key in keys_of(store, kind)]
    return [holder for holder in found if holder is not None]


def find(app: Any, key: str) -> list[Holder]:
    """Who holds one key, written as events write it, or with a plain word for a string.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    store = store_of(app)
    with store.reporting():
        found = [_holder(store, kind, one) for kind in KINDS for one in spellings(key)]
    return [holder for holder in found if holder is not None]


def release(app: Any, holder: Holder) -> bool:
    """Take the lock from ``holder``; whether it still had it.

    What it still does goes on, with a fence that is lower than its successor's, and its lease is lost.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    store = store_of(app)
    lock = Lock(
        store=store, key=_redis_key(store, holder.kind, holder.key), on_conflict="", lease=1, remember=1
    )
    return lock.release(holder.owner, None, ended=False) is None


def explain(app: Any, key: str) -> list[str]:
    """Why a call with ``key`` would not run now, in a sentence for each lock of that name."""
    sentences = []
    for holder in find(app, key):
        if holder.kind == schedule.KIND:
            sentences.append(f"schedule_lock({holder.key!r}) would raise ScheduleLockError: {_who(holder)}.")
        elif holder.state == "lapsed":
            sentences.append(f"A call of {holder.key} would run and take over: {_who(holder)}.")
        else:
            sentences += [f"A call of {_named(app, holder)} {_who(holder)}."]
    return sentences


def _named(app: Any, holder: Holder) -> str:
    """The task whose call is meant, and what its policy has it do."""
    for task, policy in policies_of(app, KIND, holder.key):
        does = _WHAT_A_CALL_DOES[policy.on_conflict]  # type: ignore[attr-defined]
        return f"{task} with the key {holder.key} {does}"
    return f"{holder.key} would conflict with"


def _who(holder: Holder) -> str:
    where = f" on {holder.host}" if holder.host else ""
    if holder.state == "queued":
        state = (
            f"which has been in the queue for {holder.age:.0f} s and keeps its lock for {holder.left:.0f} s"
        )
    elif holder.state == "running":
        state = f"which has run for {holder.age:.0f} s under fence {holder.fence}, its lease renewed"
    else:
        state = f"whose lease of fence {holder.fence} has lapsed without a report"
    return f"{holder.task_id}{where}, {state}{_and_behind(holder)}"


def _and_behind(holder: Holder) -> str:
    """Who waits in line for the lock of a holder."""
    if holder.waiters == 0:
        return ""
    return "; another has the next turn" if holder.waiters == 1 else f"; {holder.waiters} wait in line"


def _holder(store: Store, kind: str, key: str) -> Holder | None:
    fields = store.client.hgetall(_redis_key(store, kind, key))
    if not fields:
        return None
    _, _, host = fields.get(b"of", b"").decode().partition(" ")
    now = store.now()
    until = int(fields.get(b"next", b"0").split(b" ")[0]) / 1000
    in_line = store.client.zcount(f"{_redis_key(store, kind, key)}:looks", now * 1000, "inf")
    return Holder.of(kind, key, fields, now, host=host, waiters=in_line + int(until > now))


def _redis_key(store: Store, kind: str, key: str) -> str:
    return f"{store.prefix}:{kind}:{{{key}}}"
