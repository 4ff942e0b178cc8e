"""A retry budget: when a service is down, retries must not become most of its load."""

from __future__ import annotations

import logging
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from celery_patterns.core.script import Script
from celery_patterns.core.store import store_of, tag
from celery_patterns.errors import PolicyError, StoreUnavailable

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger("celery_patterns")

_spend = Script("retry_budget")


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """How many retries tasks may spend together; shared by all workers through the store.

    Each first attempt pays in ``share`` of a retry, each second ``per_second``; each retry costs
    one. When the budget is spent, retries are not refused but stretched: each is put behind those
    before it, ``per_second`` of them a second. It costs one round trip for each call.

    Args:
        name: Whose budget it is; give the tasks that call one service one name.
        share: The part of calls that may be retries.
        per_second: The retries that are always allowed.

    Raises:
        PolicyError: An option is out of range.
    """

    name: str
    _: KW_ONLY
    share: float = 0.2
    per_second: float = 10.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise PolicyError(f"RetryBudget name={self.name!r}: give a string that is not empty")
        if not 0 <= self.share <= 1:
            raise PolicyError(f"share={self.share!r}: give a part of the calls, from 0 to 1")
        if not self.per_second > 0:
            raise PolicyError(f"per_second={self.per_second!r}: give retries per second, more than 0")

    def pay_in(self, app: Celery) -> None:
        """A first attempt begins."""
        self._ask(app, retries=0)

    def delay(self, app: Celery) -> float:
        """Spend one retry; how many seconds it must wait at least. 0 when the store is away."""
        return self._ask(app, retries=1)

    def _ask(self, app: Celery, *, retries: int) -> float:
        store = store_of(app)
        paid = 0 if retries else round(self.share * 1e6)
        milli_rate = max(1, round(self.per_second * 1000))
        try:
            wait_ms = _spend(store, [store.key("retry_budget", tag(self.name))], [paid, milli_rate, retries])
        except StoreUnavailable as error:
            logger.warning("Retry budget %s is out of reach: %s; retries go on without it", self.name, error)
            return 0.0
        return float(wait_ms / 1000)
