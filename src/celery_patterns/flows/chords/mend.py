"""A part of a chord that has ended badly is run again, by a person: what its chord makes of that.

A chord that still waits for other parts waits for this one as well. One that has ended keeps its
end, and the better outcome is written down; asked for with ``on_late="rerun"``, its body runs once
more, as soon as so many parts are ok as it needs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celery.app.task import Context

from celery_patterns.core.events import Event, emit
from celery_patterns.flows.chords.end import end_if_complete
from celery_patterns.flows.chords.parts import parts_around, parts_of
from celery_patterns.flows.chords.record import ChordRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_patterns.flows.chords.outcomes import State
    from celery_patterns.flows.chords.parts import Part

KIND = "partial_chord"
_POLL = 0.02


@dataclass(frozen=True, slots=True)
class DeadPart:
    """A part of a partial chord that is about to be run again.

    Args:
        backend: The result backend.
        part: The part.
    """

    backend: Any
    part: Part

    @property
    def task_id(self) -> str:
        """The task whose end is the part's end."""
        return self.part.task_id

    @property
    def body(self) -> Mapping[str, Any]:
        """The chord's body, as its parts carry it."""
        return self.part.body

    def take_back(self, until: float) -> bool:
        """Have the chord expect the part once more; whether its body will run with it.

        Args:
            until: Until when (``time.monotonic``) the part's bad end may yet be on its way to the chord.
        """
        answer = self._ask("wait")
        while answer in {"unreported", "ending"} and time.monotonic() < until:
            time.sleep(_POLL)
            answer = self._ask("wait")
        if answer == "ending":
            answer = self._ask("replace")
        if answer != "replaces":
            return answer in {"waits", "unreported"}
        if not self.part.mark.rerun:
            return False
        for around in parts_around(self.part.body):  # they were told that this chord has failed
            ChordRecord(self.backend, str(around.mark.id)).take_back(around.task_id, "replace")
        return True

    def _ask(self, how: str) -> str:
        return ChordRecord(self.backend, str(self.part.mark.id)).take_back(self.task_id, how)


def dead_parts(backend: Any, task_id: str, embed: Mapping[str, Any]) -> list[DeadPart]:
    """The parts of partial chords that a dead task was, or that its chain would have ended with.

    Args:
        backend: The result backend.
        task_id: The task.
        embed: What its message has beside the arguments.
    """
    request: Any = Context(id=task_id, chord=embed.get("chord"), chain=embed.get("chain"))
    return [DeadPart(backend, part) for part in parts_of(request)]


def mend(backend: Any, part: Part, kind: State, payload: str | bytes, total: int) -> None:
    """A part that was run again after its chord had ended has reported.

    A body that failed for want of this part runs under its own id: its result becomes that of the
    run. A body that has run keeps its result, and runs again under another id.

    Args:
        backend: The result backend.
        part: The part.
        kind: Its outcome.
        payload: What is kept of that.
        total: How many parts the chord has.
    """
    mark = part.mark
    needed = mark.threshold.needed(total) if mark.rerun else None
    record = ChordRecord(backend, str(mark.id))
    answer = record.mend(part.task_id, kind, payload, needed=needed, body_id=str(uuid4()))
    tell("mended", part, state=kind, reran=answer == "reopened")
    if answer == "reopened":
        end_if_complete(backend, part.body, mark)


def tell(what: str, part: Part, **detail: Any) -> None:
    """Emit an event about a part."""
    task = part.task or "a task"
    emit(Event(kind=what, policy=KIND, task=task, task_id=part.task_id, key=str(part.mark.id), detail=detail))
