"""What happened, written down by many processes in one file, outside every server under test."""

import json
import os
from os import getpid
from pathlib import Path
from time import (
    time,
)  # bound here: a test may set a process's clock wrong, and the history keeps the true time
from typing import Any


class History:
    """An append-only file of JSON lines.

    Each entry is one `write` to a file opened with O_APPEND, so that entries of several processes neither
    tear nor overwrite each other, and an entry is in the file even if its writer is killed right after.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def add(self, event: str, **fields: Any) -> None:
        """Append an entry: the event, when (`at`, seconds), by whom (`pid`), and any JSON fields."""
        entry = {"event": event, "at": time(), "pid": getpid(), **fields}
        line = json.dumps(entry).encode() + b"\n"
        # Opened for each entry: nothing is shared over a fork, and nothing is left open.
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line)
        finally:
            os.close(file)

    def entries(self, event: str | None = None, **fields: Any) -> list[dict[str, Any]]:
        """Return the entries so far, in the order written; only those that match, where asked."""
        if not self.path.exists():
            return []
        wanted = fields if event is None else {"event": event, **fields}
        # A last line without its newline is still being written.
        lines = self.path.read_bytes().split(b"\n")[:-1]
        read = [json.loads(line) for line in lines]
        return [entry for entry in read if wanted.items() <= entry.items()]

    def count(self, event: str | None = None, **fields: Any) -> int:
        """Return how many entries match."""
        return len(self.entries(event, **fields))

    def last(self, event: str | None = None, **fields: Any) -> dict[str, Any] | None:
        """Return the latest entry that matches, or None."""
        return next(reversed(self.entries(event, **fields)), None)
