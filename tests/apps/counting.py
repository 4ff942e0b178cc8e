"""Tasks that add one to a number in a file, guarded by nothing but a pattern."""

import fcntl
import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery_patterns import concurrency_limit, singleton
from tests.ground.app import ground_app, history

app = ground_app(__name__, worker_send_task_events=False, worker_lost_wait=0.5, worker_prefetch_multiplier=1)

LEASE = 1.0
LATE = {"acks_late": True, "reject_on_worker_lost": True}


class Stale(Exception):
    """The fence is lower than one that was seen."""


class FencedFile:
    """A number that refuses whoever comes with a lower fence than one seen before, reading or writing."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def read(self, fence: int) -> int:
        """Return the number; from now on, lower fences are refused."""
        with self._locked(fence) as content:
            return int(content["number"])

    def write(self, fence: int, number: int) -> None:
        """Replace the number."""
        with self._locked(fence) as content:
            content["number"] = number

    @contextmanager
    def _locked(self, fence: int) -> Iterator[dict[str, int]]:
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


def add_one(name: str, fenced: str, plain: str, fence: int, pause: float) -> None:
    """Add one to both files: the one that checks the fence, and the one that does not."""
    history().add("enter", name=name, fence=fence)
    before = int(Path(plain).read_text() or 0)
    try:
        number = FencedFile(fenced).read(fence)
        time.sleep(pause)
        FencedFile(fenced).write(fence, number + 1)
        history().add("added", name=name, fence=fence, number=number + 1)
    except Stale:
        history().add("refused", name=name, fence=fence)
    replace(Path(plain), str(before + 1))
    history().add("leave", name=name, fence=fence)


@singleton("name", scope="while_executing", on_conflict="skip", lease=LEASE)
@app.task(bind=True, **LATE)
def alone(self: Any, name: str, fenced: str, plain: str) -> None:
    """Guarded by a singleton."""
    add_one(name, fenced, plain, self.request.fence, random.choice([0.0, 0.02, 0.2]))


@concurrency_limit(1, key="name", on_conflict="skip", lease=LEASE)
@app.task(bind=True, **LATE)
def one_at_a_time(self: Any, name: str, fenced: str, plain: str) -> None:
    """Guarded by a limit of one."""
    add_one(name, fenced, plain, self.request.fence, random.choice([0.0, 0.02, 0.2]))
