"""Whether a pump serves an app's calls: without one nobody would ever release what waits."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

from celery_patterns.core.settings import switch
from celery_patterns.errors import PolicyError, StoreUnavailable
from celery_patterns.waiting.broker import room_of

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger("celery_patterns")

ON = "patterns_waiting_room"

_LOOK_AGAIN = 1.0
"""Seconds between two looks of a process."""

_looked: WeakKeyDictionary[Celery, tuple[float, bool]] = WeakKeyDictionary()
_told: WeakSet[Celery] = WeakSet()


def is_on(app: Celery) -> bool:
    """Whether calls of an app may wait in a room."""
    return switch(app, ON, default=True)


def has_pump(app: Celery) -> bool:
    """Whether calls of an app can wait in the room now; asked of the store once in a while."""
    if not is_on(app):
        return False
    looked, there = _looked.get(app, (0.0, False))
    if time.monotonic() < looked + _LOOK_AGAIN:
        return there
    try:
        there = room_of(app).has_pump()
    except (StoreUnavailable, PolicyError) as error:
        logger.debug("No waiting room: %s", error)
        there = False
    else:
        _tell(app, there=there)
    _looked[app] = time.monotonic(), there
    return there


def _tell(app: Celery, *, there: bool) -> None:
    if not there and app not in _told:
        _told.add(app)
        logger.warning(
            "No pump serves the waiting room: what must wait does so as a countdown, in the memory of "
            "workers. Each worker of an app with policies brings one, unless %s is off; "
            "celery patterns pump is one",
            ON,
        )
