"""One session: faults and load for so long, quiet until all has ended, then what is left is written down."""

import logging
import time
from dataclasses import dataclass
from typing import Any

from celery import Celery

from tests.chaos import aftermath
from tests.chaos.faults import Faults
from tests.chaos.load import Load
from tests.chaos.plan import Fault, Habit, described, plan
from tests.chaos.scene import Scene
from tests.chaos.story import Story
from tests.chaos.terms import LEASE

STILL = 25.0
"""Seconds without any entry after which nothing more will come: thrice what any task waits."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a session is made of.

    Args:
        seed: What faults and calls are drawn from.
        seconds: How long faults and calls go on.
        every: Seconds from one fault to the next, on average.
        pause: Seconds from one call to the next.
        patience: Seconds until all has ended, once all is quiet; what has not by then is lost.
        habits: The kinds of faults.
    """

    seed: int
    seconds: float
    every: float = 1.0
    pause: float = 0.12
    patience: float = 180.0
    habits: dict[str, Habit]


def play(scene: Scene, terms: Terms) -> Story:
    """Play a session and return its story."""
    tasks = scene.client()
    faults = plan(terms.seed, terms.seconds, terms.habits, slots=scene.slots, every=terms.every)
    logger.info("seed %s: %s faults in %.0f s: %s", terms.seed, len(faults), terms.seconds, described(faults))
    load = Load(tasks, scene.history, seed=terms.seed, pause=terms.pause)
    load.start()
    try:
        inflictor = Faults(scene)
        inflict(faults, inflictor, terms.seconds)
        inflictor.revive()
    finally:
        load.stop()
    scene.history.add("quiet")
    _wait_until_ended(scene, tasks.app, terms.patience)
    scene.stop_workers()
    time.sleep(LEASE)  # what a killed process held ends by itself within that time
    aftermath.write_down(tasks.app, scene.history)
    return Story(scene.history.entries())


def inflict(faults: list[Fault], inflictor: Faults, seconds: float) -> None:
    """Go through a plan by the clock."""
    steps: list[tuple[float, int, Any, Fault]] = []
    for fault in faults:
        steps += [(fault.at, 1, inflictor.begin, fault), (fault.end, 2, inflictor.end, fault)]
    began = time.monotonic()
    for at, _, act, fault in sorted(steps, key=lambda step: (step[0], step[3].number, step[1])):
        time.sleep(max(0.0, began + at - time.monotonic()))
        act(fault)
    time.sleep(max(0.0, began + seconds - time.monotonic()))


def _wait_until_ended(scene: Scene, app: Celery, patience: float) -> None:
    """Wait until each call has ended, or nothing happens any more: the checker says what was lost."""
    ends, began = aftermath.Ends(app, scene.history.entries("published")), time.monotonic()
    size, grown = 0, began
    while (waiting := ends.waiting()) and (now := time.monotonic()) < min(began + patience, grown + STILL):
        if (length := scene.history.path.stat().st_size) > size:
            size, grown = length, now
        time.sleep(0.2)
    logger.info("quiet after %.0f s; %s not ended", time.monotonic() - began, len(waiting))
