"""How long until a waiter goes on: ``python -m benchmarks.handover [--waiters 10000]``.

Many calls want one key. One runs, the others wait in the room; when it ends the next one is released. What
is measured is the time from the end of one body to the beginning of the next; for idempotency, from the
end of the first to the end of the first duplicate, which gets its result.

With ``--waiters`` so many wait for a key that is held, and what they cost in ten seconds is counted.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import redis

from benchmarks.drain_run import ROOT, busy, flush, server, wait, worked

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = ("singleton", "concurrency_limit", "idempotency")


class Scene:
    """A worker, and what its tasks have written down."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.log = folder / "log"
        path = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
        self.env = {**os.environ, "HANDOVER": url, "HANDOVER_LOG": str(self.log), "PYTHONPATH": path}
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.handover_tasks", "worker", "-c", "4"]
        command += ["-l", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        with (folder / "worker.log").open("wb") as out:
            self.worker = subprocess.Popen(
                command, env=self.env, cwd=ROOT, stdout=out, stderr=out, start_new_session=True
            )
        wait(self._has_pump, 30)

    def _has_pump(self) -> bool:
        with redis.Redis.from_url(f"{self.url}/1") as client:
            return bool(client.exists("cp:room-leader:{cp}"))

    def send(self, kind: str, calls: str) -> None:
        """Publish calls from a process that leaves the processors to the worker."""
        code = f"import os; os.nice(10); from benchmarks.handover_tasks import {kind} as task\n{calls}"
        subprocess.run([sys.executable, "-c", code], env=self.env, check=True)

    def times(self, kind: str) -> list[float]:
        """When something happened."""
        rows = (line.split() for line in self.log.read_text().splitlines()) if self.log.exists() else ()
        return sorted(float(row[1]) for row in rows if row[0] == kind)

    def waiting(self) -> int:
        """How many are in the room."""
        with redis.Redis.from_url(f"{self.url}/1") as client:
            return sum(1 for _ in client.scan_iter(match="cp:room-entry:*", count=5_000))


@contextmanager
def scene(url: str) -> Iterator[Scene]:
    flush(url)
    with tempfile.TemporaryDirectory() as folder:
        one = Scene(url, Path(folder))
        try:
            yield one
        finally:
            os.killpg(one.worker.pid, signal.SIGKILL)
            one.worker.wait()


def hand_overs(one: Scene, kind: str, rounds: int) -> list[float]:
    """Seconds from one end to the next beginning."""
    if kind == "idempotency":
        found = []
        for number in range(rounds):
            one.send(kind, f"for _ in range(2): task.delay('k{number}', 1.0)")
            wait(lambda number=number: len(one.times("done")) == 2 * number + 2, 20)
            found.append(one.times("done")[-1] - one.times("ended")[-1])
        return found
    one.send(kind, f"for number in range({rounds}): task.delay('k', number, 0.5)")
    wait(lambda: len(one.times("ended")) == rounds, rounds * 3)
    ends, begins = one.times("ended"), one.times("began")
    return [after - end for end, after in zip(ends, begins[1:], strict=False)]


def crowd(one: Scene, kind: str, waiters: int) -> None:
    """What it costs that many wait."""
    one.send(kind, "task.delay('k', 0, 3600)")
    wait(lambda: bool(one.times("began")), 20)
    one.send(kind, f"for number in range({waiters}): task.delay('k', number, 0.0)")
    wait(lambda: one.waiting() >= waiters, 300)
    time.sleep(20)  # past the first looks
    before, own, began = len(one.times("delivered")), sum(worked().values()), time.monotonic()
    time.sleep(10)
    spent, took = sum(worked().values()) - own, time.monotonic() - began
    print(
        f"{kind:<20}{one.waiting():>8} waiting: {(len(one.times('delivered')) - before) / took:.2f} "
        f"deliveries/s, {100 * spent / took:.1f} % of a processor"
    )


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--waiters", type=int, default=0)
    options = parser.parse_args()
    with server() as url:
        for kind in KINDS if not options.waiters else KINDS[:2]:
            with scene(url) as one:
                if options.waiters:
                    crowd(one, kind, options.waiters)
                    continue
                all_before, own_before, began = busy(), sum(worked().values()), time.monotonic()
                found = sorted(hand_overs(one, kind, options.rounds))
                own = sum(worked().values()) - own_before
                elsewhere = (busy() - all_before - own) / (time.monotonic() - began)
                print(
                    f"{kind:<20}{len(found):>4} times: median {1000 * statistics.median(found):.1f} ms, "
                    f"p90 {1000 * found[int(len(found) * 0.9)]:.1f} ms; elsewhere {max(0, elsewhere):.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
