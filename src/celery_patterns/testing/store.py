"""A store of a test's own, for every app of the process."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from celery_patterns.core.store import Store, override_store

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def memory_store(url: str | None = None) -> Iterator[Store]:
    """Give all apps of this process an empty store meanwhile.

    Args:
        url: Where it is; default: fakeredis in this process. A real server must be empty already.

    Example:
        >>> with memory_store() as store:
        ...     store.client.ping()
        True
    """
    store = Store(url or f"memory://{uuid4().hex}")
    with override_store(store):
        try:
            yield store
        finally:
            store.close()
