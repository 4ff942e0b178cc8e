"""Values that calls are made of, for Hypothesis, and what it means that two of them are the same."""

import random
from collections.abc import Hashable
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = [UTC, timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-9, seconds=-1))]


class Colour(Enum):
    RED = "red"
    BLUE = 1


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Word(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Point:
    x: Any
    y: Any = 0


# Few letters, so that two drawn texts are often alike but for what might be mistaken for a separator.
texts = st.text(st.sampled_from("a1:,{}[]\"'!\\é\ud800\udc00\u2028\x00"), max_size=3) | st.sampled_from(
    ["", "None", "null", "1", "1.0", "true", "True", "!uuid", "!!uuid", "!int:1", "sha256:", "2024-01-01"]
)
moments = st.datetimes(min_value=datetime(2024, 1, 1), max_value=datetime(2024, 1, 2))  # noqa: DTZ001
aware_moments = st.builds(lambda naive, zone: naive.replace(tzinfo=zone), moments, st.sampled_from(ZONES))
decimals = st.decimals(allow_nan=False, allow_infinity=False, min_value=-10, max_value=10, places=None) | (
    st.sampled_from([Decimal(text) for text in ("NaN", "Infinity", "-Infinity", "0", "-0", "1.0", "1E+2")])
)
plain_atoms = (
    st.sampled_from([None, True, False, 0, 1, -1, 2**70, 0.0, 1.0, 1.5, float("inf")])
    | st.integers()
    | st.floats(allow_nan=False).filter(bool)  # -0.0 and 0.0 are equal and written differently
    | texts
)
json_atoms = (
    plain_atoms
    | moments
    | aware_moments
    | st.dates()
    | st.times()
    | decimals
    | st.uuids()
    | st.binary(max_size=4)
)
atoms = json_atoms | st.timedeltas() | st.sampled_from([*Colour, *Size, *Word])


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(texts, inner, max_size=3)
        | st.dictionaries(st.integers(0, 2), inner, max_size=2)
    )


def _exotic_containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = texts | st.sampled_from([None, True, 2, 1.5, Colour.RED, ("a", 1)])
    return (
        _containers(inner)
        | st.dictionaries(names, inner, max_size=3)
        | st.frozensets(atoms, max_size=3)
        | st.builds(Point, inner, inner)
    )


json_values = st.recursive(json_atoms, _containers, max_leaves=6)
"""What kombu's JSON can carry, tuples included, which it turns into lists."""

values = st.recursive(atoms, _exotic_containers, max_leaves=6)
"""What only pickle can carry, but a key can be made of."""

lookalikes = st.recursive(texts | st.sampled_from([None, True, 1]), _containers, max_leaves=4)
"""Small values of few letters: two that are drawn are often nearly the same."""


def identity(value: Any) -> Hashable:
    """Something that is equal for two values exactly when they are the same argument."""
    if is_dataclass(value) and not isinstance(value, type):
        return Point, tuple(identity(getattr(value, one.name)) for one in fields(value))
    for types, identify in _IDENTITIES:
        if isinstance(value, types):
            return identify(value)
    return type(value), repr(value)


def _moment(value: datetime) -> Hashable:
    return "moment", (value - EPOCH if value.tzinfo else value.isoformat())


def _decimal(value: Decimal) -> Hashable:
    return Decimal, Fraction(value) if value.is_finite() else str(value)


def _items(value: dict[Any, Any]) -> Hashable:
    return dict, frozenset((identity(name), identity(item)) for name, item in value.items())


_IDENTITIES: list[tuple[Any, Any]] = [
    (Enum, lambda value: (type(value), value.name)),
    (datetime, _moment),
    (Decimal, _decimal),
    ((bytes, bytearray), lambda value: (bytes, bytes(value))),
    ((set, frozenset), lambda value: (set, frozenset(map(identity, value)))),
    (tuple, lambda value: (tuple, tuple(map(identity, value)))),
    (list, lambda value: (list, tuple(map(identity, value)))),
    (dict, _items),
    ((date, time, timedelta, UUID), lambda value: (type(value), repr(value))),
]


def respelled(value: Any, chance: random.Random) -> Any:
    """The same value, written in another way: another order, another zone, trailing zeros."""
    match value:
        case datetime() if value.tzinfo:
            return value.astimezone(chance.choice(ZONES))
        case Decimal() if value.is_finite():
            return _longer(value, chance.randrange(3))
        case Point():
            return Point(respelled(value.x, chance), respelled(value.y, chance))
        case dict():
            items = [(name, respelled(item, chance)) for name, item in value.items()]
            return dict(chance.sample(items, len(items)))
        case list() | tuple() | frozenset():
            return type(value)(respelled(item, chance) for item in value)
    return value


def _longer(value: Decimal, zeros: int) -> Decimal:
    sign, digits, exponent = value.as_tuple()
    return Decimal((sign, digits + (0,) * zeros, int(exponent) - zeros))
