"""What importing costs: ``python -m benchmarks.imports [ROUNDS]``.

Each row is a fresh interpreter that has imported Celery and what an app on Redis makes it import, and then
imports something of ours. What counts is CPU time, and how many modules come on top. The garbage collector is
off meanwhile: a full collection, which takes as long as all of this, comes with whichever import fills the
measure, and would come without it.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.interleaved import Spread

ROUNDS = 40
TARGET = 30.0
"""Milliseconds, at most, for the face and for one pattern of it."""

_APP = """
import gc, sys, time
from celery import Celery
app = Celery("imports", broker="redis://", backend="redis://")
app.backend, app.amqp.Producer, app.connection_for_write().transport_cls
gc.collect()
gc.disable()
modules, began = len(sys.modules), time.process_time_ns()
{imports}
print(time.process_time_ns() - began, len(sys.modules) - modules)
"""

IMPORTS = {
    "nothing": "",
    "celery_patterns": "import celery_patterns",
    "one pattern: idempotency": "from celery_patterns import Idempotency, IdempotentTask",
    "one pattern: singleton": "from celery_patterns import Singleton, SingletonTask",
    "one pattern: rate limit": "from celery_patterns import TokenBucket, TokenBucketTask",
    "one pattern: dead letters": "from celery_patterns import DeadLetter, DeadLetterTask",
    "one pattern: retries, and tenacity": "from celery_patterns import RetryableTask, RetryPolicy",
    "tenacity by itself": "import tenacity",
    "five policies": (
        "from celery_patterns import DeadLetter, Idempotency, PolicyTask, RetryPolicy, Singleton, TokenBucket"
    ),
}


def measure_imports(rounds: int = ROUNDS) -> dict[str, tuple[Spread, int]]:
    """Microseconds, and the number of modules, of each of ``IMPORTS``."""
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    modules = dict.fromkeys(IMPORTS, 0)
    for _ in range(rounds):
        for name, statement in IMPORTS.items():
            took, modules[name] = _run(statement)
            times[name].append(took / 1e3)
    return {name: (Spread.of(times[name]), modules[name]) for name in IMPORTS}


def _run(statement: str) -> tuple[int, int]:
    command = [sys.executable, "-c", _APP.format(imports=statement)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    took, modules = done.stdout.split()
    return int(took), int(modules)


def main() -> int:
    costs = measure_imports(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
    print(f"{'':<36}{'ms':>8}{'middle half':>16}{'modules':>10}")
    for name, (spread, modules) in costs.items():
        half = f"{spread.low / 1e3:.1f}..{spread.high / 1e3:.1f}"
        print(f"{name:<36}{spread.median / 1e3:8.1f}{half:>16}{modules:10}")
    one = [spread.median for name, (spread, _) in costs.items() if name.startswith(("celery", "one"))]
    return 0 if max(one) <= TARGET * 1e3 else 1


if __name__ == "__main__":
    sys.exit(main())
