"""What policies cost a task on a real worker: ``python -m benchmarks.overhead [TASKS [ROUNDS]]``.

One prefork worker with one process runs tasks that do nothing, under no policy, under each, under five
and under six, in turns. What is counted is the CPU time of the worker's parent and child together, what
the publisher spends in ``apply_async``, and the scripts and round trips that reach the store, those of the
publisher included. Broker and results are on another server than the store, which sees the policies alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import redis

from benchmarks.interleaved import server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[1]
TASKS, ROUNDS = 500, 12
BARE = "bare task"
WARM = 300
"""Tasks of each kind before any is measured."""
TARGETS = {"five policies": (6.0, 0.35)}
"""Round trips, and the share of the bare task's CPU time that comes on top."""


@dataclass
class Cost:
    """What one kind of task costs, for each round."""

    worker_us: list[float] = field(default_factory=list)
    publisher_us: list[float] = field(default_factory=list)
    scripts: list[float] = field(default_factory=list)
    round_trips: list[float] = field(default_factory=list)

    def more_than(self, bare: Cost) -> float:
        """The worker's CPU time beyond that of a bare task in the same round, as a share of it."""
        return median(mine / its for mine, its in zip(self.worker_us, bare.worker_us, strict=True)) - 1


def measure_worker(
    names: Sequence[str] | None = None, tasks: int = TASKS, rounds: int = ROUNDS
) -> dict[str, Cost]:
    """The costs of tasks by their names in ``overhead_tasks``; default: all."""
    with server() as broker, server() as store, tempfile.TemporaryDirectory() as folder:
        address = {"OVERHEAD_BROKER": _as_celerys(broker, 0), "OVERHEAD_RESULTS": _as_celerys(broker, 1)}
        os.environ |= {**address, "OVERHEAD_STORE": store}
        from benchmarks import overhead_tasks  # noqa: PLC0415 - it reads the environment

        known = overhead_tasks.TASKS
        with _worker(Path(folder)) as pid:
            run = _Run(pid, redis.Redis.from_url(broker, db=1), redis.Redis.from_url(store))
            costs = {name: Cost() for name in names or known}
            for name in costs:
                run.measure(known[name], WARM)
            for _ in range(rounds):
                for name, cost in costs.items():
                    run.measure(known[name], tasks, cost)
    return costs


def _as_celerys(url: str, db: int) -> str:
    return f"{url.replace('unix://', 'redis+socket://')}?virtual_host={db}"


class _Run:
    def __init__(self, pid: int, results: Any, store: Any) -> None:
        self.pid = pid
        self.results = results
        self.store = store
        self.number = 0

    def measure(self, task: Any, tasks: int, cost: Cost | None = None) -> None:
        """Have the worker run so many, and add what each costs to ``cost``."""
        self.results.flushdb()
        self.store.flushdb()
        before = self._counts()
        began = time.process_time()
        for _ in range(tasks):
            self.number += 1
            task.delay(self.number)
        published = time.process_time() - began
        deadline = time.monotonic() + 120
        while self.results.dbsize() < tasks:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{task.name}: {self.results.dbsize()} of {tasks} tasks have ended")
            time.sleep(0.05)
        time.sleep(0.1)  # the last acknowledgement
        after = self._counts()
        if cost is not None:
            cpu, commands, reads = ((now - then) / tasks for now, then in zip(after, before, strict=True))
            cost.worker_us.append(cpu / 1e3)
            cost.publisher_us.append(published / tasks * 1e6)
            cost.scripts.append(commands)
            cost.round_trips.append(reads)

    def _counts(self) -> tuple[float, float, float]:
        """CPU time of the worker's processes in ns; scripts and reads that the store has seen."""
        commands = self.store.info("commandstats")
        scripts = sum(commands.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))
        reads = self.store.info("stats")["total_reads_processed"]
        return sum(map(_cpu_ns, _family(self.pid))), scripts, reads


def _family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [pid, *map(int, children.split())]


def _cpu_ns(pid: int) -> int:
    """The CPU time of a process, all threads together, as the scheduler counts it."""
    return sum(
        int((thread / "schedstat").read_text(encoding="ascii").split()[0])
        for thread in Path(f"/proc/{pid}/task").iterdir()
    )


@contextlib.contextmanager
def _worker(folder: Path) -> Iterator[int]:
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "benchmarks.overhead_tasks",
        "worker",
        "-c",
        "1",
        "-l",
        "WARNING",
    ]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    with (folder / "log").open("wb") as log:
        worker = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            yield worker.pid
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def main() -> int:
    tasks, rounds = (int(one) for one in (sys.argv[1:3] + [str(TASKS), str(ROUNDS)][len(sys.argv) - 1 :]))
    costs = measure_worker(tasks=tasks, rounds=rounds)
    print(
        f"{'':<20}{'worker us':>10}{'spread':>14}{'more':>8}{'publisher us':>14}{'scripts':>10}{'trips':>8}"
    )
    met = True
    for name, cost in costs.items():
        worker, trips, more = median(cost.worker_us), median(cost.round_trips), cost.more_than(costs[BARE])
        spread = f"{min(cost.worker_us):.0f}..{max(cost.worker_us):.0f}"
        print(
            f"{name:<20}{worker:10.0f}{spread:>14}{more:8.0%}{median(cost.publisher_us):14.0f}"
            f"{median(cost.scripts):10.2f}{trips:8.2f}"
        )
        most, share = TARGETS.get(name, (float("inf"), float("inf")))
        met = met and trips <= most + 0.1 and more <= share
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
