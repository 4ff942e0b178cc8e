"""All that one does with dead letters, in one place: what the command line does, for code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_patterns.core.store import store_of
from celery_patterns.deadletters import triage
from celery_patterns.deadletters.query import Filter, Group, Page, Query
from celery_patterns.deadletters.recovery import recover
from celery_patterns.deadletters.replay import Plan, Replay, Report
from celery_patterns.errors import DeadLetterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from celery import Celery

    from celery_patterns.deadletters.entry import Entry


class DeadLetters:
    """The dead letters of an app.

    Args:
        app: The app; its store is the one that its tasks use.

    Example:
        >>> from celery import Celery
        >>> from celery_patterns.testing import memory_store
        >>> with memory_store():
        ...     DeadLetters(Celery(set_as_current=False)).counts()["open"]
        0
    """

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.store = store_of(app)
        self.query = Query(self.store)

    def list(self, wanted: Filter | None = None, *, limit: int = 20, before: int | None = None) -> Page:
        """One page of entries, the latest death first; by default the open ones."""
        return self.query.page(wanted or Filter(), limit=limit, before=before)

    def walk(self, wanted: Filter | None = None) -> Iterator[Entry]:
        """All entries, read a page at a time."""
        for ids in self.query.walk(wanted or Filter()):
            yield from self.query.entries(ids)

    def get(self, entry: str) -> Entry:
        """One entry, with its history.

        Raises:
            DeadLetterError: There is none.
        """
        found = self.query.get(entry)
        if found is None:
            raise DeadLetterError(f"no dead letter {entry!r}")
        return found

    def groups(self, wanted: Filter | None = None) -> Sequence[Group]:
        """Entries grouped by cause, the most frequent cause first."""
        return self.query.groups(wanted or Filter())

    def counts(self) -> dict[str, int]:
        """How many entries are in each state."""
        return self.query.counts()

    def replay(
        self,
        wanted: Filter | None = None,
        plan: Plan | None = None,
        *,
        progress: Callable[[Report], None] = lambda _: None,
    ) -> Report:
        """Run entries again; by default all open ones, as :class:`Plan` says by default.

        Raises:
            StoreUnavailable: What was published by then is on its way; run it again for the rest.
        """
        return Replay(self.app, self.store, wanted or Filter(), plan or Plan(), progress).run()

    def would_replay(self, wanted: Filter | None = None, limit: int | None = None) -> int:
        """How many entries a replay would publish now."""
        count = self.query.count(wanted or Filter())
        return count if limit is None else min(count, limit)

    def recover(self) -> int:
        """Settle replays that never reported; how many entries were opened. Each replay does so first."""
        return recover(self.app, self.store)

    def edit(self, entry: str, *, args: Any = None, kwargs: Mapping[str, Any] | None = None) -> Entry:
        """Give an entry other arguments before it is replayed; its first body is kept as ``original``.

        Raises:
            DeadLetterError: There is no such entry, it is not open, or its body cannot be read.
        """
        triage.edit(self.app, self.store, entry, args=args, kwargs=kwargs)
        return self.get(entry)

    def archive(self, wanted: Filter, why: str = "") -> int:
        """Put entries aside: they are kept for their retention, and not replayed."""
        return triage.decide(self.store, "archive", wanted, why)

    def unarchive(self, wanted: Filter, why: str = "") -> int:
        """Open archived or quarantined entries again."""
        return triage.decide(self.store, "unarchive", wanted, why)

    def resolve(self, wanted: Filter, why: str = "") -> int:
        """Close entries that were dealt with elsewhere."""
        return triage.decide(self.store, "resolve", wanted, why)

    def reopen(self, wanted: Filter, why: str = "") -> int:
        """Open entries again whose replay was published and will never report."""
        return triage.decide(self.store, "reopen", wanted, why)

    def purge(self, wanted: Filter) -> int:
        """Delete entries for good. What is being replayed is left."""
        return triage.decide(self.store, "purge", wanted)
