"""Files of one JSON document per line, which many processes may write at once."""

import json
import os
from pathlib import Path
from typing import Any


def append(path: Path, **entry: Any) -> None:
    """Add one line to a file.

    A single write to a file opened with O_APPEND is not torn or overwritten by the others, and needs no
    lock that a killed process could leave behind.
    """
    line = json.dumps(entry).encode() + b"\n"
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def entries(path: Path) -> list[dict[str, Any]]:
    """The lines of such a file; none if nobody has written yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]
