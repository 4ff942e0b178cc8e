"""What a singleton's message says about itself, beside what every message says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery_patterns.core.policy import Call

FOLLOW_HEADER = "cp-singleton-follows"
"""The task whose result this one is to end with: ``"<attempt>/<task id>"``."""
SKIP_HEADER = "cp-singleton-skipped"
"""The task that this one was a duplicate of when it was published."""
AT_HEADER = "cp-singleton-at"
"""When it was published, in microseconds of the server's clock: the newest counts."""


def followed(call: Call) -> str | None:
    """The task whose result a call waits for. Its own retry, or replay, begins anew."""
    attempt, _, task_id = str(call.headers.get(FOLLOW_HEADER) or "").partition("/")
    return task_id if task_id and attempt == str(call.attempt) else None


def following(call: Call, task_id: str | None) -> dict[str, str]:
    """The header by which a call waits for the result of ``task_id``."""
    return {FOLLOW_HEADER: f"{call.attempt}/{task_id}"}
