"""Processes that are killed at the worst moments of a death."""

from collections.abc import Callable
from typing import Any

import pytest

from celery_patterns.deadletters import DeadLetters
from tests.ground.stage import Stage
from tests.ground.workers import Worker

LETHAL = "tests.apps.lethal"
StartWorker = Callable[..., Worker]
pytestmark = [pytest.mark.integration, pytest.mark.chaos]


def test_a_task_that_kills_whole_workers_ends_as_poison(
    broker: Any, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """A task that exhausts the memory of its machine would take one worker after the other."""
    stage.redeliver_after(1)
    lethal = stage.load(LETHAL)
    sent = lethal.kill_all.delay()
    desk = DeadLetters(lethal.app)
    for start in range(1, 3):
        standing = worker(LETHAL, concurrency=1, wait=False)
        wait_for(lambda dead=standing: not dead.running, timeout=30, message=standing.log_tail)
        wait_for(lambda start=start: stage.history.count("began") == start)
    worker(LETHAL, concurrency=1)
    wait_for(lambda: desk.counts()["open"], timeout=30)
    entry = desk.get(sent.id)
    assert (entry.source, entry.deaths) == ("poison", 1)
    assert stage.history.count("began") == 2, "no more than may vanish, whichever delivery it was"


def test_a_death_that_was_stored_and_not_reported_is_reported_without_running_again(
    broker: Any, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """The body would run again though it is a dead letter, or its caller wait for ever."""
    stage.redeliver_after(1)
    lethal = stage.load(LETHAL)
    worker(LETHAL, concurrency=1)
    sent = lethal.fail.apply_async(("A",), link_error=lethal.note.si("errback"))
    with pytest.raises(ValueError, match="A"):
        sent.get(timeout=30)
    wait_for(lambda: stage.history.count("note", label="errback"))
    (entry,) = DeadLetters(lethal.app).list().entries
    assert (entry.id, entry.deaths, entry.exception) == (sent.id, 1, "ValueError")
    assert stage.history.count("began") == 1
    assert stage.history.count("event", what="buried")
