"""When a call may start, and until when, in seconds from now: Celery's many spellings of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from celery.utils.time import maybe_iso8601, maybe_make_aware

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery


def seconds_from_now(app: Celery, when: Any) -> float:
    """A countdown, or the time until an eta, whichever ``when`` is; 0 for ``None`` and for the past."""
    if isinstance(when, str):
        when = maybe_iso8601(when)
    if isinstance(when, datetime):
        when = maybe_make_aware(when, app.timezone) - app.now()
    if isinstance(when, timedelta):
        when = when.total_seconds()
    return max(0.0, float(when or 0))


def start_delay(app: Celery, options: Mapping[str, Any]) -> float:
    """Seconds until a call published with ``options`` may start."""
    return seconds_from_now(app, options.get("eta") or options.get("countdown"))


def time_to_expiry(app: Celery, expires: Any) -> float | None:
    """Seconds until a call with the option ``expires`` may not start any more; ``None`` for never."""
    return None if expires is None else seconds_from_now(app, expires)
