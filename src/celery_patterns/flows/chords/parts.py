"""Which parts of which partial chords hang on a task: its own, those of its chain, those around its chord."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery_patterns.flows.chords.mark import begun_mark
from celery_patterns.flows.chords.signatures import ends

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from celery_patterns.flows.chords.mark import Mark


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a partial chord.

    Args:
        task_id: The task whose end is the part's end.
        task: Its name.
        mark: That of the chord.
        body: The chord's body, as its parts carry it.
    """

    task_id: str
    task: str | None
    mark: Mark
    body: Mapping[str, Any]


def own_part(request: Any) -> Part | None:
    """The part that this very task is, if it is one."""
    body = getattr(request, "chord", None)
    mark = begun_mark(body)
    if mark is None or body is None or not request.id:
        return None
    return Part(request.id, getattr(request, "task", None), mark, body)


def parts_of(request: Any) -> Iterator[Part]:
    """The parts that end with this very task, or with the chain that it is in."""
    own = own_part(request)
    if own is not None:
        yield own
    yield from parts_at_end(getattr(request, "chain", None) or ())


def parts_at_end(signatures: Iterable[Mapping[str, Any]]) -> Iterator[Part]:
    """The parts that end with the ends of ``signatures``."""
    for signature in signatures:
        for end in ends(signature):
            body = end["options"].get("chord")
            mark = begun_mark(body)
            if mark is not None:
                yield Part(end["options"]["task_id"], end["task"], mark, body)


def parts_around(body: Mapping[str, Any] | None) -> Iterator[Part]:
    """The parts that end with the body of a chord, and those around these, from the inside out."""
    if body:
        steps = (body, *(body["options"].get("chain") or ()))
        yield from parts_at_end(steps)
        for chord in _chords_at_end(steps):
            yield from parts_around(chord)


def all_parts(request: Any) -> Iterator[Part]:
    """The parts that hang on a task, however deep it is in them."""
    yield from parts_of(request)
    for chord in (request.chord, *_chords_at_end(request.chain or ())):
        yield from parts_around(chord)


def _chords_at_end(signatures: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any] | None]:
    return (end["options"].get("chord") for signature in signatures for end in ends(signature))
