"""Looking at dead letters: one page, one entry, groups by cause, counts; each in a few round trips."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from celery_patterns.deadletters.entry import CANDIDATE, STATES, Candidate, Entry
from celery_patterns.deadletters.store import root_of
from celery_patterns.errors import DeadLetterError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_patterns.core.store import Store

PAGE = 1_000
"""How many entries one round trip of a long walk reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which dead letters are meant; what is left out does not matter.

    Args:
        state: One of the states, or ``None`` for all.
        queue: The dead-letter queue.
        task: The task's name, or a pattern such as ``"shop.*"``.
        exception: The exception's type, or a pattern such as ``"*.Timeout"``.
        group: The fingerprint of a cause, or its beginning.
        since: Died at this time or later, in seconds since the epoch.
        until: Died at this time or earlier.
        ids: Exactly these.

    Raises:
        DeadLetterError: There is no such state.
    """

    state: str | None = "open"
    queue: str | None = None
    task: str | None = None
    exception: str | None = None
    group: str | None = None
    since: float | None = None
    until: float | None = None
    ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.state is not None and self.state not in STATES:
            raise DeadLetterError(f"no state {self.state!r}: choose one of {', '.join(STATES)}")

    @property
    def states(self) -> tuple[str, ...]:
        """The states that are meant."""
        return STATES if self.state is None else (self.state,)

    @property
    def is_by_cause(self) -> bool:
        """Whether only some causes are meant."""
        return any((self.queue, self.task, self.exception, self.group))

    def fits(self, cause: str, about: dict[str, Any]) -> bool:
        """Whether entries of a cause are meant."""
        return bool(
            (self.queue is None or about["queue"] == self.queue)
            and (self.task is None or fnmatchcase(about["task"], self.task))
            and (self.exception is None or _named(about["exception"], self.exception))
            and (self.group is None or cause.startswith(self.group))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Dead letters with one cause.

    Args:
        id: The fingerprint.
        queue: The dead-letter queue.
        task: The task's name.
        exception: The exception's type.
        where: The innermost own frames.
        message: What the latest one said.
        count: How many are in the states that were asked for.
        last: When the latest of them died, in seconds since the epoch.
    """

    id: str
    queue: str
    task: str
    exception: str
    where: tuple[str, ...]
    message: str
    count: int
    last: float


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries, the latest death first.

    Args:
        entries: They.
        next: Where the next page begins, for ``before=``; ``None`` on the last one.
    """

    entries: tuple[Entry, ...]
    next: int | None


class Query:
    """Questions to one store.

    Args:
        store: Where the dead letters are.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.root = root_of(store)

    def get(self, entry: str) -> Entry | None:
        """One entry, with its history."""
        key = f"{self.root}:entry:{entry}"
        with self.store.reporting():
            fields, history = self._pipe(("HGETALL", key), ("LRANGE", f"{key}:history", 0, -1))
        return Entry.read(fields, history) if fields else None

    def page(self, wanted: Filter, *, limit: int = 20, before: int | None = None) -> Page:
        """One page, the latest first.

        Args:
            wanted: Which entries.
            limit: How many.
            before: ``next`` of the page before.

        Raises:
            DeadLetterError: ``limit`` is none.
        """
        if limit < 1:
            raise DeadLetterError(f"limit={limit!r}: give a number of entries, 1 or more")
        found = self.ids(wanted, limit=limit + 1, before=before)
        ids = [one for one, _ in found[:limit]]
        return Page(tuple(self.entries(ids)), found[limit - 1][1] if len(found) > limit else None)

    def ids(self, wanted: Filter, *, limit: int, before: int | None = None) -> list[tuple[str, int]]:
        """Ids and the time of death in microseconds, the latest first."""
        if wanted.ids:
            return self._listed(wanted)[:limit]
        newest = f"({before}" if before is not None else _micros(wanted.until, "+inf")
        oldest = _micros(wanted.since, "-inf")
        asked = [
            ("ZREVRANGEBYSCORE", index, newest, oldest, "WITHSCORES", "LIMIT", 0, limit)
            for index in self._indexes(wanted)
        ]
        with self.store.reporting():
            answers = self._pipe(*asked)
        found = [(one.decode(), int(float(died))) for answer in answers for one, died in _pairs(answer)]
        return sorted(found, key=lambda one: -one[1])[:limit]

    def walk(self, wanted: Filter, size: int = PAGE) -> Iterator[list[str]]:
        """The ids of all entries that are meant, a page at a time, the latest first."""
        before = None
        while found := self.ids(wanted, limit=size, before=before):
            yield [one for one, _ in found]
            before = found[-1][1]
            if wanted.ids or len(found) < size:
                return

    def entries(self, ids: list[str]) -> list[Entry]:
        """Entries without their history; those that are gone are left out."""
        with self.store.reporting():
            answers = self._pipe(*(("HGETALL", f"{self.root}:entry:{one}") for one in ids))
        return [Entry.read(fields) for fields in answers if fields]

    def candidates(self, ids: list[str]) -> list[Candidate]:
        """Entries as a replay needs them; those that are gone are left out."""
        with self.store.reporting():
            answers = self._pipe(*(("HMGET", f"{self.root}:entry:{one}", *CANDIDATE) for one in ids))
        return [Candidate.read(fields) for fields in answers if fields[0]]

    def groups(self, wanted: Filter) -> list[Group]:
        """Causes with how many entries they have, the most frequent first."""
        causes = self._causes(wanted)
        asked: list[tuple[Any, ...]] = []
        for cause in causes:
            for state in wanted.states:
                index = f"{self.root}:in:{state}:{cause}"
                newest, oldest = _micros(wanted.until, "+inf"), _micros(wanted.since, "-inf")
                asked.append(("ZCOUNT", index, oldest, newest))
                asked.append(("ZREVRANGEBYSCORE", index, newest, oldest, "WITHSCORES", "LIMIT", 0, 1))
        with self.store.reporting():
            answers = iter(self._pipe(*asked))
        found = []
        for cause, about in causes.items():
            counts = [(next(answers), _pairs(next(answers))) for _ in wanted.states]
            last = max((float(died) for _, pairs in counts for _, died in pairs), default=0.0) / 1e6
            total, where = sum(count for count, _ in counts), tuple(about["where"])
            found.append(Group(**{**about, "id": cause, "count": total, "last": last, "where": where}))
        return sorted((one for one in found if one.count), key=lambda one: (-one.count, -one.last))

    def counts(self) -> dict[str, int]:
        """How many entries are in each state."""
        with self.store.reporting():
            answers = self._pipe(*(("ZCARD", f"{self.root}:in:{state}") for state in STATES))
        return dict(zip(STATES, answers, strict=True))

    def count(self, wanted: Filter) -> int:
        """How many entries are meant."""
        if wanted.ids:
            return len(self._listed(wanted))
        newest, oldest = _micros(wanted.until, "+inf"), _micros(wanted.since, "-inf")
        asked = [("ZCOUNT", index, oldest, newest) for index in self._indexes(wanted)]
        with self.store.reporting():
            return sum(self._pipe(*asked))

    def _listed(self, wanted: Filter) -> list[tuple[str, int]]:
        rest = replace(wanted, ids=())
        found = []
        for entry in self.entries(list(dict.fromkeys(wanted.ids))):
            about = {"queue": entry.queue, "task": entry.task, "exception": entry.exception}
            if entry.state in rest.states and rest.fits(entry.cause, about):
                found.append((entry.id, round(entry.died * 1e6)))
        return found

    def _indexes(self, wanted: Filter) -> list[str]:
        if not wanted.is_by_cause:
            return [f"{self.root}:in:{state}" for state in wanted.states]
        causes = self._causes(wanted)
        return [f"{self.root}:in:{state}:{cause}" for state in wanted.states for cause in causes]

    def _causes(self, wanted: Filter) -> dict[str, dict[str, Any]]:
        with self.store.reporting():
            found = self.store.client.hgetall(f"{self.root}:causes")
        known = {cause.decode(): json.loads(about) for cause, about in found.items()}
        return {cause: about for cause, about in known.items() if wanted.fits(cause, about)}

    def _pipe(self, *commands: tuple[Any, ...]) -> list[Any]:
        """All commands in one round trip, their answers as the server gives them."""
        if not commands:
            return []
        with self.store.client.pipeline(transaction=False) as pipe:
            for name, *args in commands:
                pipe.execute_command(name, *args)
            answers: list[Any] = pipe.execute()
        return answers


def _named(exception: str, pattern: str) -> bool:
    """Whether a type is meant: by its whole name, or without its module."""
    return fnmatchcase(exception, pattern) or fnmatchcase(exception.rpartition(".")[2], pattern)


def _micros(moment: float | None, otherwise: str) -> str:
    return otherwise if moment is None else str(round(moment * 1e6))


def _pairs(answer: Any) -> list[tuple[bytes, float]]:
    """Members and scores, which redis-py may or may not have put into pairs."""
    if answer and isinstance(answer[0], (tuple, list)):
        return [(one, score) for one, score in answer]
    return list(zip(answer[::2], answer[1::2], strict=True))
