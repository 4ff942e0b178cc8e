"""The beginning of a partial chord: its parts and its deadline are known before the header is published."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from celery_patterns.errors import PolicyError
from celery_patterns.flows.chords.record import ChordRecord
from celery_patterns.flows.chords.signatures import result_id, starters
from celery_patterns.flows.chords.watch import watch_later

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from celery_patterns.flows.chords.mark import Mark


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
    chord_id = next(starters(body))["options"].get("task_id") or group_id
    replace(mark, id=chord_id).put_on(body)
    steps = list(dict.fromkeys(steps_to(parts))) if mark.fail_fast else []
    record = ChordRecord(backend, chord_id)
    record.begin(ids, mark.deadline, steps)
    record.known_as(result_id(body), mark.deadline)
    if mark.deadline is not None:  # also where the chord was known: who began it may have died before this
        watch_later(backend.app, chord_id, body, mark.deadline)


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
