"""Running dead letters again: as a batch with a cut-off, first one, then ten, then the rest, paced.

The steps for each entry are: take it (it is *replaying* from then on), publish it, report that it
was published. A replayer that is killed leaves entries that were taken and not reported; see
``recovery.py`` for what becomes of them.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celery_patterns.core.events import Event, emit
from celery_patterns.core.script import Script
from celery_patterns.deadletters.chords import heal
from celery_patterns.deadletters.pace import Pace
from celery_patterns.deadletters.publish import publisher
from celery_patterns.deadletters.query import Query
from celery_patterns.deadletters.recovery import recover
from celery_patterns.deadletters.store import KIND, SHARED
from celery_patterns.errors import DeadLetterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery import Celery

    from celery_patterns.core.store import Store
    from celery_patterns.deadletters.entry import Candidate
    from celery_patterns.deadletters.publish import Publisher
    from celery_patterns.deadletters.query import Filter

logger = logging.getLogger("celery_patterns")

STAGES = (1, 10)
"""How many entries are tried, and waited for, before the next stage; the last stage is the rest."""
CLAIM = 30.0
"""Seconds for which a replayer may keep an entry between taking and publishing it."""
LEASE = 86_400.0
"""Seconds without a sign of a replay after which its entry is opened again."""
_POLL = 0.05

_claim = Script("dead_letter_claim", after=SHARED)
_published = Script("dead_letter_published", after=SHARED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to replay.

    Args:
        rate: Messages per second, at most.
        limit: How many entries, at most; ``None`` for all that are meant.
        canary: Try one, then ten, and wait for how they end, before the rest.
        max_failing: The share of ended replays that may have died again; above it the replay stops.
        patience: Seconds to wait for the outcomes of a stage; then the replay stops.
        queue: Another queue to publish to than where each message came from.
        new_ids: Give each message a new task id.
        claim: Seconds for which an entry is ours between taking and publishing it.
        lease: Seconds without a sign of a published message (it is delivered, it ends) after which a
            later replay opens its entry again.

    Raises:
        DeadLetterError: An option is out of range.
    """

    rate: float = 50.0
    limit: int | None = None
    canary: bool = True
    max_failing: float = 0.2
    patience: float = 300.0
    queue: str | None = None
    new_ids: bool = False
    claim: float = CLAIM
    lease: float = LEASE

    def __post_init__(self) -> None:
        if not (self.rate > 0 and isfinite(self.rate)):
            raise DeadLetterError(f"rate={self.rate!r}: give messages per second, more than 0")
        if self.limit is not None and self.limit < 1:
            raise DeadLetterError(
                f"limit={self.limit!r}: give a number of entries, 1 or more, or None for all"
            )
        if not 0 <= self.max_failing <= 1:
            raise DeadLetterError(f"max_failing={self.max_failing!r}: give a share between 0 and 1")
        for name in ("patience", "claim", "lease"):
            seconds = getattr(self, name)
            if not (seconds > 0 and isfinite(seconds)):
                raise DeadLetterError(f"{name}={seconds!r}: give seconds, more than 0")


@dataclass(slots=True, kw_only=True)
class Report:
    """What a replay did.

    Args:
        batch: Its id.
        planned: How many entries it meant.
        recovered: Entries that an earlier replayer had left half-way, and that were reopened first.
        published: How many messages were published.
        resolved: How many of them have succeeded so far.
        failed: How many have died again so far.
        stopped: Why it stopped before the end; ``None`` where it did not.
        seconds: How long publishing the last stage took.
        unhealed: Entries of whose chord the body will not run, or may not, and why.
    """

    batch: str
    planned: int
    recovered: int = 0
    published: int = 0
    resolved: int = 0
    failed: int = 0
    stopped: str | None = None
    seconds: float = 0.0
    unhealed: dict[str, str] = field(default_factory=dict)


class Replay:
    """One replay.

    Args:
        app: Whose broker.
        store: Where the dead letters are.
        wanted: Which ones.
        plan: How.
        progress: Called with the report after each chunk.
    """

    def __init__(
        self, app: Celery, store: Store, wanted: Filter, plan: Plan, progress: Callable[[Report], None]
    ) -> None:
        self.app, self.store, self.plan, self.progress = app, store, plan, progress
        self.query = Query(store)
        self.recovered = recover(app, store)
        self.cut_off = store.now()
        self.wanted = replace(wanted, until=min(self.cut_off, wanted.until or self.cut_off))
        self.report = Report(batch=uuid4().hex[:12], planned=0, recovered=self.recovered)

    def ids(self) -> list[str]:
        """What is meant, the oldest death first; nothing that dies from now on joins."""
        found = [one for page in self.query.walk(self.wanted) for one in page]
        found.reverse()
        self.report.planned = len(found[: self.plan.limit])
        return found[: self.plan.limit]

    def run(self) -> Report:
        """Replay them.

        Raises:
            StoreUnavailable: What was published by then is on its way; run it again for the rest.
            kombu.exceptions.KombuError: The broker is away, or ``OSError``; the same.
        """
        ids, plan = self.ids(), self.plan
        with publisher(self.app, queue=plan.queue, new_ids=plan.new_ids) as out:
            for stage, is_last in _stages(ids, canary=plan.canary):
                self._publish(out, stage)
                if not is_last:
                    self._await()
                if self.report.stopped:
                    break
        self._look()
        return self.report

    def _publish(self, out: Publisher, ids: list[str]) -> None:
        """Publish at the rate that was asked for, a chunk at a time."""
        began, pace = time.monotonic(), Pace(self.plan.rate)
        for start in range(0, len(ids), pace.chunk):
            chunk = ids[start : start + pace.chunk]
            pace.wait(len(chunk))
            self._publish_chunk(out, chunk)
            self._judge()
            self.progress(self.report)
            if self.report.stopped:
                break
        self.report.seconds = time.monotonic() - began

    def _publish_chunk(self, out: Publisher, ids: list[str]) -> None:
        root, batch = self.query.root, self.report.batch
        times = (round(self.plan.claim * 1000), round(self.plan.lease * 1000))
        claim = (batch, *times, self._states(), round(self.cut_off * 1e6))
        answer = _claim(self.store, [root], [*claim, *ids])
        taken = {one.decode(): int(number) for one, number in zip(answer[::2], answer[1::2], strict=True)}
        reported: list[str | int] = []
        try:
            for entry in self.query.candidates(list(taken)):
                self._heal(entry)
                task_id = out.publish(entry, taken[entry.id])
                reported += [entry.id, taken[entry.id], task_id]
                self._tell(entry, taken[entry.id])
        finally:  # if the broker goes away in between, what it has taken is known all the same
            if reported:
                _published(self.store, [root], [batch, *reported])
                self.report.published += len(reported) // 3

    def _heal(self, entry: Candidate) -> None:
        trouble = heal(self.app, self.store, entry, new_id=self.plan.new_ids)
        if trouble is not None:
            self.report.unhealed[entry.id] = trouble

    def _states(self) -> str:
        return " ".join(one for one in self.wanted.states if one in {"open", "quarantined"})

    def _await(self) -> None:
        """Wait until all that was published has ended."""
        deadline = time.monotonic() + self.plan.patience
        while not self.report.stopped:
            self._judge()
            if self.report.resolved + self.report.failed >= self.report.published:
                return
            if time.monotonic() > deadline:
                self.report.stopped = f"no outcome within {self.plan.patience:g} s"
            time.sleep(_POLL)

    def _judge(self) -> None:
        """Stop when too many die again."""
        self._look()
        ended = self.report.resolved + self.report.failed
        if ended and self.report.failed / ended > self.plan.max_failing:
            self.report.stopped = f"{self.report.failed} of {ended} died again"

    def _look(self) -> None:
        key = f"{self.query.root}:batch:{self.report.batch}"
        with self.store.reporting():
            resolved, failed, reopened = self.store.client.hmget(key, "resolved", "failed", "open")
        self.report.resolved = int(resolved or 0)
        self.report.failed = int(failed or 0) + int(reopened or 0)

    def _tell(self, entry: Candidate, number: int) -> None:
        detail: dict[str, Any] = {"replay": number, "batch": self.report.batch}
        emit(
            Event(
                kind="replaying",
                policy=KIND,
                task=entry.task,
                task_id=entry.task_id,
                key=entry.id,
                detail=detail,
            )
        )


def _stages(ids: list[str], *, canary: bool) -> Iterator[tuple[list[str], bool]]:
    """The ids in stages, and whether each is the last."""
    done = 0
    for size in STAGES if canary else ():
        if len(ids) > done + size or not done:
            yield ids[done : done + size], False
            done += size
    yield ids[done:], True
