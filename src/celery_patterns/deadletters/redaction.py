"""Keeping the values of named arguments out of what people see. What is replayed is never touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

HIDDEN = "[redacted]"
SHORTEST = 3
"""Shorter values are left in texts: they are parts of too many words, and tell too little."""


def without(text: str, secrets: Iterable[Any]) -> str:
    """A text without the values of ``secrets``, as ``str`` and as ``repr`` write them."""
    written = {spelling for value in secrets for one in _parts(value) for spelling in (str(one), repr(one))}
    for one in sorted(written, key=len, reverse=True):
        if len(one) >= SHORTEST:
            text = text.replace(one, HIDDEN)
    return text


def _parts(value: Any) -> Iterable[Any]:
    """A value and all that is in it: an error may tell one part of an address."""
    yield value
    if isinstance(value, dict):
        for one in value.values():
            yield from _parts(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _parts(one)
