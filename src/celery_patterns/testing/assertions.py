"""What a test wants to know of the library: that a call was replayed, that it was put off."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery_patterns.core.events import Event, subscribe

if TYPE_CHECKING:
    from collections.abc import Iterator


class CapturedEvents(list[Event]):
    """The events of this process since capturing began."""

    def of(self, kind: str, task: Any = None) -> list[Event]:
        """The events of one kind, of one task (or its name) if given."""
        name = getattr(task, "name", task)
        return [event for event in self if event.kind == kind and name in {None, event.task}]


@contextmanager
def capture() -> Iterator[CapturedEvents]:
    """Collect the events of this process meanwhile."""
    events = CapturedEvents()
    stop = subscribe(events.append)
    try:
        yield events
    finally:
        stop()


@contextmanager
def assert_replayed(task: Any = None, *, times: int | None = None) -> Iterator[CapturedEvents]:
    """Fail unless, meanwhile, a call got the recorded result of an earlier one.

    Args:
        task: The task, or its name; default: any.
        times: How often exactly; default: at least once.

    Raises:
        AssertionError: With what happened instead.
    """
    with _expect("replayed", task, times) as events:
        yield events


@contextmanager
def assert_deferred(task: Any = None, *, times: int | None = None) -> Iterator[CapturedEvents]:
    """Fail unless, meanwhile, a call was put off.

    Args:
        task: The task, or its name; default: any.
        times: How often exactly; default: at least once.

    Raises:
        AssertionError: With what happened instead.
    """
    with _expect("deferred", task, times) as events:
        yield events


@contextmanager
def _expect(kind: str, task: Any, times: int | None) -> Iterator[CapturedEvents]:
    with capture() as events:
        yield events
    found = len(events.of(kind, task))
    if (found == 0) if times is None else (found != times):
        wanted = "at least once" if times is None else f"{times} times"
        happened = ", ".join(f"{event.kind} {event.task}" for event in events) or "no event at all"
        whose = getattr(task, "name", task) or "a task"
        raise AssertionError(f"expected {whose} to be {kind} {wanted}, but saw it {found} times: {happened}")
