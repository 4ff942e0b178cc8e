"""Ends what a killed test session would leave behind.

A small process of its own. It reads process group ids from a pipe whose other end is held by the test
session: `+1234` to watch over a group, `-1234` when the group has ended. When the pipe closes, however the
session ended, it kills the groups that are left. Works where PR_SET_PDEATHSIG does not exist, and reaches
the children of a worker, not only the worker.
"""

import contextlib
import os
import signal
import subprocess
import sys
from typing import TextIO


class Reaper:
    """The session's end of the pipe."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", __file__],
            stdin=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C at the terminal must not end it before the session
        )

    def watch(self, group: int) -> None:
        """Kill this process group when the session ends."""
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """The group has ended; its id may soon be somebody else's."""
        self._tell(f"-{group}\n")

    def close(self) -> None:
        """End the watch, killing what is left."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()


def main(lines: TextIO) -> None:
    """Read until the pipe closes, then kill the groups that are left."""
    groups: set[int] = set()
    for line in lines:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.stdin)
