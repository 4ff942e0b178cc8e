"""How many parts of a chord must be ok: pure arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from celery_patterns.errors import PolicyError


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """How many good parts a chord needs; all of them, unless one of the two says otherwise.

    Args:
        min_success: A number of parts.
        min_share: A share of the parts, from 0 to 1, taken as the decimal that was written: 0.1
            of 30 is 3.

    Raises:
        PolicyError: An option is out of range, or both are given.
    """

    min_success: int | None = None
    min_share: float | None = None

    def __post_init__(self) -> None:
        count, share = self.min_success, self.min_share
        if count is not None and share is not None:
            raise PolicyError(f"min_success={count!r} and min_share={share!r}: give one of them")
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
            raise PolicyError(f"min_success={count!r}: give a number of parts, 0 or more")
        if share is not None and (
            isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1
        ):
            raise PolicyError(f"min_share={share!r}: give a share from 0 to 1")

    def needed(self, total: int) -> int:
        """How many of ``total`` parts must be ok."""
        if self.min_success is not None:
            return self.min_success
        if self.min_share is not None:
            return math.ceil(Fraction(str(self.min_share)) * total)
        return total

    def is_met(self, good: int, total: int) -> bool:
        """Whether so many good parts of ``total`` are enough."""
        return good >= self.needed(total)

    def is_out_of_reach(self, bad: int, total: int) -> bool:
        """Whether it cannot be met any more, once ``bad`` parts of ``total`` are not ok."""
        return total - bad < self.needed(total)
