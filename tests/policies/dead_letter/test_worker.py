"""Dead letters on real workers, Redis and RabbitMQ: stored, replayed, resolved."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import chord

from celery_patterns.deadletters import DeadLetters, Filter, Plan, move_to_dlq
from celery_patterns.deadletters.chords import OVER
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
    stage: Stage, worker: StartWorker, tmp_path: Path, shell: Any
) -> None:
    """An operator with a shell would see nothing, or could do nothing."""
    letters = stage.load(LETTERS)
    worker(LETTERS)
    gate = tmp_path / "gate"
    sent = letters.charge.delay("A", str(gate))
    with pytest.raises(ConnectionError):
        sent.get(timeout=20)
    listed = shell("list", "--json")
    assert [one["id"] for one in listed["entries"]] == [sent.id]
    gate.touch()
    assert shell("replay", sent.id, "--json")["resolved"] == 1
    assert stage.history.count("effect") == 1


@pytest.mark.parametrize("shape", ["part", "chain"])
def test_a_chord_that_still_waits_gets_its_part_back(
    letters: ModuleType,
    desk: DeadLetters,
    stage: Stage,
    worker: StartWorker,
    wait_for: Any,
    tmp_path: Path,
    shape: str,
) -> None:
    """A part that was mended in time would not save its chord."""
    worker(LETTERS, concurrency=2)
    gate, other = tmp_path / "gate", tmp_path / "other"
    part = letters.charge.s("A", str(gate))
    part = part if shape == "part" else part | letters.note.s("step")
    body = chord([part, letters.wait.s(str(other)), letters.note.s(1, "third")])(letters.gather.s("chord"))
    wait_for(lambda: desk.counts()["open"], timeout=20)
    wait_for(lambda: stage.history.count("note", label="third"))
    gate.touch()
    report = desk.replay(plan=Plan(patience=20))
    assert (report.resolved, report.unhealed) == (1, {})
    other.touch()
    result = letters.app.AsyncResult
    wait_for(lambda: result(body.id).state == "SUCCESS", timeout=20)  # with a chain, FAILURE meanwhile
    assert result(body.id).get() == ["A", "waited", 1]
    assert stage.history.count("gathered") == 1


def test_a_chord_that_is_over_is_said_to_be(
    letters: ModuleType, desk: DeadLetters, stage: Stage, worker: StartWorker, wait_for: Any, tmp_path: Path
) -> None:
    """An operator would believe that the chord's body runs after the replay."""
    worker(LETTERS)
    gate = tmp_path / "gate"
    body = chord([letters.charge.s("A", str(gate)), letters.note.s(1, "other")])(letters.gather.s("chord"))
    # Its get() would raise as soon as one part has failed, when the chord may still wait for the other.
    wait_for(lambda: letters.app.AsyncResult(body.id).state == "FAILURE", timeout=20)
    (entry,) = desk.list().entries
    gate.touch()
    report = desk.replay(plan=Plan(patience=20))
    assert (report.resolved, report.unhealed) == (1, {entry.id: OVER})
    assert stage.history.count("gathered") == 0


def test_arguments_that_are_redacted_are_replayed_and_not_shown(
    stage: Stage, worker: StartWorker, tmp_path: Path, cli: Any
) -> None:
    """A card's number would stand on an operator's screen, or be replayed as "[redacted]"."""
    letters = stage.load(LETTERS)
    worker(LETTERS)
    headers = {"cp-attempts": '[[1, "OSError", "no answer for 4111-1111"]]', "note": ["4111-1111"]}
    sent = letters.pay.apply_async(("4111-1111",), {"amount": 7}, headers=headers)
    with pytest.raises(ValueError, match="4111"):
        sent.get(timeout=20)
    for command in (
        ("list", "--json"),
        ("show", sent.id),
        ("show", sent.id, "--json"),
        ("groups",),
        ("export", "--all"),
    ):
        shown = cli(*command)
        assert "4111" not in str(shown), command
    assert cli("show", sent.id, "--json")["args"] == ["[redacted]"]
    assert cli("show", sent.id, "--json")["kwargs"] == {"amount": 7}
    assert "4111-1111" in cli("export", "--all", "--raw")
    assert DeadLetters(letters.app).get(sent.id).letter.decoded(letters.app)[0] == ["4111-1111"]


def test_commands_say_how_they_ended(stage: Stage, cli: Any, tmp_path: Path) -> None:
    """A script could not tell that nothing was done."""
    letters = stage.load(LETTERS)
    cli("show", "nothing", code=1)
    cli("replay", "--all", "--yes", code=1)
    cli("purge", code=2)
    cli("list", "--since", "yesterday", code=2)
    cli("edit", "nothing", code=2)
    cli("list", "--limit", "0", code=2)
    for wrong in ("--rate", "0"), ("--limit", "0"), ("--max-failing", "2"), ("--patience", "nan"):
        cli("replay", "--all", *wrong, code=2)  # before it asks anything
    for at in range(3):
        move_to_dlq(letters.note, {"value": at, "label": "x"}, ValueError("no"))
    assert cli("replay", "--all", "--dry-run", "--json") == {"planned": 3}
    assert "3" in cli("groups", "--since", "2h")
    cli("archive", "--all", code=1)  # nobody answers the question
    assert cli("archive", "--exception", "ValueError", "--yes", "--json", "--why", "known") == {"archive": 3}
    assert cli("unarchive", "--all", "--yes", "--json") == {"unarchive": 3}
    entry = DeadLetters(letters.app).list().entries[0].id
    assert cli("edit", entry, "--kwargs", '{"value": 9}', "--json")["kwargs"] == {"value": 9, "label": "x"}
    assert cli("resolve", entry, "--json") == {"resolve": 1}
    assert cli("purge", "--all", "--state", "any", "--yes", "--json") == {"purge": 3}
    assert set(cli("stats", "--json").values()) == {0}
