"""The beginning of a partial chord: its parts and its deadline are known before the header is published.

Its id is that of the first task of its body, where a caller's result finds it. Several chords may
end in one task: a body that is replaced by a chord (``self.replace``), and whoever gives a chord the
same ``task_id`` every night. What is the same in the same chord that is published again, and in no
other, are the ids of its parts. So a chord whose record another one has gets an id made of both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from celery.utils.log import get_task_logger

from celery_patterns.errors import PolicyError
from celery_patterns.flows.chords.record import ChordRecord, digest
from celery_patterns.flows.chords.signatures import result_id, starters
from celery_patterns.flows.chords.watch import watch_later

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from celery_patterns.flows.chords.mark import Mark

logger = get_task_logger(__name__)


def begin(backend: Any, group_id: str, results: Iterable[Any], body: Mapping[str, Any], mark: Mark) -> None:
    """Write down the parts of a chord that is about to be published, and see to its deadline.

    Celery has frozen header and body: all ids are known, and the body that is marked here is the
    one that it will hand to the parts.

    Args:
        backend: The result backend.
        group_id: The header's id.
        results: Those of the frozen header.
        body: The frozen body.
        mark: What its mark said so far.

    Raises:
        PolicyError: Two parts have one task id.
    """
    parts = list(leaves(results))
    ids = [part.id for part in parts]
    if len(set(ids)) != len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise PolicyError(f"two parts of a partial chord have the task id {twice!r}: they would be one part")
    # A chord in a chord's body has the same result as the chord, but not the same beginning.
    record = ChordRecord(backend, next(starters(body))["options"].get("task_id") or group_id)
    steps = list(dict.fromkeys(steps_to(parts))) if mark.fail_fast else []
    begun = record.begin(ids, mark.deadline, steps)
    if begun == "other":
        record = ChordRecord(backend, f"{record.id}.{digest(ids)}")
        begun = record.begin(ids, mark.deadline, steps)
    if begun == "known":
        logger.warning(
            "Chord %s is published again, with the same parts: what has ended of it stays so", record.id
        )
    replace(mark, id=record.id).put_on(body)
    record.known_as(result_id(body), mark.deadline)
    if mark.deadline is not None:  # also where the chord was known: who began it may have died before this
        watch_later(backend.app, record.id, body, mark.deadline)


def leaves(results: Iterable[Any]) -> Iterator[Any]:
    """The results of single tasks among the results of a frozen header, groups from left to right."""
    for result in results:
        nested = getattr(result, "results", None)
        if nested is None:
            yield result
        else:
            yield from leaves(nested)


def steps_to(results: Iterable[Any]) -> Iterator[str]:
    """The ids of the tasks that run before ``results``: earlier steps of chains, headers of chords."""
    for result in results:
        before = result.parent
        while before is not None:
            nested = getattr(before, "results", None)
            if nested is None:
                yield before.id
            else:
                yield from (leaf.id for leaf in leaves(nested))
                yield from steps_to(leaves(nested))
            before = before.parent
