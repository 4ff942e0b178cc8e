"""Catches a process in the middle of a body: faults that fall between bodies find little to break."""

import json
import os
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

_TAIL = 65_536
PATIENCE = 0.5
"""Seconds for which a body is waited for."""


def stop_at_work(history: Path, pids: Collection[int]) -> int | None:
    """Stop one of these processes in the middle of a body (SIGSTOP); None if none could be caught there."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for pid in _at_work(history, pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                if pid in _at_work(history, pids):
                    return pid
                os.kill(pid, signal.SIGCONT)
        time.sleep(0.005)
    return None


def _at_work(history: Path, pids: Collection[int]) -> list[int]:
    """Which of them have begun a body and not ended it, as far as the end of the history says."""
    last: dict[int, dict[str, Any]] = {}
    for entry in _tail(history):
        if entry["event"] in {"begin", "end"} and entry["pid"] in pids:
            last[entry["pid"]] = entry
    return [pid for pid, entry in last.items() if entry["event"] == "begin"]


def _tail(history: Path) -> list[dict[str, Any]]:
    """The latest entries."""
    with history.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - _TAIL)
        file.seek(start)
        lines = file.read().split(b"\n")
    return [json.loads(line) for line in lines[1 if start else 0 : -1]]
