"""Giving a replayed task its place in a chord back.

A chord counts a failed part as reported; when all have reported, it fails and its state is deleted.
So as long as it waits for other parts, the failed one can be taken out again, and the chord waits
for the replay. Later there is nothing left to heal: the replay runs, and the chord's body does not.

A death is stored before Celery reports it to the chord. So the part of a task that died a moment
ago may not have reported yet: it is waited for, or its failure would be counted after it was healed.

Celery keeps this state in its Redis backend, under keys that are its own business: what is known
here is how 5.5 to 5.7 name them. Of other backends nothing is known. The backend of partial chords
keeps theirs in its own way, and says itself which of its parts hang on an entry.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from celery import states
from celery.backends.redis import RedisBackend
from redis.exceptions import RedisError

from celery_patterns.core.script import Script

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from celery import Celery

    from celery_patterns.core.store import Store
    from celery_patterns.deadletters.entry import Candidate

logger = logging.getLogger("celery_patterns")

_reopen = Script("chord_reopen")

SETTLE = 3.0
"""Seconds after a death in which its report to a chord may still be on the way."""
TOLD_TWICE = 1.0
"""Seconds after a death in which Celery may report it a second time, as it does with a hard limit."""
_POLL = 0.02

Healing = Literal["waits", "over", "unknown"]
"""Whether a chord waits for the replay of its part, or is over, or nobody here can tell."""

OVER = "the chord that it was part of is over, so its body will not run"
UNKNOWN = "it was part of a chord, and whether that still waits for it cannot be told"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A place in a chord of Celery's own.

    Args:
        task_id: The task that reports for it: the one that died, or the end of its chain.
        group: The id of the chord's header.
        index: Which part it is, as far as that is known.
    """

    task_id: str
    group: str
    index: int | None


class DeadPart(Protocol):
    """A place in a chord that counts in a way of its own.

    A result backend that has such chords says by ``dead_parts(task_id, embed)`` which of their parts
    hang on a dead task.
    """

    @property
    def task_id(self) -> str:
        """The task that reports for it."""

    @property
    def body(self) -> Mapping[str, Any]:
        """The chord's body, as the message carries it."""

    def take_back(self, until: float) -> bool:
        """Have the chord wait for the part once more, which has reported by ``until``; whether it does."""


def heal(app: Celery, store: Store, entry: Candidate, *, new_id: bool = False) -> str | None:
    """Have the chords that an entry is part of wait for its replay; or say why one of them will not.

    Args:
        app: Whose result backend.
        store: Where the entry is.
        entry: The entry.
        new_id: Whether the replay will have another task id, by which a partial chord does not know it.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    decoded = entry.letter.decoded(app)
    if decoded is None:
        return UNKNOWN if entry.letter.headers.get("group") else None
    backend: Any = app.backend
    ask = getattr(backend, "dead_parts", None)
    partial: Sequence[DeadPart] = ask(entry.task_id, decoded[2]) if ask is not None else ()
    parts = list(_parts(entry, decoded[2], [part.body for part in partial]))
    if not parts and not partial:
        return None
    until = time.monotonic() + SETTLE - (store.now() - entry.died)
    found = {_heal(backend, part, until) for part in parts}
    for part in partial:
        is_stranger = new_id and part.task_id == entry.task_id
        found.add("over" if is_stranger else _take_back(part, until))
    return OVER if "over" in found else UNKNOWN if "unknown" in found else None


def _parts(
    entry: Candidate, embed: Mapping[str, Any], partial: Sequence[Mapping[str, Any]]
) -> Iterator[Part]:
    """Where the failure was counted: for the task itself, or for the end of its chain.

    Args:
        entry: The entry.
        embed: What its message has beside the arguments.
        partial: Bodies of chords that count in a way of their own.
    """
    headers = entry.letter.headers
    if embed.get("chord") and embed["chord"] not in partial and headers.get("group"):
        yield Part(task_id=entry.task_id, group=headers["group"], index=headers.get("group_index"))
    for step in embed.get("chain") or ():
        options = step.get("options") or {}
        if options.get("chord") and options["chord"] not in partial and options.get("group_id"):
            yield Part(
                task_id=options["task_id"], group=options["group_id"], index=options.get("group_index")
            )


def _take_back(part: DeadPart, until: float) -> Healing:
    time.sleep(max(0.0, until - SETTLE + TOLD_TWICE - time.monotonic()))
    try:
        return "waits" if part.take_back(until) else "over"
    except RedisError as error:
        logger.warning("Cannot tell whether the chord of %s still waits for it: %s", part.task_id, error)
        return "unknown"


def _heal(backend: Any, part: Part, until: float) -> Healing:
    if not isinstance(backend, RedisBackend) or not getattr(backend, "_chord_zset", False):
        return "unknown"
    try:
        return _heal_celerys(backend, part, until)
    except RedisError as error:
        logger.warning("Cannot tell whether chord %s still waits for %s: %s", part.group, part.task_id, error)
        return "unknown"


def _heal_celerys(backend: Any, part: Part, until: float) -> Healing:
    """In Celery's Redis backend: the parts that have reported stand in a sorted set."""
    keys = [backend.get_key_for_group(part.group, suffix) for suffix in (".j", ".s", ".t", ".d", ".c")]
    score = "+inf" if part.index is None else part.index
    failed = _failures(backend, keys, score, part.task_id)
    while not failed and time.monotonic() < until and backend.client.exists(keys[1]):
        time.sleep(_POLL)
        failed = _failures(backend, keys, score, part.task_id)
    waits = backend.client.eval(_reopen.text(), len(keys), *keys, f"{part.task_id}:{score}", *failed)
    return "waits" if waits else "over"


def _failures(backend: Any, keys: list[Any], score: Any, task_id: str) -> list[bytes]:
    """What the part has reported."""
    reported = backend.client.zrangebyscore(keys[0], score, score)
    return [one for one in reported if _is_failure_of(backend, one, task_id)]


def _is_failure_of(backend: Any, reported: bytes, task_id: str) -> bool:
    _, found, state, _ = backend.decode(reported)
    return bool(found == task_id and state in states.EXCEPTION_STATES)
