"""What operators do with records: look at one, and have it forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery_patterns.core.holders import spellings
from celery_patterns.core.lease import task_id_of
from celery_patterns.core.store import store_of
from celery_patterns.policies.idempotency.record import KIND

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What an operator sees of a record."""

    key: str
    state: str
    task_id: str
    fence: int
    lease_left: float
    expires_in: float
    result: str | None

    @classmethod
    def of(cls, key: str, fields: Mapping[bytes, bytes], now: float, expires_in: float) -> Snapshot:
        """From the hash itself."""
        state = fields.get(b"state", b"running").decode()
        left = int(fields[b"until"]) / 1000 - now
        return cls(
            key=key,
            state="lapsed" if state == "running" and left <= 0 else state,
            task_id=task_id_of(fields[b"owner"].decode()),
            fence=int(fields[b"fence"]),
            lease_left=max(0.0, left) if state == "running" else 0.0,
            expires_in=expires_in,
            result=fields[b"end"].partition(b"\n")[2].decode(errors="replace")
            if fields.get(b"end")
            else None,
        )


def find(app: Any, key: str) -> Snapshot | None:
    """The record of a key, written as events and logs write it: ``<name>:<key>``.

    A plain word after the colon means the string (``charge:A-17`` for ``charge:"A-17"``).

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    store = store_of(app)
    with store.reporting():
        for candidate in spellings(key):
            redis_key = f"{store.prefix}:{KIND}:{{{candidate}}}"
            fields = store.client.hgetall(redis_key)
            if fields:
                return Snapshot.of(candidate, fields, store.now(), store.client.pttl(redis_key) / 1000)
    return None


def forget(app: Any, key: str) -> bool:
    """Delete the record of a key, so that its next call runs; whether there was one.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    found = find(app, key)
    if found is None:
        return False
    store = store_of(app)
    with store.reporting():
        return bool(store.client.delete(f"{store.prefix}:{KIND}:{{{found.key}}}"))
