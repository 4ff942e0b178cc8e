"""The library's settings, read from ``app.conf`` (and so with Django's ``CELERY_`` namespace)."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from celery import Celery

ALL = frozenset({"*"})
_switched_off: ContextVar[frozenset[str]] = ContextVar("celery_patterns_disabled", default=frozenset())


def setting(app: Celery, name: str, default: Any) -> Any:
    """The value of ``app.conf.<name>``, or ``default`` where it is missing or ``None``."""
    value = app.conf.get(name)
    return default if value is None else value


@contextmanager
def disabled(*kinds: str) -> Iterator[None]:
    """Switch policies off in this context: all of them, or the named kinds.

    The operator's kill switch for code (a shell, a one-off script, a test). For a whole worker
    set ``app.conf.patterns_disabled``. A disabled policy neither asks the store nor writes to it,
    so its guarantee does not hold meanwhile.

    Args:
        kinds: Kinds of policies, such as ``"idempotency"``; none means all.

    Example:
        >>> with disabled("idempotency"):
        ...     pass
    """
    token = _switched_off.set(_switched_off.get() | (frozenset(kinds) or ALL))
    try:
        yield
    finally:
        _switched_off.reset(token)


def disabled_kinds(app: Celery) -> Collection[str]:
    """The kinds of policies that are switched off here and now; ``"*"`` among them means all."""
    configured: bool | str | Collection[str] | None = app.conf.get("patterns_disabled")
    if not configured:
        return _switched_off.get()
    if configured is True:
        return ALL
    kinds = {configured} if isinstance(configured, str) else configured
    return _switched_off.get().union(kinds)
