"""What the gate costs a group: ``python -m benchmarks.groups [--calls 10000]``.

A group of calls under a limit that has no room: all are parked. In chunks, and each asking for itself.
The times are those of the publishing process's processor: on top of them, each round trip waits for the
network.
"""

from __future__ import annotations

import argparse
import time

import redis
from celery import Celery, group

from benchmarks.drain_run import server
from celery_patterns import TokenBucket, TokenBucketTask
from celery_patterns.waiting import gate
from celery_patterns.waiting.broker import broker_of


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with server() as url:
        app = Celery("groups", broker=f"{url}/0")
        app.conf.update(patterns_url=f"{url}/1", task_ignore_result=True)

        @app.task(base=TokenBucketTask, token_bucket=TokenBucket("1/h", name="slow"))
        def limited(number: int) -> int:
            return number

        client = redis.Redis.from_url(f"{url}/1")
        seconds: dict[str, list[float]] = {"in chunks": [], "one by one": []}
        for _ in range(options.rounds):
            for name, at_once in (("in chunks", gate.AT_ONCE), ("one by one", 1)):
                client.flushdb()
                client.set("cp:room-leader:{cp}", "nobody", ex=600)
                client.hset("cp:room:{cp}", "broker", broker_of(app))
                before, gate.AT_ONCE = gate.AT_ONCE, at_once
                began = time.process_time()
                group(limited.s(number) for number in range(options.calls)).apply_async()
                seconds[name].append(time.process_time() - began)
                gate.AT_ONCE = before
                assert client.zcard("cp:room-line:{cp}:slow:") == options.calls - 1
        for name, found in seconds.items():
            trips = options.calls if name == "one by one" else 2 * options.calls // gate.AT_ONCE
            print(f"{name:<12}{min(found):.2f} s (best of {len(found)}), {trips} round trips")


if __name__ == "__main__":
    main()
