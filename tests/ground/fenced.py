"""A resource that checks fences, as a database can: in a file, outside every server under test."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Stale(Exception):
    """The fence is lower than one that was seen."""


class FencedFile:
    """A number that refuses whoever comes with a lower fence than one seen before, reading or writing."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def create(self) -> None:
        """Make it: the number 0, and no fence seen yet."""
        self.path.write_text(json.dumps({"number": 0, "fence": 0}))

    def read(self, fence: int) -> int:
        """Return the number; from now on, lower fences are refused."""
        with self._locked(fence) as content:
            return int(content["number"])

    def write(self, fence: int, number: int) -> None:
        """Replace the number."""
        with self._locked(fence) as content:
            content["number"] = number

    @contextmanager
    def _locked(self, fence: int) -> Iterator[dict[str, Any]]:
        """Do one thing at a time, and whole or not at all, as a database does in a transaction."""
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            content = json.loads(self.path.read_text())
            if fence < content["fence"]:
                raise Stale
            yield content
            replace(self.path, json.dumps({**content, "fence": fence}))


def replace(path: Path, text: str) -> None:
    """Give a file another content in one step: a killed process leaves the old one or the new one."""
    new = path.with_suffix(f".{os.getpid()}")
    new.write_text(text)
    new.replace(path)
