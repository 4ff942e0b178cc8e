"""One concern per file; none imports another."""

from importlib import import_module
from typing import Any

from celery.signals import worker_init


@worker_init.connect
def _open_room(**_: Any) -> None:
    """Where calls start, what must wait under any policy does so in the waiting room."""
    import_module("celery_patterns.waiting")
