"""What a delivery says about its dead letter: events, and the log where the store is out of reach."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery_patterns.core.events import Event, emit
from celery_patterns.deadletters.store import KIND

if TYPE_CHECKING:
    from celery_patterns.core.policy import Call

logger = logging.getLogger("celery_patterns")


@dataclass(frozen=True, slots=True)
class Teller:
    """Speaks for one delivery.

    Args:
        call: The call that is being run, or was reported.
        entry: The entry that it belongs to, if it has one.
    """

    call: Call
    entry: str

    def tell(self, kind: str, **detail: Any) -> None:
        """Emit an event."""
        call = self.call
        emit(Event(kind=kind, policy=KIND, task=call.name, task_id=call.id, key=self.entry, detail=detail))

    def store_error(self, at: str, then: str, error: Exception) -> None:
        """Say that the store was out of reach, and what happens next."""
        logger.warning(
            "%s[%s], dead letters, at its %s: %s; %s", self.call.name, self.call.id, at, error, then
        )
        self.tell("store_error", at=at, error=str(error))
