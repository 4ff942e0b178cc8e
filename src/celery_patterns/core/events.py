"""What the library did, told to whoever wants to know: one frozen event, one ``subscribe``.

Metrics, tests and audit logs are subscribers. Events are delivered in the process and thread in
which they happen, synchronously; a subscriber that raises is logged and never harms the task.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger("celery_patterns")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that a policy did to a call.

    Args:
        kind: What happened, in one word: ``"replayed"``, ``"deferred"``, ``"skipped"``...
            The reference lists them all.
        policy: The kind of policy, such as ``"idempotency"``.
        task: The task's name.
        task_id: The task's id; ``None`` for a call that has none yet.
        key: The key that the call falls under, as operators write it.
        detail: What else is known, by name.
    """

    kind: str
    policy: str
    task: str
    task_id: str | None = None
    key: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


Subscriber = Callable[[Event], object]
_subscribers: tuple[Subscriber, ...] = ()


def subscribe(subscriber: Subscriber) -> Callable[[], None]:
    """Have ``subscriber`` called with every event of this process; returns the way to stop it.

    Subscribe where your worker's module is imported, so that pool processes inherit it. Keep it
    quick: it runs inside the task. Do not raise: what it raises is logged and dropped.
    """
    global _subscribers  # noqa: PLW0603 - one list per process is what this module is
    _subscribers = (*_subscribers, subscriber)

    def unsubscribe() -> None:
        global _subscribers  # noqa: PLW0603
        _subscribers = tuple(one for one in _subscribers if one is not subscriber)

    return unsubscribe


def emit(event: Event) -> None:
    """Tell all subscribers."""
    for subscriber in _subscribers:
        try:
            subscriber(event)
        except Exception:
            logger.exception("A subscriber failed; the event %r is lost to it, the task goes on", event.kind)
