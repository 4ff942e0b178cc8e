"""What policies tell the store when a run is over, in one round trip.

A run that is over ends several things: a record gets its result, a sign of life is taken back, a place or
a lock is given up. Each policy says so when it is left, the inner ones first, and what they have said is
sent in that order when the outermost one has been left. So whoever dies on the way leaves what he would
have left if each had been sent by itself: the result is recorded, and the lock is still held.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery_patterns.core.lease import keeper
from celery_patterns.core.script import ask_together
from celery_patterns.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery_patterns.core.lease import Lease
    from celery_patterns.core.script import Ask

logger = logging.getLogger("celery_patterns")

Instead = Callable[[], None]
"""Ends the run otherwise than it has ended so far, by raising."""


@dataclass(frozen=True, slots=True)
class Parting:
    """What one policy has to tell the store.

    Args:
        ask: The script.
        told: Hears the answer; returns what the run has to end with instead, if it may not end as it has.
        unheard: Called where there is no answer: the store is out of reach.
        lease: What is renewed until it is sent.
        taken_back: Called if the run has to end otherwise because of what another policy was told.
    """

    ask: Ask[Any]
    told: Callable[[Any], Instead | None]
    unheard: Callable[[StoreUnavailable], None]
    lease: Lease | None = None
    taken_back: Callable[[], None] | None = None


def part(partings: Sequence[Parting]) -> Instead | None:
    """Tell the store; what a run that ended well has to end with instead, if it may not.

    What fails here is logged: the run has had its effect.
    """
    for one in partings:
        if one.lease is not None:
            keeper.drop(one.lease)
    answers = ask_together([one.ask for one in partings])
    instead = None
    for one, answer in zip(partings, answers, strict=True):
        if isinstance(answer, StoreUnavailable):
            one.unheard(answer)
        elif isinstance(answer, Exception):
            logger.error(
                "Could not clean up at the end of a run; what it holds ends by itself", exc_info=answer
            )
        else:
            instead = one.told(answer) or instead
    return instead


def take_back(partings: Sequence[Parting]) -> None:
    """The run does not end as it was told."""
    for one in partings:
        if one.taken_back is not None:
            one.taken_back()
