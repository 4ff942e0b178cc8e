"""Tasks that add one to a number in a file, guarded by nothing but a pattern."""

import random
import time
from pathlib import Path
from typing import Any

from celery_patterns import concurrency_limit, singleton
from tests.ground.app import ground_app, history
from tests.ground.fenced import FencedFile, Stale, replace

app = ground_app(__name__, worker_send_task_events=False, worker_lost_wait=0.5, worker_prefetch_multiplier=1)

LEASE = 1.0
LATE = {"acks_late": True, "reject_on_worker_lost": True}


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
