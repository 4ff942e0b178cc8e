"""Real Celery workers, to run tasks and to be killed."""

import os
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.ground import tree
from tests.ground.app import WORKER
from tests.ground.processes import Process
from tests.ground.waiting import wait_for

ROOT = Path(__file__).parents[2]
PUMP = "celery_patterns.waiting.helper"
"""What the command of a worker's own pump contains."""


class Worker:
    """A `celery worker` in processes of its own.

    Args:
        app: the module with the tasks, as for `celery -A`.
        directory: where its log goes.
        env: environment variables beside those of this process.
        concurrency: how many pool processes (or threads, greenlets).
        pool: prefork, threads, gevent, solo.
        queues: the queues that it consumes; the default queue if empty.
        arguments: more of the command line.
        chatter: leave gossip, mingle and heartbeats on, which cost a second at the start.
        quiet: no banner, for which a worker would look at its result backend before anything else.
    """

    def __init__(
        self,
        app: str,
        directory: Path,
        *,
        env: Mapping[str, str] | None = None,
        concurrency: int = 2,
        pool: str = "prefork",
        queues: Sequence[str] = (),
        arguments: Sequence[str] = (),
        chatter: bool = False,
        quiet: bool = False,
    ) -> None:
        # The broker refuses two nodes of one name, and a killed node's queues may linger.
        self.name = f"worker-{uuid.uuid4().hex[:8]}@ground"
        command = [sys.executable, "-m", "celery", *(["--quiet"] if quiet else []), "-A", app]
        command += ["worker", "-n", self.name, "-l", "INFO"]
        command += ["-c", str(concurrency), "-P", pool]
        command += ["-Q", ",".join(queues)] if queues else []
        command += [] if chatter else ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        self._process = Process(
            [*command, *arguments],
            log=directory / f"{self.name}.log",
            env={**_inherited(), WORKER: self.name, **(env or {})},
            cwd=ROOT,
        )

    @property
    def pid(self) -> int:
        """The pid of the parent process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Tell whether the parent process runs."""
        return self._process.running

    @property
    def log(self) -> Path:
        """The file with all that the worker says."""
        return self._process.log

    def log_text(self) -> str:
        """Return the whole log."""
        return self._process.log_text()

    def log_tail(self) -> str:
        """Return the end of the log, for messages."""
        return self._process.log_tail()

    def wait_until_ready(self, timeout: float = 30.0) -> None:
        """Wait until the worker consumes tasks; fail with its log if it ends instead."""
        ready = f"{self.name} ready."
        wait_for(lambda: not self.running or ready in self.log_text(), timeout=timeout, message=self.log_tail)
        assert ready in self.log_text(), self.log_tail()

    def children(self) -> list[int]:
        """Return the pids of the pool's living processes (prefork)."""
        return [pid for pid in tree.children(self.pid) if PUMP not in tree.command(pid)]

    def pumps(self) -> list[int]:
        """Return the pid of the pump beside the worker, if it has one."""
        return [pid for pid in tree.children(self.pid) if PUMP in tree.command(pid)]

    def all_pids(self) -> list[int]:
        """Return all living processes of the worker, also when its parent process is dead."""
        return tree.group(self.pid)

    def kill_child(self, pid: int | None = None) -> int:
        """Kill one pool process (SIGKILL), the oldest if none is named, and return its pid."""
        pid = self._child(pid)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not tree.alive(pid), message=f"child {pid} dies")
        return pid

    def suspend_child(self, pid: int | None = None) -> int:
        """Stop one pool process where it stands (SIGSTOP) and return its pid."""
        pid = self._child(pid)
        os.kill(pid, signal.SIGSTOP)
        return pid

    def resume_child(self, pid: int) -> None:
        """Let a suspended pool process go on (SIGCONT)."""
        os.kill(self._child(pid), signal.SIGCONT)

    def suspend(self) -> None:
        """Stop the parent and all pool processes where they stand (SIGSTOP)."""
        self._process.suspend()

    def resume(self) -> None:
        """Let all processes go on (SIGCONT)."""
        self._process.resume()

    def kill(self) -> None:
        """Kill the parent and all pool processes at once (SIGKILL). May be repeated."""
        self._process.kill()

    def kill_parent(self) -> None:
        """Kill the parent process alone; what its pool processes then do is the test's concern."""
        self._process.send(signal.SIGKILL)
        wait_for(lambda: not self.running, message=f"worker {self.pid} dies")

    def begin_warm_stop(self) -> None:
        """Ask the worker to end after the running tasks (SIGTERM), and do not wait for it."""
        self._process.send(signal.SIGTERM)

    def stop(self, *, timeout: float = 20.0) -> int:
        """Stop the worker warm (SIGTERM): running tasks end first. Return its exit code."""
        return self._process.end(signal.SIGTERM, timeout=timeout)

    def stop_cold(self, *, timeout: float = 20.0) -> int:
        """Stop the worker cold (SIGQUIT): running tasks are given up. Return its exit code."""
        return self._process.end(signal.SIGQUIT, timeout=timeout)

    def _child(self, pid: int | None) -> int:
        children = self.children()
        assert children, f"{self.name} has no children"
        pid = children[0] if pid is None else pid
        assert pid in children, f"{pid} is not a child of {self.name}: {children}"
        return pid


def _inherited() -> dict[str, str]:
    """Return this process's environment, fit for a worker started from the project's root."""
    # CELERY_... and REMAP_SIGTERM would change a worker's meaning behind the test's back.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY", "REMAP_"))}
    paths = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths)}
