"""Rules that raised: counted, logged, and told to subscribers. The task goes where the default says."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from celery_patterns.core.events import Event, emit

if TYPE_CHECKING:
    from celery_patterns.flows.routing.routed_call import RoutedCall

logger = logging.getLogger("celery_patterns")


class RuleFailures(Counter[str]):
    """How often each rule of a router has raised in this process."""

    def tell(self, source: str, call: RoutedCall, error: Exception) -> None:
        """Count a failure, tell subscribers, and log the 1st, 2nd, 4th, 8th... of a rule.

        A broken rule fails for each message; the log must not fill the disk.
        """
        self[source] += 1
        times = self[source]
        if times & (times - 1) == 0:
            said = "Routing rule %r raised for %s (%d times so far); the default is used"
            logger.error(said, source, call.name, times, exc_info=error)
        detail = {"error": repr(error)}
        emit(Event(kind="rule_failed", policy="router", task=call.name, key=source, detail=detail))
