"""A rate as an exact ratio: so many in so many microseconds.

Written as text, ``"25/s"``, ``"100/m"``, ``"1000/h"``, ``"5/10s"``, ``"0.5/s"``, or as
``Rate(5, per=10)``. A number without a unit is refused: whoever reads ``25`` cannot know per what.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from math import gcd
from typing import Final

from celery_patterns.core.durations import Seconds, seconds
from celery_patterns.errors import PolicyError

_SECOND: Final = 1_000_000
_UNITS: Final = {"s": _SECOND, "m": 60 * _SECOND, "h": 3_600 * _SECOND, "d": 86_400 * _SECOND}
_LONG_NAMES: Final = {"sec": "s", "second": "s", "min": "m", "minute": "m", "hour": "h", "day": "d"}
_TEXT: Final = re.compile(
    r"\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)?\s*(?:([smhd])|(sec|min|second|minute|hour|day)s?)\s*",
    re.IGNORECASE | re.ASCII,
)
_LARGEST: Final = 9 * 10**13
"""The largest burst times period, in microseconds, that a double counts exactly (2**53), and its 100ths."""
_FINEST: Final = 1_000_000
"""The largest denominator of a count that is not whole: 0.333333333 is meant to be a third."""


@dataclass(frozen=True, slots=True, init=False)
class Rate:
    """So many in so long.

    A count that is not whole is made whole over a longer time: ``Rate(0.5, per=1)`` is one in 2 s.

    Args:
        count: How many.
        per: In how long: seconds, or a ``timedelta``. The rate's own period.

    Raises:
        PolicyError: Nothing would ever pass, or the period is not a duration.

    Example:
        >>> Rate(100, per=60) == Rate.of("100/m")
        True
    """

    count: int
    per_us: int
    lowest_terms: tuple[int, int] = field(repr=False, compare=False)
    """The count and the microseconds, divided by all that they have in common."""
    terms: str = field(repr=False, compare=False)
    """The same as text, since each call under a limit sends it."""

    def __init__(self, count: float, per: Seconds) -> None:
        if isinstance(count, bool) or not isinstance(count, (int, float)) or not 0 < count < float("inf"):
            raise PolicyError(f"rate of {count!r} per {per!r}: give a number above 0")
        micros = Fraction(str(seconds("per", per, least=0.000_001))) * _SECOND
        exact = Fraction(str(count))
        self._set(exact.limit_denominator(_FINEST) or exact, micros)

    def _set(self, count: Fraction, micros: Fraction) -> None:
        micros *= count.denominator
        whole, per_us = count.numerator * micros.denominator, micros.numerator
        common = gcd(whole, per_us)
        object.__setattr__(self, "count", whole)
        object.__setattr__(self, "per_us", per_us)
        object.__setattr__(self, "lowest_terms", (whole // common, per_us // common))
        object.__setattr__(self, "terms", f"{whole // common} {per_us // common}")

    @classmethod
    def of(cls, written: object) -> Rate:
        """The rate that a user wrote.

        Raises:
            PolicyError: It is no rate; the message says how to write one.
        """
        if isinstance(written, Rate):
            return written
        found = _TEXT.fullmatch(written) if isinstance(written, str) else None
        if found is None or not (Fraction(found[1]) and Fraction(found[2] or 1)):
            raise PolicyError(
                f'rate={written!r}: write so many per unit, such as "25/s", "100/m", "1000/h", "5/10s", '
                "or Rate(5, per=10)"
            )
        unit = _UNITS[(found[3] or _LONG_NAMES[found[4].lower()]).lower()]
        rate = cls.__new__(cls)
        rate._set(Fraction(found[1]), Fraction(found[2] or 1) * unit)  # noqa: SLF001 - its own class
        return rate

    @property
    def per(self) -> float:
        """The period in seconds."""
        return self.per_us / _SECOND

    def check_countable(self, burst: int, *, strict: bool = False) -> None:
        """Refuse what a bucket in Redis cannot count to the microsecond.

        Raises:
            PolicyError: The rate, or so many tokens of it, are too large.
        """
        count, per_us = (self.count, self.per_us) if strict else self.lowest_terms
        if max(count, burst * per_us) > _LARGEST:
            raise PolicyError(f"rate={self}, burst={burst}: too large to be counted to the microsecond")

    def readable(self) -> str:
        """The same rate per second, minute, hour or day, if it is a whole number in one of them."""
        n, per = self.lowest_terms
        whole = ((name, n * unit // per) for name, unit in _UNITS.items() if not n * unit % per)
        return next((f"{count}/{name}" for name, count in whole), str(self))

    def __str__(self) -> str:
        for name, unit in reversed(_UNITS.items()):
            times, rest = divmod(self.per_us, unit)
            if not rest:
                return f"{self.count}/{'' if times == 1 else times}{name}"
        return f"{self.count}/{(Decimal(self.per_us) / _SECOND).normalize():f}s"
