"""What makes a chord partial: a mark in the options of its body, which Celery hands to every part.

It is on the tasks that start first when the body starts. So it stays where it is when more is
chained on to the chord, and a merge of options (``apply_async(headers=...)``) does not touch it.
It is taken off before the body is published.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from celery.canvas import maybe_signature

from celery_patterns.errors import StoreVersionError
from celery_patterns.flows.chords.signatures import plain_copy, starters
from celery_patterns.flows.chords.threshold import Threshold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

OPTION = "cp_chord"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What a partial chord asks for.

    Args:
        threshold: How many parts must be ok.
        fail_fast: Whether what has not started is revoked once the threshold is out of reach.
        deadline: After how many seconds what has not reported is given up.
        rerun: Whether the body runs again when a part is mended after the end.
        plain: Whether the chord is a plain one to its users: the body is given values, or fails
            with Celery's error. That is what plain chords in the header of a partial one become.
        id: The chord's own id, once it has begun.
    """

    threshold: Threshold = field(default_factory=Threshold)
    fail_fast: bool = False
    deadline: float | None = None
    rerun: bool = False
    plain: bool = False
    id: str | None = None

    def put_on(self, body: Mapping[str, Any]) -> None:
        """Mark the body of a chord, in place."""
        for task in starters(body):
            task["options"][OPTION] = self._as_option()

    def _as_option(self) -> dict[str, Any]:
        option = {
            "v": VERSION,
            "id": self.id,
            "min_success": self.threshold.min_success,
            "min_share": self.threshold.min_share,
            "fail_fast": self.fail_fast or None,
            "deadline": self.deadline,
            "rerun": self.rerun or None,
            "plain": self.plain or None,
        }
        return {name: value for name, value in option.items() if value is not None}


def mark_of(body: Mapping[str, Any]) -> Mark | None:
    """The mark of a chord's body; ``None`` for a plain chord.

    Raises:
        StoreVersionError: It was made by a newer version of the library.
    """
    option = next(starters(body))["options"].get(OPTION)
    if option is None:
        return None
    if option["v"] != VERSION:
        raise StoreVersionError(f"a chord was begun by a newer version of celery-patterns: {option!r}")
    return _read(tuple(option.items()))


@lru_cache(maxsize=128)
def _read(items: tuple[tuple[str, Any], ...]) -> Mark:
    """The mark that an option says; ten thousand parts carry the same."""
    option = dict(items)
    return Mark(
        threshold=Threshold(min_success=option.get("min_success"), min_share=option.get("min_share")),
        fail_fast=bool(option.get("fail_fast")),
        deadline=option.get("deadline"),
        rerun=bool(option.get("rerun")),
        plain=bool(option.get("plain")),
        id=option.get("id"),
    )


def begun_mark(body: Mapping[str, Any] | None) -> Mark | None:
    """The mark of a chord that was begun on this result backend; ``None`` for any other."""
    mark = mark_of(body) if body else None
    return mark if mark is not None and mark.id is not None else None


def unmarked(body: Mapping[str, Any], app: Celery) -> Any:
    """A copy of a chord's body that is ready to be published: a signature without the mark."""
    copy = plain_copy(body)
    for task in starters(copy):
        task["options"].pop(OPTION, None)
    return maybe_signature(copy, app=app)
