"""Which delivery Celery reports about in a worker's parent: its signal has a task id, which two may share."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery.app.task import Context

_reported = threading.local()


def reported_request() -> Context | None:
    """The request that Celery is reporting about in this thread of the parent."""
    return getattr(_reported, "request", None)


@contextmanager
def reporting(request: Context) -> Iterator[None]:
    """Have :func:`reported_request` tell of ``request`` meanwhile."""
    _reported.request = request
    try:
        yield
    finally:
        _reported.request = None
