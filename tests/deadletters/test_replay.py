"""Replays on real workers: paced, staged, stopped in time, and safe when the replayer is killed."""

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from celery_patterns.deadletters import DeadLetters, Filter, Plan
from celery_patterns.errors import DeadLetterError
from tests.deadletters.letters import die
from tests.ground.stage import Stage
from tests.ground.workers import ROOT, Worker, _inherited

REPLAYS = "tests.apps.replays"
StartWorker = Callable[..., Worker]
pytestmark = pytest.mark.integration


@pytest.fixture
def replays(stage: Stage) -> ModuleType:
    return stage.load(REPLAYS)


@pytest.fixture
def desk(replays: ModuleType) -> DeadLetters:
    return DeadLetters(replays.app)


def bury(replays: ModuleType, count: int, **kwargs: Any) -> None:
    for at in range(count):
        call = {"order": f"order-{at}", **kwargs}
        die(replays.app, f"order-{at}", task=replays.ship.name, kwargs=call, retention=86_400)


@pytest.mark.chaos
@pytest.mark.timeout(400)
def test_a_replayer_that_is_killed_again_and_again_loses_nothing(
    replays: ModuleType, desk: DeadLetters, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """Entries would hang half-way for ever, vanish, or be run twice without anybody knowing why."""
    count, kills = 5_000, 20
    bury(replays, count)
    worker(REPLAYS, concurrency=2)
    command = [sys.executable, "-m", REPLAYS, "900"]
    for _ in range(kills):
        with subprocess.Popen(
            command, cwd=ROOT, env={**_inherited(), **stage._env()}, stdout=subprocess.PIPE, text=True
        ) as replayer:
            assert replayer.stdout is not None
            assert replayer.stdout.readline() == "replaying\n"
            _wait_until_it_works(replayer, desk, wait_for)
            assert replayer.poll() is None, "it was done before it could be killed"
            replayer.kill()
    assert desk.counts()["open"] > 0, "the last one had nothing left to do"

    def all_resolved() -> bool:
        desk.replay(plan=Plan(rate=2_000, canary=False))
        return desk.counts()["resolved"] == count

    wait_for(all_resolved, timeout=200, every=0.2, message=lambda: str(desk.counts()))
    shipped = Counter(entry["order"] for entry in stage.history.entries("shipped"))
    assert len(shipped) == count
    twice = {order for order, times in shipped.items() if times > 1}
    assert not twice, "no copy of an earlier life runs beside a later one that has ended well"
    reopened = [one for one in desk.walk(Filter(state=None)) if one.replays > 1]
    for entry in reopened:
        told = [note.what for note in desk.get(entry.id).history]
        assert told.count("reopened") == entry.replays - 1, told


def _wait_until_it_works(replayer: Any, desk: DeadLetters, wait_for: Any) -> None:
    """Wait until a replayer publishes, and then for some moment."""
    before = desk.counts()["open"]
    wait_for(lambda: replayer.poll() is not None or desk.counts()["open"] < before, every=0.005)
    deadline = time.monotonic() + random.uniform(0, 0.15)
    wait_for(lambda: replayer.poll() is not None or time.monotonic() > deadline, every=0.001)


def test_a_canary_that_dies_stops_the_replay(
    replays: ModuleType, desk: DeadLetters, worker: StartWorker
) -> None:
    """A fix that fixes nothing would be tried on everything."""
    bury(replays, 30, fail=True)
    worker(REPLAYS)
    report = desk.replay(plan=Plan(patience=20))
    assert (report.published, report.failed, report.stopped) == (1, 1, "1 of 1 died again")
    assert desk.counts()["open"] == 30
    assert desk.list(Filter(ids=("order-0",))).entries[0].failed_replays == 1, "the oldest is the canary"


def test_after_the_canary_ten_more_and_then_the_rest(
    replays: ModuleType, desk: DeadLetters, worker: StartWorker, stage: Stage, wait_for: Any
) -> None:
    """One good entry would let a thousand bad ones go."""
    bury(replays, 1)
    for at in range(1, 50):
        die(replays.app, f"bad-{at}", task=replays.ship.name, kwargs={"order": f"bad-{at}", "fail": True})
    worker(REPLAYS)
    report = desk.replay(plan=Plan(patience=20))
    assert report.published <= 11
    assert (report.stopped or "").endswith("died again")
    wait_for(lambda: desk.counts()["replaying"] == 0)
    for at in range(2, 20):
        desk.edit(f"bad-{at}", kwargs={"fail": False})
    mended = Filter(ids=tuple(f"bad-{at}" for at in range(2, 20)))
    assert desk.replay(mended, Plan(patience=20)).stopped is None
    wait_for(lambda: desk.counts()["resolved"] == 19)


def test_three_failed_replays_put_an_entry_into_quarantine(
    replays: ModuleType, desk: DeadLetters, worker: StartWorker
) -> None:
    """An entry that can never succeed would be replayed with all others for ever."""
    bury(replays, 1, fail=True)
    worker(REPLAYS)
    for _ in range(3):
        desk.replay(plan=Plan(patience=20))
    assert desk.counts()["quarantined"] == 1
    assert desk.replay(plan=Plan(patience=20)).planned == 0
    desk.edit("order-0", kwargs={"fail": False})
    assert desk.replay(Filter(state="quarantined"), Plan(patience=20)).resolved == 1


def test_nothing_that_dies_later_joins(replays: ModuleType, desk: DeadLetters, worker: StartWorker) -> None:
    """A replay that is as slow as tasks fail would never end."""
    bury(replays, 3, fail=True)
    worker(REPLAYS)
    report = desk.replay(plan=Plan(canary=False, max_failing=1.0))
    assert (report.planned, report.published) == (3, 3)


def test_another_queue_and_new_ids(
    replays: ModuleType, desk: DeadLetters, worker: StartWorker, stage: Stage, wait_for: Any
) -> None:
    """A replay could not be kept away from the traffic of the day."""
    bury(replays, 2)
    worker(REPLAYS, queues=["slow-lane"])
    report = desk.replay(plan=Plan(queue="slow-lane", new_ids=True, patience=20))
    assert report.stopped is None
    wait_for(lambda: desk.counts()["resolved"] == 2)
    assert stage.history.count("shipped") == 2


def test_a_replay_without_a_worker_stops_after_its_canary(replays: ModuleType, desk: DeadLetters) -> None:
    """A replay would wait for ever, or go on without having seen one success."""
    bury(replays, 5)
    report = desk.replay(plan=Plan(patience=0.3))
    assert (report.published, report.stopped) == (1, "no outcome within 0.3 s")
    assert desk.counts() == {"open": 4, "quarantined": 0, "replaying": 1, "resolved": 0, "archived": 0}
    assert desk.reopen(Filter(state="replaying")) == 1


def test_a_revoked_replay_is_open_again(
    replays: ModuleType, desk: DeadLetters, worker: StartWorker, wait_for: Any
) -> None:
    """An entry would stay in replaying for ever, since its task will never end."""
    bury(replays, 1)
    desk.replay(plan=Plan(canary=False))
    standing = worker(REPLAYS, queues=["elsewhere"])
    replays.app.control.revoke("order-0")
    replays.app.control.add_consumer("celery", destination=[standing.name], reply=True)
    wait_for(lambda: desk.counts()["open"] == 1, timeout=20)
    assert desk.get("order-0").history[-1].words == "it was revoked"


@pytest.mark.parametrize(
    ("options", "message"), [({"rate": 0}, "rate=0"), ({"max_failing": 2}, "max_failing=2")]
)
def test_a_wrong_plan_fails_at_once(options: dict[str, Any], message: str) -> None:
    """A typo would be found when half of the entries are on their way."""
    with pytest.raises(DeadLetterError, match=message):
        Plan(**options)
