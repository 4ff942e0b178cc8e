"""How rates are written, and what they are exactly."""

from datetime import timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from celery_patterns import PolicyError, Rate


@pytest.mark.parametrize(
    ("written", "count", "per"),
    [
        ("25/s", 25, 1),
        ("100/m", 100, 60),
        ("1000/h", 1000, 3600),
        ("10/d", 10, 86_400),
        ("5/10s", 5, 10),
        ("0.5/s", 1, 2),
        ("2.5/min", 5, 120),
        (" 3 / 1.5 Hours ", 3, 5400),
        ("1/0.5s", 1, 0.5),
        (Rate(5, per=10), 5, 10),
        (Rate(0.25, per=timedelta(seconds=1)), 1, 4),
        (Rate(1 / 3, per=1), 1, 3),
    ],
)
def test_a_rate_is_so_many_in_so_long(written: Any, count: int, per: float) -> None:
    """A limit would be another than the one that was written."""
    rate = Rate.of(written)
    assert (rate.count, rate.per) == (count, per)


@pytest.mark.parametrize(
    "written", ["25", 25, 2.5, None, "", "x/s", "0/s", "5/0s", "-1/s", "5/ms", "5/w", "5/", "1e3/s"]
)
def test_what_is_no_rate_is_refused(written: Any) -> None:
    """A number without a unit, or a unit that we do not know, would mean anything."""
    with pytest.raises(PolicyError, match='such as "25/s"'):
        Rate.of(written)


@pytest.mark.parametrize(
    ("count", "per"), [(0, 1), (-1, 1), (True, 1), ("5", 1), (float("inf"), 1), (1, 0), (1, "s")]
)
def test_a_rate_of_nothing_is_refused(count: Any, per: Any) -> None:
    """A limit that lets nobody pass, or everybody, would be taken for a rate."""
    with pytest.raises(PolicyError):
        Rate(count, per=per)


@given(st.integers(1, 10**6), st.integers(1, 86_400 * 10**6))
def test_a_rate_reads_as_it_is_written(count: int, per_us: int) -> None:
    """What operators see would not be what they can type."""
    rate = Rate(count, per=per_us / 1e6)
    assert Rate.of(str(rate)) == rate


@given(st.integers(1, 10**6), st.integers(1, 86_400 * 10**6))
def test_lowest_terms_are_the_same_rate(count: int, per_us: int) -> None:
    """Buckets would fill faster or slower than the rate says."""
    rate = Rate(count, per=per_us / 1e6)
    n, per = rate.lowest_terms
    assert n * rate.per_us == rate.count * per


@pytest.mark.parametrize(
    ("written", "readable"),
    [
        ("25/s", "25/s"),
        ("600/2m", "5/s"),
        ("100/m", "100/m"),
        ("5/3s", "100/m"),
        ("1/d", "1/d"),
        ("1/7d", "1/7d"),
    ],
)
def test_operators_read_it_per_unit(written: str, readable: str) -> None:
    """An operator would have to reckon what five in three seconds are."""
    assert Rate.of(written).readable() == readable
