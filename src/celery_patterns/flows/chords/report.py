"""A part of a partial chord has ended: from Celery's state and result to an outcome in the chord's record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import states
from celery.utils.log import get_task_logger
from celery.utils.serialization import UnpickleableExceptionWrapper

from celery_patterns.flows.chords.end import end_if_complete
from celery_patterns.flows.chords.fail_fast import revoke_rest
from celery_patterns.flows.chords.mend import mend, tell
from celery_patterns.flows.chords.record import Again, ChordRecord, Counts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_patterns.flows.chords.mark import Mark
    from celery_patterns.flows.chords.outcomes import State
    from celery_patterns.flows.chords.parts import Part
    from celery_patterns.flows.chords.record import Missing

logger = get_task_logger(__name__)

LONGEST_MESSAGE = 4096
"""Characters of an error's message that an outcome keeps."""

_STATES: Mapping[str, State] = {states.SUCCESS: "ok", states.REVOKED: "revoked", states.IGNORED: "lost"}


def report(backend: Any, part: Part, state: str, result: Any) -> None:
    """Write down the outcome of a part, and do what follows from it.

    Args:
        backend: The result backend.
        part: The part.
        state: Celery's state of the task; ``IGNORED`` if nothing more will be heard of it.
        result: Its value, or its error.
    """
    kind, payload = as_kept(backend, state, result)
    record = ChordRecord(backend, str(part.mark.id))
    counts = record.report(part.task_id, kind, payload)
    if isinstance(counts, Again):
        mend(backend, part, kind, payload, counts.total)
    elif not isinstance(counts, Counts):
        _nothing_changed(part, counts, kind)
    elif counts.complete:
        end_if_complete(backend, part.body, part.mark)
    elif _is_hopeless(part.mark, kind, counts):
        revoke_rest(backend, part.body, part.mark)


def _is_hopeless(mark: Mark, kind: State, counts: Counts) -> bool:
    return mark.fail_fast and kind != "ok" and mark.threshold.is_out_of_reach(counts.bad, counts.total)


def as_kept(backend: Any, state: str, result: Any) -> tuple[State, str | bytes]:
    """The outcome that a task's end is, and what is kept of it."""
    kind = kind_of(state)
    return kind, backend.encode(backend.encode_result(result, state) if kind == "ok" else describe(result))


def kind_of(state: str) -> State:
    """The outcome that goes with Celery's state of a task."""
    return _STATES.get(state, "failed")


def describe(error: Any) -> dict[str, str | None]:
    """An error as it is kept: its type and its message."""
    if isinstance(error, UnpickleableExceptionWrapper):
        name, message = error.exc_cls_name, " ".join(map(str, error.exc_args or ()))
    elif isinstance(error, BaseException):
        name, message = type(error).__qualname__, str(error)
    else:
        name, message = None, str(error)
    return {"error": name, "message": message[:LONGEST_MESSAGE]}


def _nothing_changed(part: Part, why: Missing, kind: State) -> None:
    if why == "late":
        tell("late", part, state=kind)
    else:
        logger.error(
            "%s[%s] is no part of chord %s, or the chord's record is gone: then its body will not run",
            part.task,
            part.task_id,
            part.mark.id,
        )
