"""How a backlog drains under a limit: ``python -m benchmarks.drain [ROW...]``.

Each row sends a number of tasks at once to real workers and watches when they start. The ideal is a
bucket that lets each task start as soon as it was sent and there is a token: ``wall`` is the time until
the last start, in parts of that; lateness is how much later than in the ideal the n-th start comes; jitter
is the time from the grant of a token to the body that it was for.
``others`` are unrelated tasks on the same queue, from when the broker had them to their start.

Times depend on what else the machine does: ``elsewhere`` is how many processors others have used.
"""

from __future__ import annotations

import signal
import statistics
import sys
import time
from os import killpg
from typing import Any

from benchmarks.drain_run import Row, Run, at_work, busy, flush, server, wait, worked

ROWS = [
    Row(name="gated, 100/s, burst 20"),
    Row(name="gated, 100/s, burst 1", burst=1),
    Row(name="gated, 500/s, burst 20", rate=500, tasks=5_000),
    Row(name="gated, 500/s, burst 1", rate=500, burst=1, tasks=5_000),
    Row(name="gated, 2 workers", workers=2, concurrency=2),
    Row(name="not gated, 100/s, burst 20", gate=False),
    Row(name="not gated, 100/s, burst 1", gate=False, burst=1),
    Row(name="not gated, worker 5 s late", gate=False, workers=2, concurrency=2, late=5.0),
    Row(name="gated, 1 of 2 stalled 3 s", workers=2, concurrency=2, stalled=3.0),
    Row(name="gated, all slots blocked 3 s", blocked=3.0),
    Row(name="countdowns (no room)", room=False, gate=False),
    Row(name="naive backoff", room=False, gate=False, task="naive", patience=180),
    Row(name="Celery's rate_limit", room=False, gate=False, task="native", tasks=500),
]


def run(row: Row, url: str) -> dict[str, Any]:
    with at_work(row, url) as one:
        for _ in range(row.workers - (row.late > 0)):
            one.start_worker()
        wait(one.answers, 30)
        one.start_probing()
        time.sleep(2.0)  # the pump's first seconds
        memory, all_before, own_before, began = one.memory(), busy(), worked(), time.monotonic()
        if row.blocked:
            one.send("block", *([row.blocked] for _ in range(row.concurrency)))
        one.send(row.task, *([number] for number in range(row.tasks)))
        if row.late:
            time.sleep(row.late)
            one.start_worker()
        if row.stalled:
            time.sleep(3.0)
            killpg(one.workers[-1].pid, signal.SIGSTOP)
            time.sleep(row.stalled)
            killpg(one.workers[-1].pid, signal.SIGCONT)
        wait(lambda: one.count("started") >= row.tasks, row.patience)
        own = sum(spent - own_before.get(pid, 0) for pid, spent in worked().items())
        elsewhere = (busy() - all_before - own) / (time.monotonic() - began)
        more = one.memory() - (memory if not row.late else memory * row.workers / (row.workers - 1))
        return measured(row, one, more) | {"elsewhere": max(0.0, elsewhere)}


def measured(row: Row, one: Run, memory: float) -> dict[str, Any]:
    started = one.entries("started")
    bodies, tokens = sorted(entry[0] for entry in started), sorted(entry[1] for entry in started)
    jitter = [max(0.0, body - token) for body, token, *_ in started]
    sent = sorted(entry[0] for entry in one.entries("sent"))
    ideal = list(_ideal(sent, row))
    late = [at - soonest for at, soonest in zip(bodies, ideal, strict=False)]
    others = _of_others(one, sent[0], bodies[-1])
    return {
        "wall": (bodies[-1] - sent[0]) / (ideal[-1] - sent[0]),
        "runs": len(started),
        "deliveries": one.count("delivered") / len(started),
        "token": _worst(tokens),
        "body": _worst(bodies),
        "bound": row.rate + row.burst,
        "jitter p50": 1000 * statistics.median(jitter),
        "jitter p99": 1000 * _share(jitter, 0.99),
        "late p99": 1000 * _share(late, 0.99),
        "others p50": 1000 * statistics.median(others),
        "others p99": 1000 * _share(others, 0.99),
        "MB": memory,
    }


def _ideal(sent: list[float], row: Row) -> Any:
    """When each task could start, at the soonest: a token bucket over the times at which they were sent."""
    full = sent[0]
    for at in sent:
        start = max(at, full - (row.burst - 1) / row.rate)
        full = max(full, start) + 1 / row.rate
        yield start


def _of_others(one: Run, begin: float, end: float) -> list[float]:
    began = {int(number): at for at, number in one.entries("free")}
    return [
        max(0.0, began[int(number)] - at)
        for at, number in one.entries("probed")
        if begin <= at <= end and int(number) in began
    ]


def _worst(times: list[float]) -> int:
    """The most in any half-open second."""
    most = begin = 0
    for end, at in enumerate(times):
        while times[begin] <= at - 1:
            begin += 1
        most = max(most, end - begin + 1)
    return most


def _share(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all that was started is ended
    wanted = sys.argv[1:]
    rows = [row for row in ROWS if not wanted or any(part in row.name for part in wanted)]
    with server() as url:
        for number, row in enumerate(rows):
            flush(url)
            found = run(row, url)
            if number == 0:
                print(f"{'':<30}" + "".join(f"{name:>11}" for name in found))
            print(f"{row.name:<30}" + "".join(_shown(value) for value in found.values()), flush=True)


def _shown(value: float) -> str:
    return f"{value:>11}" if isinstance(value, int) else f"{value:>11.3f}"


if __name__ == "__main__":
    main()
