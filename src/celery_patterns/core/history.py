"""What a message remembers of a task's earlier attempts, in a header: when, and what went wrong."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

HISTORY_HEADER = "cp-attempts"
"""JSON: a list of ``[seconds since the epoch, exception type, message]``."""

FIRST_HEADER = "cp-first-attempt"
"""When the first attempt began, in seconds since the epoch."""
SLEPT_HEADER = "cp-slept"
"""For how many seconds the attempts have waited for each other."""

LONGEST_TEXT = 200
"""How much of an exception's message is remembered."""
KEPT = 10
"""How many attempts are remembered: the latest."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt that failed.

    Args:
        at: When, in seconds since the epoch.
        exception: The name of the exception's type.
        message: The beginning of its message.
    """

    at: float
    exception: str
    message: str


def attempts(headers: Mapping[str, Any]) -> list[Attempt]:
    """The attempts that a message remembers, oldest first."""
    return [Attempt(*one) for one in json.loads(headers.get(HISTORY_HEADER) or "[]")]


def remember(headers: Mapping[str, Any], error: BaseException) -> dict[str, str]:
    """The header for a message that also remembers the attempt which ends with ``error``."""
    latest = [time.time(), type(error).__name__, str(error)[:LONGEST_TEXT]]
    earlier = json.loads(headers.get(HISTORY_HEADER) or "[]")
    return {HISTORY_HEADER: json.dumps([*earlier, latest][-KEPT:])}
