"""Eight processes add to a number in a file, guarded only by the pattern, while they are stopped and killed.

Afterwards the history is checked that they wrote down themselves. What holds: two bodies overlap only where
one of them was suspended for longer than its lease; and where the file checks the fence, no update is lost.
"""

import itertools
import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.ground.stage import Stage
from tests.ground.workers import Worker

COUNTING = "tests.apps.counting"
SEED = int(os.environ.get("CELERY_PATTERNS_CHAOS_SEED", "1"))
ROUNDS = int(os.environ.get("CELERY_PATTERNS_HISTORY_ROUNDS", "5"))
SUSPENDED_FOR = 1.7
"""Seconds; longer than a lease."""
IN_FLIGHT = 24

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


class Tormentor(threading.Thread):
    """Suspends a process in the middle of its body for longer than its lease, kills another, and again."""

    def __init__(self, stage: Stage, workers: list[Worker], chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.stage, self.workers, self.chance = stage, workers, chance
        self.suspended: list[int] = []
        self.killed: list[int] = []
        self._stopped = threading.Event()

    def run(self) -> None:
        while len(self.suspended) < ROUNDS and not self._stopped.is_set():
            victim = self.stopped_at_work()
            if victim is None:
                continue
            self.suspended.append(victim)
            self._stopped.wait(SUSPENDED_FOR / 2)
            self.killed.append(self.chance.choice(sorted(self.processes() - {victim})))
            os.kill(self.killed[-1], signal.SIGKILL)
            self._stopped.wait(SUSPENDED_FOR / 2)
            os.kill(victim, signal.SIGCONT)

    def stopped_at_work(self) -> int | None:
        """Stop a process in the middle of its body, if one can be caught there."""
        entered = self.stage.history.last("enter")
        if entered is None or entered["pid"] not in self.processes():
            return None
        pid = int(entered["pid"])
        os.kill(pid, signal.SIGSTOP)
        if self.stage.history.count("leave", pid=pid, fence=entered["fence"]):
            os.kill(pid, signal.SIGCONT)
            return None
        return pid

    def processes(self) -> set[int]:
        return {pid for worker in self.workers for pid in worker.children()}

    def stop(self) -> None:
        self._stopped.set()
        self.join()


@contextmanager
def tormented(stage: Stage, workers: list[Worker]) -> Iterator[Tormentor]:
    tormentor = Tormentor(stage, workers, random.Random(SEED))
    tormentor.start()
    try:
        yield tormentor
    finally:
        tormentor.stop()


def test_no_update_is_lost_where_the_writer_checks_the_fence(
    broker: Any, stage: Stage, worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """Two holders would read the same number, and one update be lost."""
    stage.redeliver_after(5)
    counting = stage.load(COUNTING)
    workers = [worker(COUNTING, concurrency=4, wait=False) for _ in range(2)]
    for one in workers:
        one.wait_until_ready()
    guards = {"a singleton": counting.alone, "a limit of one": counting.one_at_a_time}
    files = {name: new_files(tmp_path, name) for name in guards}
    calls: list[Any] = []
    with tormented(stage, workers) as tormentor:
        while tormentor.is_alive():
            calls = [call for call in calls if not call.ready()]
            for name, task in guards.items():
                calls += [task.delay(name, *files[name]) for _ in range(IN_FLIGHT - len(calls) // 2)]
    for call in calls:
        call.get(timeout=60)
    assert len(tormentor.suspended) == len(tormentor.killed) == ROUNDS
    assert stage.history.count("refused"), "no holder came back too late: this run proves nothing"
    for name, (fenced, _) in files.items():
        check_updates(stage, name, json.loads(Path(fenced).read_text())["number"])
        check_overlaps(stage, name, {*tormentor.suspended, *tormentor.killed})


def new_files(directory: Path, name: str) -> tuple[str, str]:
    """Two files with the number 0: one that checks the fence of who comes, and one that does not."""
    fenced, plain = directory / f"{name}.json", directory / name
    fenced.write_text(json.dumps({"number": 0, "fence": 0}))
    plain.write_text("0")
    return str(fenced), str(plain)


def check_updates(stage: Stage, name: str, number: int) -> None:
    """Each accepted update is there: the numbers written are 1, 2, 3... by fences that increase."""
    added = stage.history.entries("added", name=name)
    numbers = [entry["number"] for entry in added]
    # A process that is killed after its write, before its note, leaves a gap in the notes, not in the file.
    assert numbers == sorted(set(numbers)), "an update was lost"
    assert number >= len(added) > 20
    assert number <= stage.history.count("enter", name=name)
    fences = [entry["fence"] for entry in added]
    assert fences == sorted(set(fences))


def check_overlaps(stage: Stage, name: str, disturbed: set[int]) -> None:
    """Two bodies ran at once only where one of them was suspended or killed: what holds without a fence."""
    entered, left = (
        {(entry["fence"], entry["pid"]): entry["at"] for entry in stage.history.entries(event, name=name)}
        for event in ("enter", "leave")
    )
    assert len({fence for fence, _ in entered}) == len(entered), "two holders had one fence"
    bodies = sorted((at, left.get(body, at), body) for body, at in entered.items())
    for (_, end, (fence, pid)), (start, _, (_, other)) in itertools.combinations(bodies, 2):
        if start < end:
            assert {pid, other} & disturbed, f"fence {fence}: two holders, and nobody was disturbed"
