"""Giving a replayed task its place in a chord back.

A chord counts a failed part as reported; when all have reported, it fails and its state is deleted.
So as long as it waits for other parts, the failed one can be taken out again, and the chord waits
for the replay. Later there is nothing left to heal: the replay runs, and the chord's body does not.

A death is stored before Celery reports it to the chord. So the part of a task that died a moment
ago may not have reported yet: it is waited for, or its failure would be counted after it was healed.

Celery keeps this state in its Redis backend; of other backends nothing is known here. The backend of
partial chords keeps theirs in its own way, and says itself which of its parts hang on an entry.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from celery import states
from celery.backends.redis import RedisBackend
from redis.exceptions import RedisError

from celery_patterns.core.script import Script

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from celery import Celery

    from celery_patterns.core.store import Store
    from celery_patterns.deadletters.entry import Entry

logger = logging.getLogger("celery_patterns")

_reopen = Script("chord_reopen")

SETTLE = 3.0
"""Seconds after a death in which its report to a chord may still be on the way."""
TOLD_TWICE = 1.0
"""Seconds after a death in which Celery may report it a second time, as it does with a hard limit."""
_POLL = 0.02

Part = tuple[str, str, Any]
"""A place in a chord: the task id that reports, the group, the index."""


def heal(app: Celery, store: Store, entry: Entry, *, new_id: bool = False) -> bool:
    """Have the chords that an entry is part of wait for its replay; ``False`` if one of them is over.

    Args:
        app: Whose result backend.
        store: Where the entry is.
        entry: The entry.
        new_id: Whether the replay will have another task id, by which a partial chord does not know it.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    decoded = entry.letter.decoded(app)
    embed = decoded[2] if decoded else {}
    dead_parts: Any = getattr(app.backend, "dead_parts", None)
    partial = dead_parts(entry.task_id, embed) if dead_parts is not None else []
    parts = list(_parts(entry, embed, [part.body for part in partial]))
    until = time.monotonic() + SETTLE - (store.now() - entry.died) if parts or partial else 0.0
    healed = [_heal(app, part, until) for part in parts]
    healed += [not (new_id and part.task_id == entry.task_id) and _take_back(part, until) for part in partial]
    return all(healed)


def _take_back(part: Any, until: float) -> bool:
    time.sleep(max(0.0, until - SETTLE + TOLD_TWICE - time.monotonic()))
    try:
        return bool(part.take_back(until))
    except RedisError as error:
        logger.warning("Cannot tell whether the chord of %s still waits for it: %s", part.task_id, error)
        return False


def _parts(entry: Entry, embed: Mapping[str, Any], partial: list[Any]) -> Iterator[Part]:
    """Where the failure was counted: for the task itself, or for the end of its chain.

    Args:
        entry: The entry.
        embed: What its message has beside the arguments.
        partial: Bodies of chords that count in a way of their own.
    """
    headers = entry.letter.headers
    if embed.get("chord") and embed["chord"] not in partial and headers.get("group"):
        yield entry.task_id, headers["group"], headers.get("group_index")
    for step in embed.get("chain") or ():
        options = step.get("options") or {}
        if options.get("chord") and options["chord"] not in partial and options.get("group_id"):
            yield options["task_id"], options["group_id"], options.get("group_index")


def _heal(app: Celery, part: Part, until: float) -> bool:
    backend: Any = app.backend
    if not isinstance(backend, RedisBackend) or not getattr(backend, "_chord_zset", False):
        return False
    task_id, group, index = part
    keys = [backend.get_key_for_group(group, suffix) for suffix in (".j", ".s", ".t", ".d", ".c")]
    score = "+inf" if index is None else index
    try:
        failed = _failures(backend, keys, score, task_id)
        while not failed and time.monotonic() < until and backend.client.exists(keys[1]):
            time.sleep(_POLL)
            failed = _failures(backend, keys, score, task_id)
        body = _reopen.text()
        return bool(backend.client.eval(body, len(keys), *keys, f"{task_id}:{score}", *failed))
    except RedisError as error:
        logger.warning("Cannot tell whether chord %s still waits for %s: %s", group, task_id, error)
        return False


def _failures(backend: Any, keys: list[Any], score: Any, task_id: str) -> list[bytes]:
    """What the part has reported."""
    reported = backend.client.zrangebyscore(keys[0], score, score)
    return [one for one in reported if _is_failure_of(backend, one, task_id)]


def _is_failure_of(backend: Any, reported: bytes, task_id: str) -> bool:
    _, found, state, _ = backend.decode(reported)
    return bool(found == task_id and state in states.EXCEPTION_STATES)
