"""Parts of partial chords that are dead letters, and that a person has run again."""

from collections.abc import Callable
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
from celery import chain, group

from celery_patterns import DeadLetters, partial_chord
from celery_patterns.deadletters import Filter, Plan, Report
from tests.flows.chords.conftest import PATIENCE, Ground

Dead = Callable[..., Any]


class Fragile:
    """A part that dies, and would live once its gate is open."""

    def __init__(self, ground: Ground, wait_for: Any, value: str) -> None:
        self.id, self.gate, self.ground, self.wait_for = str(uuid4()), ground.gate(), ground, wait_for
        self.signature = ground.tasks.fragile.s(str(self.gate), value).set(task_id=self.id)

    def replay(self, **plan: Any) -> Report:
        """Run it again once it has died, and see it succeed."""
        desk, wanted = DeadLetters(self.ground.tasks.app), Filter(ids=(self.id,))
        self.wait_for(lambda: desk.list(wanted).entries, timeout=PATIENCE, message=f"{self.id} dies")
        self.gate.touch()
        report = desk.replay(wanted, Plan(patience=PATIENCE, **plan))
        assert report.resolved == 1
        return report

    def mended(self) -> dict[str, Any]:
        """What is told of it."""
        event = self.wait_for(
            lambda: self.ground.stage.history.last("event", what="mended", id=self.id), timeout=PATIENCE
        )
        return {name: event[name] for name in ("state", "reran")}


@pytest.fixture
def dying(ground: Ground, tasks: ModuleType, wait_for: Any) -> Callable[[str], Fragile]:
    """`dying("x")`: a part that dies."""
    return lambda value: Fragile(ground, wait_for, value)


@pytest.mark.parametrize("shape", ["task", "chain", "chain to a group"])
def test_a_chord_that_still_waits_waits_for_the_replay(
    ground: Ground, tasks: ModuleType, dying: Any, shape: str
) -> None:
    """A part that was mended in time would count as failed all the same."""
    dead, other, label = dying("x"), ground.gate(), ground.label()
    part, ok = {
        "task": (dead.signature, ["ok x"]),
        "chain": (chain(dead.signature, tasks.join.s(2)), ["ok ['x', 2]"]),
        "chain to a group": (
            chain(dead.signature, group(tasks.join.s(2), tasks.join.s(3))),
            ["ok ['x', 2]", "ok ['x', 3]"],
        ),
    }[shape]
    header = [part, tasks.wait.s(str(other), "late")]
    partial_chord(header, tasks.gather.s(label), deadline=120).apply_async()
    assert not dead.replay().unhealed
    other.touch()
    assert ground.told(label) == [*ok, "ok late"]


def test_a_replay_under_another_id_is_not_waited_for(ground: Ground, tasks: ModuleType, dying: Any) -> None:
    """The chord would wait for the part's old id, of which nobody will ever hear."""
    dead, other, label = dying("x"), ground.gate(), ground.label()
    header = [dead.signature, tasks.wait.s(str(other), "late")]
    partial_chord(header, tasks.gather.s(label), min_success=1).apply_async()
    assert list(dead.replay(new_ids=True).unhealed) == [dead.id]
    other.touch()
    assert ground.told(label) == ["failed Business", "ok late"]


def test_the_end_stays_unless_asked_otherwise(ground: Ground, tasks: ModuleType, dying: Any) -> None:
    """A body that may run only once would run again, or nobody be told that it does not."""
    dead, label = dying("x"), ground.label()
    result = partial_chord(
        [dead.signature, tasks.give.s(1)], tasks.gather.s(label), min_success=1
    ).apply_async()
    assert result.get(timeout=PATIENCE) == ["failed Business", "ok 1"]
    assert list(dead.replay().unhealed) == [dead.id]
    assert dead.mended() == {"state": "ok", "reran": False}
    ground.flush()
    assert ground.runs(label) == 1


def test_a_body_that_failed_runs_once_enough_parts_are_mended(
    ground: Ground, tasks: ModuleType, dying: Any, wait_for: Any
) -> None:
    """A chord of a night would have to be run again whole for the sake of two parts."""
    first, second, label = dying("x"), dying("y"), ground.label()
    header = [first.signature, tasks.give.s(1), second.signature]
    body = chain(tasks.gather.s(label), tasks.join.s(2))
    result = partial_chord(header, body, on_late="rerun").apply_async()
    wait_for(lambda: tasks.app.AsyncResult(result.id).state == "FAILURE", timeout=PATIENCE)
    assert not first.replay().unhealed
    assert first.mended() == {"state": "ok", "reran": False}
    assert ground.runs(label) == 0
    second.replay()
    assert second.mended() == {"state": "ok", "reran": True}
    assert ground.told(label) == ["ok x", "ok 1", "ok y"]
    fresh = tasks.app.AsyncResult
    wait_for(lambda: fresh(result.id).state == "SUCCESS", timeout=PATIENCE)
    assert fresh(result.id).get() == [["ok x", "ok 1", "ok y"], 2]


def test_a_body_that_has_run_runs_again_beside_its_result(
    ground: Ground, tasks: ModuleType, dying: Any, wait_for: Any
) -> None:
    """A report without the missing part would stay all there is, or change under those who have read it."""
    dead, label = dying("x"), ground.label()
    header = [dead.signature, tasks.give.s(1)]
    result = partial_chord(header, tasks.gather.s(label), min_success=1, on_late="rerun").apply_async()
    assert ground.told(label) == ["failed Business", "ok 1"]
    assert not dead.replay().unhealed
    wait_for(lambda: ground.runs(label) == 2, timeout=PATIENCE)
    told = [one["told"] for one in ground.stage.history.entries("body", label=label)]
    assert told == [["failed Business", "ok 1"], ["ok x", "ok 1"]]
    assert tasks.app.AsyncResult(result.id).get(timeout=PATIENCE) == ["failed Business", "ok 1"]
    ground.flush()
    assert ground.runs(label) == 2


def test_the_chords_around_a_mended_one_are_mended(
    ground: Ground, tasks: ModuleType, dying: Any, wait_for: Any
) -> None:
    """A chord in a chord would be saved, and the outer one stay without it."""
    dead, inner, outer = dying("x"), ground.label("inner"), ground.label("outer")
    part = partial_chord([dead.signature], tasks.gather.s(inner), on_late="rerun")
    result = partial_chord(
        [part, tasks.give.s(1)], tasks.gather.s(outer), min_success=1, on_late="rerun"
    ).apply_async()
    assert result.get(timeout=PATIENCE) == ["failed ChordFailed", "ok 1"]
    dead.replay()
    wait_for(lambda: ground.runs(outer) == 2, timeout=PATIENCE)
    assert ground.stage.history.last("body", label=outer)["told"] == ["ok ['ok x']", "ok 1"]
