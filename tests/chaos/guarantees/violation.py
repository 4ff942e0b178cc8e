"""What a checker finds: which guarantee, why, and what was written down about it."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.chaos.story import Entry


@dataclass(frozen=True, slots=True)
class Violation:
    """A guarantee that did not hold.

    Args:
        guarantee: Which one, as one name.
        why: What was found, in a sentence.
        entries: The events from which that follows.
    """

    guarantee: str
    why: str
    entries: Sequence[Entry]

    def __str__(self) -> str:
        lines = [json.dumps(entry) for entry in in_order(self.entries)]
        return "\n    ".join([f"{self.guarantee}: {self.why}", *lines])


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries by their time."""
    return sorted(entries, key=lambda entry: entry["at"])
