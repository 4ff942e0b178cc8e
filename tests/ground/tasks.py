"""Plain Celery tasks that prove the ground; no pattern has a part in them."""

import os
import time
from pathlib import Path
from typing import Any

from tests.ground.app import ground_app, history, in_worker

app = ground_app(__name__)


@app.task
def add(a: int, b: int) -> int:
    history().add("added", a=a, b=b)
    return a + b


@app.task
def pid() -> int:
    return os.getpid()


@app.task
def runs_in_worker() -> bool:
    return in_worker()


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def until_told(self: Any, gate: str) -> str:
    """Run until the file exists."""
    history().add("started", id=self.request.id)
    while not Path(gate).exists():
        time.sleep(0.01)
    history().add("ended", id=self.request.id)
    return "told"
