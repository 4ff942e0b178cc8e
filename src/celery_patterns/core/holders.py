"""Who holds what, for operators: one value for locks, places and whatever else stands on a lease."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery_patterns.core.canonical import canonical_text, shorten
from celery_patterns.core.lease import task_id_of
from celery_patterns.core.store import tag

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from celery_patterns.core.policy import Policy
    from celery_patterns.core.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """One who holds a key, as an operator sees it.

    Args:
        kind: The policy's kind.
        key: The key, ``<name>:<key>``, as events and error messages write it.
        state: ``"queued"`` (a message that waits), ``"running"`` or ``"lapsed"`` (it vanished).
        task_id: The task; for a schedule lock, the process.
        host: The worker, or the host that published it.
        age: For how many seconds it has held it.
        left: For how many more it will, without another sign of life.
        fence: The fencing token; ``None`` in the queue.
        waiters: How many wait for the key in line.
        owner: The delivery, to be named when it is released.
    """

    kind: str
    key: str
    state: str
    task_id: str
    host: str
    age: float
    left: float
    fence: int | None
    waiters: int
    owner: str

    @classmethod
    def of(
        cls, kind: str, key: str, fields: Mapping[bytes, bytes], now: float, *, host: str, waiters: int
    ) -> Holder:
        """From the hash that holds the lease."""
        owner = fields[b"owner"].decode()
        queued = owner.endswith("/")
        left = int(fields[b"until"]) / 1000 - now
        since = fields.get(b"at" if queued else b"fence")
        return cls(
            kind=kind,
            key=key,
            state="lapsed" if left <= 0 else "queued" if queued else "running",
            task_id=task_id_of(owner),
            host=host,
            age=max(0.0, now - int(since) / 1e6) if since else 0.0,
            left=max(0.0, left),
            fence=None if queued else int(fields[b"fence"]),
            waiters=waiters,
            owner=owner,
        )


def keys_of(store: Store, kind: str, suffix: str = "") -> Iterator[str]:
    """The keys of one kind that are in the store now, as operators write them."""
    before, after = f"{store.prefix}:{kind}:{{", f"}}{suffix}"
    for found in store.client.scan_iter(f"{before}*{after}", count=1_000):
        yield found.decode().removeprefix(before).removesuffix(after)


def spellings(key: str) -> tuple[str, str]:
    """A key as it was typed, and with a plain word in it taken for a string: ``charge:"A-17"``."""
    name, _, text = key.partition(":")
    return key, f"{name}:{shorten(canonical_text(text))}"


def policies_of(app: Any, kind: str, key: str) -> Iterator[tuple[str, Policy]]:
    """The tasks of ``app`` whose policy of one kind a key belongs to, with that policy."""
    name = key.partition(":")[0]
    for task in app.tasks.values():
        seam = getattr(task, "__patterns__", None)
        for policy in seam.policies if seam is not None else ():
            if policy.kind == kind and tag(getattr(policy, "name", None) or task.name) == name:
                yield task.name, policy
