"""Dead letters on real workers, Redis and RabbitMQ: stored, replayed, resolved."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from celery_patterns.deadletters import DeadLetters, Filter, Plan
from tests.ground.stage import Stage
from tests.ground.workers import Worker

LETTERS = "tests.apps.letters"
StartWorker = Callable[..., Worker]
pytestmark = pytest.mark.integration


@pytest.fixture
def letters(broker: Any, stage: Stage) -> ModuleType:
    return stage.load(LETTERS)


@pytest.fixture
def desk(letters: ModuleType) -> DeadLetters:
    return DeadLetters(letters.app)


def test_a_failure_is_kept_and_replayed_to_success(
    letters: ModuleType, desk: DeadLetters, stage: Stage, worker: StartWorker, wait_for: Any, tmp_path: Path
) -> None:
    """A payload that failed would be gone, or its chain would not go on after the replay."""
    worker(LETTERS)
    gate = tmp_path / "gate"
    sent = letters.charge.apply_async(
        ("A", str(gate)), {"seen": []}, link=letters.note.s("link"), headers={"tenant": "t1"}
    )
    with pytest.raises(ConnectionError):
        sent.get(timeout=20)
    (entry,) = desk.list().entries
    assert (entry.id, entry.task, entry.source, entry.exception) == (
        sent.id,
        letters.charge.name,
        "failed",
        "ConnectionError",
    )
    assert entry.letter.decoded(letters.app)[:2] == (["A", str(gate)], {"seen": []})
    assert entry.letter.headers["tenant"] == "t1"
    assert entry.where == ("letters.py:charge",)
    gate.touch()
    report = desk.replay(Filter(ids=(sent.id,)), Plan(patience=20))
    assert (report.published, report.resolved, report.stopped) == (1, 1, None)
    assert letters.app.AsyncResult(sent.id).get(timeout=20) == "A"
    wait_for(lambda: stage.history.count("note", label="link"))
    assert desk.get(sent.id).state == "resolved"
    assert stage.history.count("effect") == 1


def test_the_command_line_brings_a_failure_to_success(
    stage: Stage, worker: StartWorker, tmp_path: Path, cli: Any
) -> None:
    """An operator with a shell would see nothing, or could do nothing."""
    letters = stage.load(LETTERS)
    worker(LETTERS)
    gate = tmp_path / "gate"
    sent = letters.charge.delay("A", str(gate))
    with pytest.raises(ConnectionError):
        sent.get(timeout=20)
    listed = cli("list", "--json")
    assert [one["id"] for one in listed["entries"]] == [sent.id]
    assert cli("groups", "--json")[0]["count"] == 1
    assert cli("show", sent.id, "--json")["args"] == ["A", str(gate)]
    gate.touch()
    assert cli("replay", sent.id, "--json")["resolved"] == 1
    assert cli("stats", "--json")["resolved"] == 1
    assert stage.history.count("effect") == 1
