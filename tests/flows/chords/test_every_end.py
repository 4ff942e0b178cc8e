"""Every way in which a part can end, on both brokers, acknowledged early and late.

All chords of a test run at the same time; each has the part in question between two good ones.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import celery
import pytest
from celery import signature

from celery_patterns import partial_chord
from tests.flows.chords.conftest import CHORDS, EXPIRED, PATIENCE, Ground
from tests.ground.stage import Stage
from tests.ground.workers import Worker

IS_5_7 = celery.VERSION[:2] >= (5, 7)
DEADLINE = 5.0
"""Seconds; long enough for all chords of a test to have done what they can do."""
ACKS = {"early": "", "late": "_late"}
"""What the names of tasks end with that are acknowledged early, or late."""


def outcomes_of(ground: Ground, cases: dict[str, Any], **options: Any) -> dict[str, list[str]]:
    """What each chord's body was given; each has run once."""
    labels = {name: ground.label(name) for name in cases}
    for name, part in cases.items():
        header = [ground.tasks.give.s(1), part, ground.tasks.give.s(2)]
        partial_chord(header, ground.tasks.gather.s(labels[name]), min_success=0, **options).apply_async()
    told = {name: ground.told(label) for name, label in labels.items()}
    ground.flush()
    assert {name: ground.runs(label) for name, label in labels.items()} == dict.fromkeys(cases, 1)
    return told


def between(middle: str) -> list[str]:
    return ["ok 1", middle, "ok 2"]


def both_ways(make: Callable[[Callable[[str], Any]], dict[str, Any]], tasks: ModuleType) -> dict[str, Any]:
    """The cases that `make` makes of tasks picked by name, acknowledged early and late."""
    return {
        f"{name}, {ack}": case
        for ack, suffix in ACKS.items()
        for name, case in make(lambda name, suffix=suffix: getattr(tasks, f"{name}{suffix}")).items()
    }


def test_what_somebody_reports_becomes_an_outcome_at_once(ground: Ground, tasks: ModuleType) -> None:
    """A part that failed in one of these ways would fail the body, hang it, or stand in a wrong place."""

    def cases(pick: Any) -> dict[str, Any]:
        return {
            "ok": (pick("give").s("x"), "ok x"),
            "raise": (pick("fail").s(), "failed Business"),
            "soft limit": (pick("too_slow").s(), "failed SoftTimeLimitExceeded"),
            "hard limit": (pick("far_too_slow").s(), "failed TimeLimitExceeded"),
            "unencodable": (pick("unencodable").s(), "failed EncodeError"),
            "retries exhausted": (pick("retry_in_vain").s(), "failed Business"),
            "second try": (pick("second_try").s("x"), "ok x"),
            "SIGKILL": (pick("killed").s(), "failed WorkerLostError"),
            "sys.exit": (pick("leave").s(), f"failed {'WorkerLostError' if IS_5_7 else 'SystemExit'}"),
            "reject": (pick("reject").s(), "failed Reject"),
            "ignore": (pick("ignore").s(), "lost Ignore"),
            "ignore with a state": (pick("ignore_with_state").s(), "failed Business"),
            "replace": (pick("replaced").s("x"), "ok x"),
            "expired": (pick("give").s().set(**EXPIRED), "revoked TaskRevokedError"),
        }

    expected = both_ways(cases, tasks)
    expected["unregistered"] = (signature("nobody.knows", app=tasks.app), "failed NotRegistered")
    told = outcomes_of(ground, {name: part for name, (part, _) in expected.items()})
    assert told == {name: between(outcome) for name, (_, outcome) in expected.items()}


@pytest.mark.parametrize("suffix", ACKS.values(), ids=ACKS)
def test_a_revoked_part_is_an_outcome(ground: Ground, tasks: ModuleType, wait_for: Any, suffix: str) -> None:
    """A part that somebody revoked, or stopped while it ran, would fail the body."""
    give, wait, control = getattr(tasks, f"give{suffix}"), getattr(tasks, f"wait{suffix}"), tasks.app.control
    queued, running = ground.label("queued"), ground.label("running")
    control.revoke(queued, reply=True, timeout=5, limit=1)
    parts = [give.s().set(task_id=queued), wait.s(str(ground.gate())).set(task_id=running)]
    labels = [ground.label(), ground.label()]
    for label, part in zip(labels, parts, strict=True):
        partial_chord([give.s(1), part, give.s(2)], tasks.gather.s(label), min_success=0).apply_async()
    wait_for(lambda: ground.stage.history.count("waiting", id=running))
    control.revoke(running, terminate=True, signal="SIGKILL")
    for label in labels:
        assert ground.told(label) == between("revoked TaskRevokedError")


def test_what_nobody_reports_is_lost_at_the_deadline(ground: Ground, tasks: ModuleType) -> None:
    """A part of which nobody will ever hear would keep the body waiting for ever."""

    def cases(pick: Any) -> dict[str, Any]:
        return {
            "expires in a queue": pick("give").s().set(queue="nobody", expires=0.2),
            "never consumed": pick("give").s().set(queue="nobody"),
            "undecodable": pick("give").s().set(serializer="pickle"),
            "requeued": pick("requeue_once").s("x"),
        }

    parts = both_ways(cases, tasks)
    told = outcomes_of(ground, parts, deadline=DEADLINE)
    assert told == dict.fromkeys(parts, between("lost -")) | {"requeued, late": between("ok x")}


def test_a_killed_part_that_is_delivered_again_counts_once(ground: Ground, tasks: ModuleType) -> None:
    """A part whose process was killed would be counted as failed, and then once more."""
    cases = {"rejected": tasks.killed_once.s("x"), "retried": tasks.killed_each_time.s()}
    told = outcomes_of(ground, cases)
    assert told == {"rejected": between("ok x"), "retried": between("failed WorkerLostError")}


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
def test_a_part_that_takes_its_worker_along_is_an_outcome(
    broker: Any, stage: Stage, worker: Callable[..., Worker], wait_for: Any, late: bool
) -> None:
    """A MemoryError ends the worker, with late acknowledgement each one that follows; the body must run."""
    stage.conf["result_backend"] = f"partial+{stage.conf['result_backend']}"
    stage.redeliver_after(1)
    tasks = stage.load(CHORDS)
    part = (tasks.out_of_memory_late if late else tasks.out_of_memory).s()
    result = partial_chord([tasks.give.s(1), part], tasks.gather.s(), min_success=0).apply_async()
    for _ in range(4):
        running = worker(CHORDS, concurrency=2, wait=False)
        wait_for(lambda one=running: stage.history.count("body") or not one.running, timeout=PATIENCE)
        if stage.history.count("body"):
            break
    assert result.get(timeout=PATIENCE, propagate=False) == ["ok 1", "failed MemoryError"]
    assert stage.history.count("body") == 1
