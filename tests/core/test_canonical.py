"""Canonical texts: one for equal values, another for every other value."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal, localcontext
from enum import Enum
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from celery_patterns.core.canonical import (
    LONGEST_TEXT,
    NotCanonical,
    canonical_text,
    digest,
    name_type,
    shorten,
)
from tests.core.values import Colour, Point, identity, lookalikes, respelled, values

HOUR_EAST = timezone(timedelta(hours=1))


@given(st.tuples(values, values) | st.tuples(lookalikes, lookalikes), st.booleans())
@example((Decimal("1.00000000000000000000000000001"), Decimal(1)), False)
@example((timedelta(days=10**8, microseconds=1), timedelta(days=10**8)), False)
def test_two_values_share_a_text_exactly_when_they_are_the_same(pair: tuple[Any, Any], nested: bool) -> None:
    """Two orders would be taken for one, or one for two."""
    one, other = [[value] for value in pair] if nested else pair
    assert (canonical_text(one) == canonical_text(other)) == (identity(one) == identity(other))


@given(values, st.randoms(use_true_random=False))
def test_a_value_written_in_another_way_has_the_same_text(value: Any, chance: random.Random) -> None:
    """The order of a dict, a time zone or a trailing zero would make one order two."""
    assert canonical_text(respelled(value, chance)) == canonical_text(value)


@given(values)
def test_every_text_can_be_sent_to_redis(value: Any) -> None:
    """A lone surrogate in a value would fail when the key is sent, long after it was accepted."""
    assert canonical_text(value).encode()


@pytest.mark.parametrize(
    "alike",
    [
        (None, "None", "null"),
        (1, "1", True, 1.0, Decimal(1), [1], (1,), {1}, b"1"),
        ("red", Colour.RED),
        ([], (), {}, set(), "", None, False, 0),
        ({"a": 1}, {"!a": 1}, [["a", 1]], Point("a", 1)),
        ({1: "x"}, {"1": "x"}, {"!int:1": "x"}, {True: "x"}),
        (UUID(int=1), {"!uuid": UUID(int=1).hex}, {"!!uuid": UUID(int=1).hex}, UUID(int=1).hex),
        (["a,b"], ["a", "b"], ['a","b'], "a,b"),
        ([["a"], "b"], ["a", ["b"]], [["a", "b"]]),
        ("\ud800", "\\ud800", "?", "\ufffd"),
        ("e\u0301", "é"),
        (datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1).date()),  # noqa: DTZ001
    ],
    ids=repr,
)
def test_values_that_look_alike_have_texts_of_their_own(alike: tuple[Any, ...]) -> None:
    """A forged tag or a separator inside a value would hand one customer another's result."""
    assert len({canonical_text(value) for value in alike}) == len(alike)


def test_the_earliest_and_latest_moments_have_a_text_in_every_zone() -> None:
    """An open-ended period, written with `datetime.min`, would crash with an overflow."""
    earliest = datetime.min.replace(tzinfo=HOUR_EAST)
    same = earliest.replace(hour=2, tzinfo=timezone(timedelta(hours=3)))
    latest = datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))
    assert canonical_text(earliest) == canonical_text(same)
    assert len({canonical_text(moment) for moment in (earliest, latest, earliest.replace(tzinfo=UTC))}) == 3


def test_a_zone_that_knows_no_offset_leaves_a_moment_naive() -> None:
    """The machine's own zone would become part of the key."""

    class Nowhere(tzinfo):
        def utcoffset(self, _: datetime | None) -> None:
            return None

    naive = datetime(2024, 1, 1)  # noqa: DTZ001
    assert canonical_text(naive.replace(tzinfo=Nowhere())) == canonical_text(naive)


@pytest.mark.parametrize(
    ("one", "other"),
    [("1E+1000000", "2E+1000000"), ("1E-1000000", "1E-1000001"), ("1" * 40, "1" * 39 + "2")],
)
def test_decimals_keep_their_value_whatever_the_context(one: str, other: str) -> None:
    """The context's precision would round two different amounts to one, or raise."""
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = 3, 10, -10
        assert canonical_text(Decimal(one)) != canonical_text(Decimal(other))


def test_an_enumeration_cannot_be_taken_for_a_tagged_value() -> None:
    """A class that happens to be called like a tag would collide with the tagged type."""
    named_like_a_tag = Enum("uuid", {"ONE": UUID(int=1).hex})
    assert canonical_text(named_like_a_tag.ONE) != canonical_text(UUID(int=1))


def test_a_pydantic_model_is_what_it_dumps() -> None:
    """A model at the producer and its dict at the worker would have two keys."""

    class Order(BaseModel):
        id: int
        lines: list[str] = []

    assert canonical_text(Order(id=1)) == canonical_text({"id": 1, "lines": []})


def test_a_dataclass_counts_by_its_fields() -> None:
    """Two equal orders would differ, or two orders be one."""

    @dataclass
    class Order:
        id: int
        currency: ClassVar[str] = "EUR"

    assert canonical_text(Order(1)) == canonical_text(Order(1)) != canonical_text(Order(2))


@pytest.mark.parametrize(
    "value",
    [object(), Point, print, open, ..., 1j, {"deep": [object()]}],
    ids=lambda value: type(value).__name__,
)
def test_a_value_without_a_text_is_refused_with_its_type(value: Any) -> None:
    """A `repr` with a memory address would make every call a new one."""
    with pytest.raises(NotCanonical, match=r"a value of type \w+"):
        canonical_text(value)


def test_a_lenient_text_counts_the_type_of_what_it_does_not_know() -> None:
    """The fingerprint of a real duplicate would differ, and the duplicate be refused."""
    assert canonical_text([object()], name_type) == canonical_text([object()], name_type)
    assert canonical_text([object()], name_type) != canonical_text([1j], name_type)


def test_long_texts_become_digests_that_differ() -> None:
    """A key of a megabyte would go over the wire with every command, or two of them become one."""
    longest, longer = "x" * LONGEST_TEXT, "x" * (LONGEST_TEXT + 1)
    assert shorten(longest) == longest
    assert shorten(longer) == digest(longer)
    assert len({shorten("x" * (LONGEST_TEXT + size)) for size in range(50)}) == 50
    assert len(shorten(longer)) < LONGEST_TEXT
