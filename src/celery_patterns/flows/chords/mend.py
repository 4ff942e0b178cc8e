"""A part of a chord that has ended is run again and mended: its outcome is replaced, the body may run again.

A dead-lettered part that is replayed comes here, once dead letters exist: its report finds the
chord ended (``late``), and whoever replays it decides what is to follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast
from uuid import uuid4

from celery_patterns.flows.chords.end import end_if_complete
from celery_patterns.flows.chords.record import ChordRecord
from celery_patterns.flows.chords.report import as_kept, report

if TYPE_CHECKING:
    from celery_patterns.flows.chords.mark import Mark

Mended = Literal["mended", "reopened", "ok", "live", "unknown"]


def mend(
    backend: Any,
    request: Any,
    mark: Mark,
    state: str,
    result: Any,
    *,
    on_late: Literal["record", "rerun"] = "record",
) -> Mended:
    """Replace what a chord knows of a part.

    A body that failed for want of this part runs under its own id: its result becomes that of the
    run. A body that has run keeps its result, and runs again under another id.

    Args:
        backend: The result backend.
        request: The request of the replayed part, with ``id`` and ``chord``.
        mark: That of the chord.
        state: Celery's state of the part.
        result: Its value, or its error.
        on_late: What follows where the chord has ended: only the record, or the body once more if
            the part is ok now.

    Returns:
        ``"mended"``; ``"reopened"``: the end is handed on once more; ``"ok"``: the part was ok;
        ``"live"``: the chord goes on, and has taken the part as any other; ``"unknown"``: the
        chord's parts were not kept (all were ok), or have expired.
    """
    kind, payload = as_kept(backend, state, result)
    record = ChordRecord(backend, str(mark.id))
    status, counts = record.mend(request.id, kind, payload, reopen=on_late == "rerun")
    if status == "live":
        report(backend, request, mark, state, result)
    elif status == "reopened" and counts is not None:
        has_run = mark.threshold.is_met(counts.ok - 1, counts.total)
        end_if_complete(backend, request.chord, mark, task_id=str(uuid4()) if has_run else None)
    return cast("Mended", status)
