"""The library's settings, read from ``app.conf`` (and so with Django's ``CELERY_`` namespace)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from celery_patterns.errors import PolicyError

if TYPE_CHECKING:
    from celery import Celery

ALL = frozenset({"*"})
_switched_off: ContextVar[frozenset[str]] = ContextVar("celery_patterns_disabled", default=frozenset())


def setting(app: Celery, name: str, default: Any) -> Any:
    """The value of ``app.conf.<name>``, or ``default`` where it is missing or ``None``."""
    value = app.conf.get(name)
    return default if value is None else value


def switch(app: Celery, name: str, *, default: bool) -> bool:
    """A setting that is on or off; as text, as from an environment, it is ``"yes"``, ``"no"`` or the like.

    Raises:
        PolicyError: It is neither.
    """
    value = app.conf.get(name)
    if value is None:
        return default
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _ON or word in _OFF:
        return word in _ON
    raise PolicyError(f"{name}={value!r}: set it to True or False")


_ON = {"true", "yes", "on", "1"}
_OFF = {"false", "no", "off", "0"}


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
    """The kinds of policies that are switched off here and now; ``"*"`` among them means all.

    Raises:
        PolicyError: ``patterns_disabled`` is neither a boolean nor names of kinds.
    """
    configured = app.conf.get("patterns_disabled")
    return _switched_off.get() | _kinds(configured) if configured else _switched_off.get()


def _kinds(configured: object) -> frozenset[str]:
    """What ``patterns_disabled`` names; as text, as it comes from an environment, with commas between."""
    if configured is True:
        return ALL
    if isinstance(configured, str):
        names = frozenset(name.strip() for name in configured.split(","))
        return ALL if {name.lower() for name in names} & _YES else names
    if isinstance(configured, Collection) and all(isinstance(name, str) for name in configured):
        return frozenset(configured)
    raise PolicyError(
        f'patterns_disabled={configured!r}: set it to True for all, or to names such as ["idempotency"]'
    )


_YES = {*_ON, "all", "*"}
