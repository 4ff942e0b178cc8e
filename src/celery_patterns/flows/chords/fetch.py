"""What the result backend knows of many tasks, or of a chord, in one round trip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import states
from celery.backends.redis import RedisBackend
from kombu.utils.encoding import bytes_to_str

from celery_patterns.flows.chords.record import (
    COUNTS,
    KNOWN_AS,
    ChordRecord,
    Counts,
    Slot,
    as_counts,
    as_slots,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PENDING: Mapping[str, Any] = {"status": states.PENDING, "result": None}


def metas_of(backend: Any, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The metadata of tasks, by id: state, result, children, and the name where results are extended.

    Args:
        backend: The result backend; other than Redis takes a round trip for each task.
        ids: The tasks.
    """
    if not isinstance(backend, RedisBackend):
        return {task_id: backend.get_task_meta(task_id, cache=False) for task_id in ids}
    stored = backend.ensure(backend.mget, (_keys(backend, ids),)) if ids else ()
    return dict(zip(ids, _decoded(backend, stored), strict=True))


def counts_or_metas(
    backend: Any, result_id: str, ids: Sequence[str]
) -> tuple[Counts | None, list[Mapping[str, Any]]]:
    """The counts of the partial chord that ends with a result; if there is none, the metadata of tasks."""
    if not getattr(backend, "makes_partial_chords", False):
        return None, list(metas_of(backend, ids).values())
    record = ChordRecord(backend, result_id)
    with backend.client.pipeline(transaction=False) as pipe:
        pipe.hmget(record.keys[0], COUNTS)
        pipe.get(backend.get_key_for_group(result_id, KNOWN_AS))
        if ids:
            pipe.mget(_keys(backend, ids))
        found, other_id, *stored = backend.ensure(pipe.execute, ())
    if other_id:
        record = ChordRecord(backend, bytes_to_str(other_id))
        found = backend.ensure(backend.client.hmget, (record.keys[0], COUNTS))
    counts = as_counts(["live", *found])
    if isinstance(counts, Counts) and counts.total:
        return counts, []
    return None, list(_decoded(backend, stored[0] if stored else ()))


def parts_by_result(backend: Any, result_id: str) -> list[Slot]:
    """The parts of the chord that ends with a result, in header order; none where they are not kept."""
    record = ChordRecord(backend, result_id)
    with backend.client.pipeline(transaction=False) as pipe:
        pipe.hgetall(record.keys[1])
        pipe.get(backend.get_key_for_group(result_id, KNOWN_AS))
        found, other_id = backend.ensure(pipe.execute, ())
    return ChordRecord(backend, bytes_to_str(other_id)).slots() if other_id else as_slots(found)


def _keys(backend: Any, ids: Iterable[str]) -> list[Any]:
    return [backend.get_key_for_task(task_id) for task_id in ids]


def _decoded(backend: Any, stored: Iterable[Any]) -> Iterable[Mapping[str, Any]]:
    return (backend.decode_result(meta) if meta else PENDING for meta in stored)
