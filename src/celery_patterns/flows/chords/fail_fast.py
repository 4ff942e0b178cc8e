"""``on_failure="fail_fast"``: once a chord cannot succeed any more, what has not started is revoked.

To tell what has not started, the parts of such a chord (and only of such) say when they start, and
when they wait again for a retry. So the body fails when the last running part has reported, and an
errback may clean up after parts that none is at work on any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.utils.log import get_task_logger

from celery_patterns.flows.chords.end import end_if_complete
from celery_patterns.flows.chords.mark import begun_mark
from celery_patterns.flows.chords.record import ChordRecord, Counts
from celery_patterns.flows.chords.signatures import ends

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from celery_patterns.flows.chords.mark import Mark

logger = get_task_logger(__name__)

AT_ONCE = 500
"""How many ids one broadcast to the workers carries."""
_REVOKED = {"error": "TaskRevokedError", "message": "fail_fast: too many other parts are not ok"}

Part = tuple["Mark", "Mapping[str, Any]", str]
"""A part of a partial chord: the chord's mark, its body, and the part's task id."""


def started(backend: Any, request: Any) -> None:
    """A task starts: if a part of a chord depends on it, that part cannot be revoked any more."""
    for mark, body, task_id in (*_direct(request), *_around(request.chord)):
        if mark.fail_fast:
            _enter(backend, mark, body, task_id, running=True)


def waits_again(backend: Any, request: Any) -> None:
    """A task will be tried again later: until then it has not started."""
    for mark, body, task_id in _direct(request):
        if mark.fail_fast:
            _enter(backend, mark, body, task_id, running=False)


def revoke_rest(backend: Any, body: Mapping[str, Any], mark: Mark) -> None:
    """Revoke what has not started; where nothing runs either, the chord ends."""
    counts, ids = ChordRecord(backend, str(mark.id)).revoke(backend.encode(_REVOKED))
    if ids:
        logger.info("Chord %s cannot succeed any more: revoking %s tasks", mark.id, len(ids))
    for first in range(0, len(ids), AT_ONCE):
        backend.app.control.revoke(ids[first : first + AT_ONCE])
    if isinstance(counts, Counts) and counts.complete:
        end_if_complete(backend, body, mark)


def _enter(backend: Any, mark: Mark, body: Mapping[str, Any], task_id: str, *, running: bool) -> None:
    record = ChordRecord(backend, str(mark.id))
    counts = record.enter(task_id, running=running, payload=backend.encode(_REVOKED))
    if isinstance(counts, Counts) and counts.complete:
        end_if_complete(backend, body, mark)


def _direct(request: Any) -> Iterator[Part]:
    """The parts that end with this very task, or with the chain that it is in."""
    mark = begun_mark(request.chord)
    if mark is not None:
        yield mark, request.chord, request.id
    yield from _at_the_end_of(request.chain or ())


def _around(body: Mapping[str, Any] | None) -> Iterator[Part]:
    """The parts that end with the body of the chord that this task is a part of."""
    if body:
        yield from _at_the_end_of([body])
        yield from _at_the_end_of(body["options"].get("chain") or ())


def _at_the_end_of(signatures: Iterable[Mapping[str, Any]]) -> Iterator[Part]:
    for signature in signatures:
        for end in ends(signature):
            body = end["options"].get("chord")
            mark = begun_mark(body)
            if mark is not None:
                yield mark, body, end["options"]["task_id"]
            if body:
                yield from _around(body)
