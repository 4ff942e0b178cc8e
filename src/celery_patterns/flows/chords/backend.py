"""Celery's Redis result backends, with chords that can be partial: ``partial+redis://`` and its like.

A plain chord is Celery's own here. A chord whose body bears a mark is counted by its parts' names:
see ``docs/explanation/partial-chords.md`` for its states, and for who reports what.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from celery import states
from celery._state import get_current_task
from celery.backends.redis import RedisBackend, SentinelBackend
from celery.exceptions import TaskRevokedError
from celery.result import task_join_will_block  # type: ignore[attr-defined]

from celery_patterns.flows.chords import listening
from celery_patterns.flows.chords import partial as _partial  # noqa: F401 - its type of signature is known now
from celery_patterns.flows.chords.begin import begin, leaves
from celery_patterns.flows.chords.end import end_forgotten, end_if_complete
from celery_patterns.flows.chords.guard import guard_tasks
from celery_patterns.flows.chords.mark import begun_mark, mark_of
from celery_patterns.flows.chords.mend import dead_parts
from celery_patterns.flows.chords.parts import own_part, parts_at_end
from celery_patterns.flows.chords.record import ChordRecord, Counts
from celery_patterns.flows.chords.report import report

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery_patterns.flows.chords.mend import DeadPart

_told = threading.local()
"""Whether this thread has told partial chords of the failure that Celery is telling of."""

LOST = {"error": None, "message": "nobody reported before the deadline"}


class PartialRedisBackend(RedisBackend):
    """Celery's Redis result backend, with chords that can be partial."""

    makes_partial_chords = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.chord_scripts: dict[str, Any] = {}
        self._begun: set[str] = set()
        listening.listen()
        guard_tasks(self.app)  # type: ignore[attr-defined]

    # --- a chord is published

    def apply_chord(self, header_result_args: tuple[str, Any], body: Any, **options: Any) -> None:
        """Celery is about to publish the header of a chord."""
        mark = mark_of(body)
        if mark is None:
            super().apply_chord(header_result_args, body, **options)
            return
        group_id, results = header_result_args
        begin(self, group_id, results, body, mark)
        self._begun.add(group_id)
        if not task_join_will_block():  # who waits for a part keeps Celery from unsubscribing when it is sent
            self.add_pending_results(list(leaves(results)), weak=True)  # type: ignore[attr-defined]

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Celery tells the number of parts; of a partial chord they are known."""
        if group_id in self._begun:
            self._begun.discard(group_id)
        else:
            super().set_chord_size(group_id, chord_size)

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """The running part adds another one to its chord."""
        task: Any = get_current_task()
        mark = begun_mark(task.request.chord) if task else None
        if mark is None or not ChordRecord(self, str(mark.id)).add(result.id):
            super().add_to_chord(chord_id, result)

    # --- a part has ended

    def on_chord_part_return(
        self, request: Any, state: str, result: Any, propagate: bool | None = None, **options: Any
    ) -> None:
        """A part of a chord has ended."""
        part = own_part(request)
        if part is None:
            super().on_chord_part_return(request, state, result, propagate, **options)
        elif not getattr(_told, "already", False):
            report(self, part, state, result)

    def mark_as_done(
        self,
        task_id: str,
        result: Any,
        request: Any = None,
        store_result: bool = True,
        state: str = states.SUCCESS,
    ) -> None:
        """A task succeeded.

        A partial chord is told before the result is stored: a process that is killed in between has
        no result yet, so whoever finds that out reports the part once more, and is a harmless
        duplicate. The other way round Celery 5.7 finds the result, and reports nothing.
        """
        part = own_part(request)
        if part is None:
            super().mark_as_done(task_id, result, request, store_result, state)
            return
        report(self, part, state, result)
        if store_result and not request.ignore_result:
            self.store_result(task_id, result, state, request=request)

    def mark_as_failure(  # noqa: PLR0917 - Celery's own signature
        self,
        task_id: str,
        exc: Exception,
        traceback: str | None = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """A task failed, and so did what comes after it in its chain.

        Partial chords are told first, for the reason above, and once: who has the part run again
        must not have its failure told once more after that.
        """
        self._report_direct(request, state, exc)
        self.report_rest(request, state, exc)
        _told.already = True
        try:
            super().mark_as_failure(task_id, exc, traceback, request, store_result, call_errbacks, state)
        finally:
            _told.already = False

    def mark_as_revoked(
        self,
        task_id: str,
        reason: str = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        """A task was revoked or had expired, and what comes after it in its chain will not run."""
        super().mark_as_revoked(task_id, reason, request, store_result, state)
        self.report_rest(request, state, TaskRevokedError(reason))

    def chord_error_from_stack(self, callback: Any, exc: Exception | None = None) -> Any:
        """The body of a plain chord will not run; a partial chord around it has to know."""
        info = super().chord_error_from_stack(callback, exc)
        self._report_ends([callback], states.FAILURE, exc)
        return info

    def report_rest(self, request: Any, state: str, error: Any) -> None:
        """Tell partial chords what became of a chain of which only this far was reached."""
        self._report_ends(getattr(request, "chain", None) or (), state, error)

    def report_unreported(self, request: Any, state: str, error: Any) -> None:
        """A task has ended of which Celery tells no backend; plain chords are not told either."""
        if begun_mark(request.chord) is not None and state == states.IGNORED:
            stored = self.get_task_meta(request.id, cache=False)
            if stored["status"] in states.READY_STATES:  # its own word, before it raised Ignore
                self._report_direct(request, stored["status"], stored["result"])
        self._report_direct(request, state, error)
        self.report_rest(request, state, error)

    def _report_direct(self, request: Any, state: str, result: Any) -> None:
        part = own_part(request)
        if part is not None:
            report(self, part, state, result)

    def _report_ends(self, signatures: Iterable[Mapping[str, Any]], state: str, error: Any) -> None:
        for part in parts_at_end(signatures):
            report(self, part, state, error)

    # --- a part is run again

    def dead_parts(self, task_id: str, embed: Mapping[str, Any]) -> list[DeadPart]:
        """The parts of partial chords that hang on a dead task, for whoever runs it again."""
        return dead_parts(self, task_id, embed)

    # --- nobody reports

    def watch_chord(self, chord_id: str, body: Mapping[str, Any], late: float = 0.0) -> float | None:
        """Give up what has not reported by the deadline, and hand the end on.

        Args:
            chord_id: The chord.
            body: Its body, as its parts carry it.
            late: How many seconds after the deadline this is: after the record's time to live, no
                record says nothing.

        Returns:
            The seconds until the deadline, where it is ahead.
        """
        mark = mark_of(body)
        record = ChordRecord(self, chord_id)
        counts = record.expire(self.encode(LOST))
        if isinstance(counts, float):
            return counts
        if mark is not None and counts == "unknown":
            end_forgotten(self, body, mark, expired=late > record.ttl)
        elif mark is not None and isinstance(counts, Counts) and counts.complete:
            end_if_complete(self, body, mark)
        return None


class PartialSentinelBackend(PartialRedisBackend, SentinelBackend):
    """The same for Redis behind Sentinel."""


def open_backend(app: Any, url: str | None = None, **options: Any) -> PartialRedisBackend:
    """The backend for ``partial+...``: Celery hands over what is behind the plus sign."""
    url = (url or "redis://").removeprefix("redis+")  # redis+socket:// is for Celery's own lookup
    kind = PartialSentinelBackend if url.startswith("sentinel:") else PartialRedisBackend
    return kind(app=app, url=url, **options)
