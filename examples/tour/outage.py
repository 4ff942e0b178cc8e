"""The third job: everything fails, is kept, is looked at by cause, and is replayed after the "fix"."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from celery_patterns import DeadLetters
from celery_patterns.deadletters import Filter, Plan
from examples.tour import payments
from examples.tour.messages import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from celery_patterns.deadletters import Group
    from examples.tour.jobs import Job
    from examples.tour.messages import Watch

RATE = 100
"""Messages per second of the replay; the task's own limit holds below it all the same."""


def begin(folder: Path) -> None:
    """Nothing goes at the payments service from now on."""
    (folder / "outage").touch()


def end(folder: Path) -> None:
    """The service is back."""
    (folder / "outage").unlink()


def send(job: Job, watch: Watch) -> dict[str, str]:
    """Send every call once; returns the key of each task id."""
    keys: dict[str, str] = {}
    for key, arguments in job.calls.items():
        keys[job.task.apply_async(arguments).id] = key
        watch("sending", len(keys), len(job.calls))
    return keys


def bury(job: Job, watch: Watch, check: Callable[[], None]) -> Sequence[Group]:
    """Wait until all that was sent has died; the dead letters by their cause."""
    desk = DeadLetters(job.task.app)
    _wait(lambda: desk.counts()["open"], "failing", len(job.calls), watch, check)
    return desk.groups()


def replay(job: Job, watch: Watch, check: Callable[[], None]) -> None:
    """As an operator would: give each declined payment another card, and run all of them again.

    From a shell: `celery -A examples.tour.tasks dlq replay --all`. It tries one, then ten, then the rest.
    """
    desk = DeadLetters(job.task.app)
    for entry in desk.walk(Filter(exception="CardDeclined")):
        order_id, amount, _ = entry.letter.decoded(job.task.app)[0]
        desk.edit(entry.id, args=[order_id, amount, payments.GOOD_CARD])
    desk.replay(Filter(task=job.task.name), Plan(rate=RATE, patience=DEADLINE))
    _wait(lambda: desk.counts()["resolved"], "replaying", len(job.calls), watch, check)


def results(job: Job, keys: dict[str, str]) -> dict[str, Any]:
    """How each task ended, by task id."""
    backend = job.task.backend
    return {task_id: backend.get_task_meta(task_id, cache=False) for task_id in keys}


def _wait(count: Callable[[], int], doing: str, total: int, watch: Watch, check: Callable[[], None]) -> None:
    """Wait until a count is reached; what is missing by then is counted as lost."""
    deadline = time.monotonic() + DEADLINE
    while (done := count()) < total and time.monotonic() < deadline:
        watch(doing, done, total)
        check()
        time.sleep(0.1)
    watch(doing, done, total)
