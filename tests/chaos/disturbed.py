"""What a process of the suite does to itself: its clock is wrong, and it sends some messages twice.

Loaded before anything else of a worker, so that what reads the clock later reads the wrong one. What the
history says is not affected: it keeps the true time.
"""

import os
import random
import time
from datetime import timedelta
from typing import Any

from celery import Celery
from kombu import Producer

from tests.ground.app import history

SKEW = "CHAOS_SKEW"
"""Seconds by which the clock of a process is wrong."""
TWICE = "CHAOS_TWICE"
"""The share of messages that a process sends twice, and a seed: `0.05/7`."""

_HEADERS = 4
"""Where the headers stand among the arguments of `Producer._publish`."""


def disturb(app: Celery) -> None:
    """Disturb this process as its environment says."""
    _set_wrong(app, float(os.environ.get(SKEW, "0")))
    share, _, seed = os.environ.get(TWICE, "0/").partition("/")
    if float(share):
        _send_twice(float(share), random.Random(seed))


def _set_wrong(app: Celery, skew: float) -> None:
    """From now on, this process's wall clock is wrong.

    What Celery makes ETAs from is wrong by a tenth of it only: whole seconds would have tasks that wait come
    at once, again and again, or much later, and the session would be spent on that.
    """
    if not skew:
        return
    true, now = time.time, type(app).now
    time.time = lambda: true() + skew
    type(app).now = lambda self: now(self) + timedelta(seconds=skew / 10)


def _send_twice(share: float, chance: random.Random) -> None:
    """As a producer does that repeats what it got no confirmation for: nothing marks the second one."""
    publish = Producer._publish

    def again(self: Producer, *args: Any, **kwargs: Any) -> Any:
        result = publish(self, *args, **kwargs)
        headers = args[_HEADERS] or {}
        if "task" in headers and chance.random() < share:
            history().add("twice", id=headers["id"], task=headers["task"])
            publish(self, *args, **kwargs)
        return result

    Producer._publish = again
