"""A process of the tests: in a group of its own, logged to a file, and never left behind."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.ground import tree
from tests.ground.reaper import Reaper
from tests.ground.waiting import wait_for

_reaper: Reaper | None = None
_running: "set[Process]" = set()


class Process:
    """A started program and everything that it starts.

    The program leads a new session and process group, so that signals reach it and its children, and a
    Ctrl-C at the terminal does not. A reaper kills the group should the test session be killed.
    """

    def __init__(self, command: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self._popen.pid
        _the_reaper().watch(self.pid)
        _running.add(self)

    @property
    def running(self) -> bool:
        """Tell whether the program itself still runs (its children may outlive it)."""
        return self._popen.poll() is None

    def log_text(self) -> str:
        """Return the whole log."""
        return self.log.read_text(errors="replace")

    def log_tail(self, lines: int = 60) -> str:
        """Return the end of the log, for messages."""
        return "\n".join(self.log_text().splitlines()[-lines:])

    def send(self, number: int) -> None:
        """Send a signal to the program alone."""
        self._popen.send_signal(number)

    def suspend(self) -> None:
        """Stop the whole group where it stands (SIGSTOP)."""
        self._signal_group(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the whole group go on (SIGCONT)."""
        self._signal_group(signal.SIGCONT)

    def end(self, number: int = signal.SIGTERM, *, timeout: float = 10.0) -> int:
        """Ask the program to end, wait until its whole family has, and return its exit code.

        Raises:
            AssertionError: it did not end in time; it has been killed, and the log's tail is told.
        """
        family = tree.family(self.pid)
        try:
            self.send(number)
            self.resume()
            wait_for(lambda: not self.running, timeout=timeout, message=f"process {self.pid} ends")
        except AssertionError as error:
            error.add_note(self.log_tail())
            raise
        finally:
            self.kill(family)
        return self._popen.wait()

    def kill(self, family: Sequence[int] = ()) -> None:
        """Kill the whole group (SIGKILL) and return when none of its family is left. May be repeated."""
        if self not in _running:
            return
        # Descendants in a group of their own (Erlang has some) end with their parent, a moment later.
        family = [*family, *tree.family(self.pid)]
        self._signal_group(signal.SIGKILL)
        self._popen.wait()
        wait_for(lambda: not tree.group(self.pid), message=f"group {self.pid} ends")
        wait_for(lambda: not any(map(tree.alive, family)), message=f"family of {self.pid} ends")
        _running.discard(self)
        _the_reaper().forget(self.pid)

    def _signal_group(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass  # all of them have ended already
        except PermissionError:  # macOS says so when only zombies are left
            if tree.group(self.pid):
                raise


def end_all() -> list[str]:
    """Kill what still runs at the end of the session, and return what that was."""
    global _reaper  # noqa: PLW0603 - one reaper per session, closed by the session
    left = list(_running)
    for process in left:
        process.kill()
    if _reaper is not None:
        _reaper.close()
        _reaper = None
    return [f"{process.pid} ({process.log})" for process in left]


def _the_reaper() -> Reaper:
    global _reaper  # noqa: PLW0603 - started with the first process that needs watching
    if _reaper is None:
        _reaper = Reaper()
    return _reaper
