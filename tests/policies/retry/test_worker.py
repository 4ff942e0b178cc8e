"""Retries on real workers, Redis and RabbitMQ: no slot sleeps, nothing is lost on the way."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import chain

from celery_patterns.deadletters import DeadLetters, Filter, Plan
from tests.ground.stage import Stage
from tests.ground.workers import Worker

RETRIES = "tests.apps.retries"
StartWorker = Callable[..., Worker]
pytestmark = pytest.mark.integration


@pytest.fixture
def retries(broker: Any, stage: Stage) -> ModuleType:
    return stage.load(RETRIES)


def test_a_retry_holds_no_slot_and_keeps_its_place_in_a_chain(
    retries: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any, tmp_path: Path
) -> None:
    """With one slot, a sleeping retry would block every other task; a careless one would lose its chain."""
    worker(RETRIES, concurrency=1)
    gate = tmp_path / "gate"
    sent = chain(retries.fetch.s("A", str(gate)), retries.note.s("chain")).delay()
    wait_for(lambda: stage.history.count("event", what="retried"))
    first = stage.history.last("attempt")
    assert retries.quick.delay().get(timeout=20) - first["at"] < 0.9
    gate.touch()
    assert sent.get(timeout=20) == "A"
    runs = stage.history.entries("attempt")
    assert [run["retries"] for run in runs] == [0, 1]
    assert runs[1]["at"] - runs[0]["at"] >= 0.9
    assert len({run["id"] for run in runs}) == 1


def test_what_never_helps_fails_at_once(
    retries: ModuleType, stage: Stage, worker: StartWorker, tmp_path: Path
) -> None:
    """A declined card would be charged again and again."""
    worker(RETRIES)
    with pytest.raises(retries.Declined):
        retries.fetch.delay("A", str(tmp_path / "gate"), "Declined").get(timeout=20)
    assert stage.history.count("attempt") == 1


def test_an_error_that_names_a_delay_gets_it(
    retries: ModuleType, stage: Stage, worker: StartWorker, tmp_path: Path, wait_for: Any
) -> None:
    """A service that asked for two seconds would be asked again after one."""
    worker(RETRIES)
    retries.fetch.delay("A", str(tmp_path / "gate"), "Busy")
    wait_for(lambda: stage.history.count("attempt") == 2, timeout=20)
    one, two = stage.history.entries("attempt")
    assert two["at"] - one["at"] >= 1.9


def test_celerys_own_retries_come_first(retries: ModuleType, stage: Stage, worker: StartWorker) -> None:
    """Two ways to retry on one task would multiply, or one would swallow the other."""
    worker(RETRIES)
    with pytest.raises(OSError, match="no"):
        retries.mixed.delay("A").get(timeout=20)
    assert [run["retries"] for run in stage.history.entries("attempt")] == [0, 1, 2]
    assert stage.history.count("event", what="retried") == 1, "only the last one was the policy's"


def test_exhausted_retries_become_a_dead_letter_that_remembers_them_and_replays_past_its_failed_record(
    retries: ModuleType, stage: Stage, worker: StartWorker, tmp_path: Path
) -> None:
    """A replay would get the remembered error of its key, or begin with its retries spent."""
    worker(RETRIES)
    gate = tmp_path / "gate"
    sent = retries.pay.delay("A", str(gate))
    with pytest.raises(OSError, match="no gate"):
        sent.get(timeout=20)
    desk = DeadLetters(retries.app)
    (entry,) = desk.list().entries
    assert (entry.retries, [one.exception for one in entry.attempts]) == (2, ["OSError"] * 2)
    gate.touch()
    assert desk.replay(Filter(ids=(sent.id,)), Plan(patience=20)).resolved == 1
    assert retries.app.AsyncResult(sent.id).get(timeout=20) == "A"
    assert retries.pay.delay("A", str(gate)).get(timeout=20) == "A"
    assert [run["retries"] for run in stage.history.entries("attempt")] == [0, 1, 2, 0]
    assert stage.history.count("effect") == 1
