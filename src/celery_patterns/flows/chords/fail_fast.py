"""``on_failure="fail_fast"``: once a chord cannot succeed any more, what has not started is revoked.

To tell what has not started, the parts of such a chord (and only of such) say when they start, and
when they wait again for a retry. So the body fails when the last running part has reported, and an
errback may clean up after parts that none is at work on any more. What is revoked and told to start
all the same, by a worker that has not heard of it yet, finds out when it says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.utils.log import get_task_logger

from celery_patterns.flows.chords.end import end_if_complete
from celery_patterns.flows.chords.guard import REASON
from celery_patterns.flows.chords.parts import all_parts, parts_of
from celery_patterns.flows.chords.record import ChordRecord, Counts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_patterns.flows.chords.mark import Mark
    from celery_patterns.flows.chords.parts import Part

logger = get_task_logger(__name__)

AT_ONCE = 500
"""How many ids one broadcast to the workers carries."""
_REVOKED = {"error": "TaskRevokedError", "message": REASON}


def may_start(backend: Any, request: Any) -> bool:
    """A task is about to run: whether it may.

    A part that depends on it cannot be revoked from here on. If all parts of a chord that do were
    revoked before, it must not run.
    """
    given_up: dict[str | None, bool] = {}
    for part in all_parts(request):
        if part.mark.fail_fast:
            revoked = _enter(backend, part, running=True) == "revoked"
            given_up[part.mark.id] = given_up.get(part.mark.id, True) and revoked
    return not any(given_up.values())


def waits_again(backend: Any, request: Any) -> None:
    """A task will be tried again later: until then it has not started."""
    for part in parts_of(request):
        if part.mark.fail_fast:
            _enter(backend, part, running=False)


def revoke_rest(backend: Any, body: Mapping[str, Any], mark: Mark) -> None:
    """Revoke what has not started; where nothing runs either, the chord ends."""
    counts, ids = ChordRecord(backend, str(mark.id)).revoke(backend.encode(_REVOKED))
    if ids:
        logger.info("Chord %s cannot succeed any more: revoking %s tasks", mark.id, len(ids))
    for first in range(0, len(ids), AT_ONCE):
        backend.app.control.revoke(ids[first : first + AT_ONCE])
    if isinstance(counts, Counts) and counts.complete:
        end_if_complete(backend, body, mark)


def _enter(backend: Any, part: Part, *, running: bool) -> Any:
    record = ChordRecord(backend, str(part.mark.id))
    counts = record.enter(part.task_id, running=running, payload=backend.encode(_REVOKED))
    if isinstance(counts, Counts) and counts.complete:
        end_if_complete(backend, part.body, part.mark)
    return counts
