"""The tasks of ``benchmarks.chords``: as small as can be, so that the chord is what costs."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery


def create(broker: str, backend: str, queue: str) -> Celery:
    """An app with the tasks; its messages go to a queue of its own."""
    app = Celery("benchmark", broker=broker, backend=backend, set_as_current=False)
    app.conf.update(
        task_default_queue=queue,
        broker_connection_retry_on_startup=True,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
    )

    @app.task(name="part", shared=False)
    def part(number: int) -> int:
        return number

    @app.task(name="last", shared=False)
    def last(gate: str) -> int:
        while not Path(gate).exists():
            time.sleep(0.005)
        return 0

    @app.task(name="body", shared=False)
    def body(results: list[Any]) -> tuple[float, int]:
        return time.time(), len(results)

    return app


if "BENCHMARK_BROKER" in os.environ:
    app = create(*(os.environ[f"BENCHMARK_{name}"] for name in ("BROKER", "BACKEND", "QUEUE")))
