"""One text for one value: what two equal arguments share and two different ones do not.

The text is JSON with sorted keys. JSON delimits itself, so no separator inside a value can make
two values look alike, and what JSON has no type for is tagged: ``{"!uuid": "..."}``. A key of the
caller's own dict that begins with ``!`` gets a second one, so a tag cannot be forged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

LONGEST_TEXT = 160
"""Longer texts are replaced by their digest, so that keys in Redis stay short."""


class NotCanonical(TypeError):
    """A value of a type that has no canonical text."""


Exotic = Callable[[Any], Any]


def refuse(value: Any) -> Any:
    """The strict answer to a value of unknown type."""
    raise NotCanonical(f"a value of type {type(value).__module__}.{type(value).__qualname__}")


def name_type(value: Any) -> Any:
    """The lenient answer: its type counts, its content does not."""
    return {"!object": f"{type(value).__module__}.{type(value).__qualname__}"}


def canonical_text(value: Any, exotic: Exotic = refuse) -> str:
    """The canonical text of ``value``.

    Args:
        value: Anything made of JSON's types, dates and times, decimals, UUIDs, bytes, sets,
            enumerations, dataclasses, or objects with pydantic's ``model_dump``.
        exotic: What to do with a value of any other type.

    Raises:
        NotCanonical: From the default ``exotic``.
    """
    tree = _plain(value, exotic)
    text = _encode(tree)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate: escape it, and with it everything else
        return json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return text


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
"""Made once: ``json.dumps`` makes an encoder for each call."""


def digest(text: str) -> str:
    """A short stand-in for a long text."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:40]


def shorten(text: str) -> str:
    """``text`` itself, or its digest where it is long. A digest is not JSON, so they cannot collide."""
    return text if len(text) <= LONGEST_TEXT else digest(text)


def _plain(value: Any, exotic: Exotic) -> Any:
    """A tree of JSON's own types that tells apart all that ``value`` tells apart."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is dict:
        return {_name(key, exotic): _plain(item, exotic) for key, item in value.items()}
    if kind is list:
        return [_plain(item, exotic) for item in value]
    for types, tagged in _TAGGED:
        if isinstance(value, types):
            return tagged(value, exotic)
    return _structured(value, exotic)


def _name(key: Any, exotic: Exotic) -> str:
    if type(key) is not str:
        return f"!{type(key).__name__}:{canonical_text(key, exotic)}"
    return f"!{key}" if key.startswith("!") else key


def _structured(value: Any, exotic: Exotic) -> Any:
    kind = type(value)
    if hasattr(kind, "model_dump"):
        return _plain(value.model_dump(mode="json"), exotic)
    if is_dataclass(value) and not isinstance(value, type):
        members = {one.name: _plain(getattr(value, one.name), exotic) for one in fields(value)}
        return {"!dataclass": [kind.__qualname__, members]}
    if isinstance(value, Mapping):
        return _plain(dict(value), exotic)
    return exotic(value)


def _moment(value: datetime, _: Exotic) -> Any:
    """An aware moment is the same in every zone; a naive one is what it says."""
    if value.utcoffset() is None:
        return {"!datetime": value.replace(tzinfo=None).isoformat()}
    try:
        return {"!datetime": value.astimezone(UTC).isoformat()}
    except OverflowError:  # it lies in the year 0 or 10000 there
        return {"!datetime": (value - _EPOCH) // _MICROSECOND}


def _decimal(value: Decimal, _: Exotic) -> Any:
    """Decimals that compare equal (1.5 and 1.50) are one; NaN and the infinities are themselves.

    Not ``normalize()``, which rounds to the precision of the thread's context.
    """
    if not value.is_finite():
        return {"!decimal": str(value)}
    sign, digits, exponent = value.as_tuple()
    significant = "".join(map(str, digits)).rstrip("0")
    if not significant:
        return {"!decimal": "0"}
    zeros = len(digits) - len(significant)
    return {"!decimal": str(Decimal((sign, tuple(map(int, significant)), int(exponent) + zeros)))}


def _members(value: Any, exotic: Exotic) -> Any:
    return {"!set": sorted(canonical_text(item, exotic) for item in value)}


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ATOMS = frozenset({type(None), bool, int, float, str})
_TAGGED: tuple[tuple[Any, Callable[[Any, Exotic], Any]], ...] = (
    (Enum, lambda value, exotic: {"!enum": [type(value).__qualname__, _plain(value.value, exotic)]}),
    (datetime, _moment),
    ((date, time), lambda value, _: {f"!{type(value).__name__}": value.isoformat()}),
    (timedelta, lambda value, _: {"!timedelta": value // _MICROSECOND}),
    (Decimal, _decimal),
    (UUID, lambda value, _: {"!uuid": value.hex}),
    ((bytes, bytearray), lambda value, _: {"!bytes": value.hex()}),
    ((set, frozenset), _members),
    (tuple, lambda value, exotic: {"!tuple": [_plain(item, exotic) for item in value]}),
    (list, lambda value, exotic: [_plain(item, exotic) for item in value]),
    (str, lambda value, _: str(value)),
    (bool, lambda value, _: bool(value)),
    (int, lambda value, _: int(value)),
    (float, lambda value, _: float(value)),
)
