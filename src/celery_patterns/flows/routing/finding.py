"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong with the routing.

    Args:
        kind: What, in few words: ``"unreachable rule"``, ``"unknown queue"``...
        subject: The rule, the queue or the task.
        message: Why, and what to do.
        fails: Whether a task would go wrong; otherwise it is advice.
    """

    kind: str
    subject: str
    message: str
    fails: bool = True

    def __str__(self) -> str:
        return f"{'FAIL' if self.fails else 'note'}  {self.kind}: {self.subject}: {self.message}"
