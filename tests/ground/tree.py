"""Which processes there are: enough of `ps` for the tests, from /proc where there is one."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Entry:
    """One process that is not a zombie."""

    pid: int
    parent: int
    group: int


def children(pid: int) -> list[int]:
    """Return the living children of a process, oldest first."""
    return sorted(entry.pid for entry in _living() if entry.parent == pid)


def group(leader: int) -> list[int]:
    """Return the living processes of a process group, also when its leader is dead."""
    return sorted(entry.pid for entry in _living() if entry.group == leader)


def family(pid: int) -> list[int]:
    """Return a process, if it lives, and all its living descendants."""
    entries = list(_living())
    found = {pid}
    while more := {entry.pid for entry in entries if entry.parent in found} - found:
        found |= more
    return sorted(found & {entry.pid for entry in entries})


def command(pid: int) -> str:
    """Return the command line of a process; nothing if it has ended."""
    if not (_PROC / "self/stat").exists():
        told = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
        return told.stdout.decode(errors="replace")
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pid: int) -> bool:
    """Tell whether a process exists and is not a zombie."""
    return any(entry.pid == pid for entry in _living())


def _living() -> Iterator[Entry]:
    rows = _from_proc() if (_PROC / "self/stat").exists() else _from_ps()
    return (Entry(pid, parent, group) for pid, state, parent, group in rows if state not in {"Z", "X"})


def _from_proc() -> Iterator[tuple[int, str, int, int]]:
    for stat in _PROC.glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we were reading
        # The name of the program, in brackets, may itself hold brackets and blanks.
        state, parent, group = text[text.rindex(")") + 1 :].split()[:3]
        yield int(stat.parent.name), state, int(parent), int(group)


def _from_ps() -> Iterator[tuple[int, str, int, int]]:
    command = ["ps", "-A", "-o", "pid=,stat=,ppid=,pgid="]
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        pid, state, parent, group = line.split()
        yield int(pid), state[0], int(parent), int(group)
