"""What it takes that many wait: ``python -m benchmarks.parked [--entries 100000]``.

So many calls under one limit are parked, and a real worker drains them for some seconds: how many start in
a second, what the worker and its pump hold in memory, what Redis does, how long it takes to show the first of
the line. ``--tenants`` has two tenants share the limit by turns instead, and tells when the small one is
through.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import redis

from benchmarks.drain_run import Row, Run, at_work, server, wait
from celery_patterns.core.parking import Spot
from celery_patterns.core.store import Store
from celery_patterns.policies.rate_limits.buckets import Bucket, Demand, as_text
from celery_patterns.policies.rate_limits.rate import Rate
from celery_patterns.policies.rate_limits.steering import close_name
from celery_patterns.waiting.answers import Entry
from celery_patterns.waiting.look import entries
from celery_patterns.waiting.parcel import Parcel
from celery_patterns.waiting.room import Room

if TYPE_CHECKING:
    from collections.abc import Iterable

SECONDS = 15
RATE = 200


def park(room: Room, parcel: Parcel, row: Row, numbers: Iterable[int], turn: str = "") -> None:
    """Park calls, as the gate does."""
    demand = Demand(Bucket("drain"), Rate.of(f"{row.rate}/s"), row.burst, 1, strict=False)
    spot = Spot(demands=as_text([demand]), turn=turn)
    chunk: list[Entry] = []
    for number in numbers:
        name = str(uuid4())
        body = parcel.body.replace(b"[[0]", f"[[{number}]".encode())
        headers = {**parcel.headers, "id": name, "root_id": name}
        properties = {**parcel.properties, "correlation_id": name}
        one = replace(parcel, body=body, headers=headers, properties=properties)
        chunk.append(Entry(parcel=one, id=name, spot=spot))
        if len(chunk) == 100:
            room.enter_all(chunk)
            chunk = []
    room.enter_all(chunk)


def sample(run: Run, room: Room) -> Parcel:
    """The message of a call as it is: the last of three that are parked because the limit is closed."""
    client = room.store.client
    close_name(room.store, "drain", 3600)
    run.send("limited", [0])
    (key,) = client.scan_iter(match="cp:room-entry:*", count=1_000)
    found = Parcel.of_stored(*client.hmget(key, "head", "body"))
    client.delete(key, "cp:room-line:{cp}:drain:", "cp:room-due:{cp}")
    return found


def open_limit(room: Room) -> None:
    close_name(room.store, "drain", 0)
    room.wake_all()


def pump_memory(run: Run) -> float:
    """MB of the pump's process."""
    parents = {one.pid for one in run.workers}
    for folder in Path("/proc").glob("[0-9]*"):
        command = (folder / "cmdline").read_bytes()
        status = (folder / "status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in status if ":" in line)
        if b"waiting.helper" in command and int(fields["PPid"]) in parents:
            return int(fields["VmRSS"].split()[0]) / 1000
    return float("nan")


def drained(url: str, waiting: int) -> dict[str, Any]:
    row = Row(name="parked", rate=RATE, burst=20)
    with at_work(row, url) as run, redis.Redis.from_url(f"{url}/1") as client:
        room, parcel = prepared(run, url)
        before, pump_before, redis_before = (
            run.memory(),
            pump_memory(run),
            client.info("memory")["used_memory"],
        )
        began = time.monotonic()
        park(room, parcel, row, range(waiting))
        parked = time.monotonic() - began
        held = (client.info("memory")["used_memory"] - redis_before) / waiting
        open_limit(room)
        wait(lambda: run.count("started") > row.burst, 10)
        count, began = run.count("started"), time.monotonic()
        time.sleep(SECONDS)
        rate = (run.count("started") - count) / (time.monotonic() - began)
        began = time.perf_counter()
        shown = len(list(islice(entries(room, "drain:"), 20)))
        listed = time.perf_counter() - began
        return {
            "entries": waiting,
            "parked in s": parked,
            "starts/s": rate,
            "worker MB more": run.memory() - before,
            "pump MB more": pump_memory(run) - pump_before,
            "Redis bytes each": held,
            f"first {shown} shown in ms": 1000 * listed,
        }


def prepared(run: Run, url: str) -> tuple[Room, Parcel]:
    run.start_worker()
    wait(run.answers, 30)
    store = Store(f"{url}/1")
    wait(lambda: bool(store.client.exists("cp:room-leader:{cp}")), 30)
    room = Room(store, store.client.hget("cp:room:{cp}", "broker").decode())
    return room, sample(run, room)


def two_tenants(url: str, many: int, few: int) -> dict[str, Any]:
    """When the small tenant's last call starts, alone and behind the big one's."""
    took = {}
    for crowd in (0, many):
        row = Row(name="tenants", rate=50, burst=1)
        with at_work(row, url) as run:
            redis.Redis.from_url(url).flushall()
            room, parcel = prepared(run, url)
            park(room, parcel, row, range(few, few + crowd), "big")
            park(room, parcel, row, range(few), "small")
            open_limit(room)
            began = time.time()
            wait(lambda run=run: sum(one[2] < few for one in run.entries("started")) >= few, 60)
            took[crowd] = max(one[0] for one in run.entries("started") if one[2] < few) - began
    return {"alone s": took[0], f"beside {many} s": took[many], "ratio": took[many] / took[0]}


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser()
    parser.add_argument("--entries", type=int, nargs="*", default=[1_000 * SECONDS, 100_000])
    parser.add_argument("--tenants", action="store_true")
    options = parser.parse_args()
    with server() as url:
        rows = [lambda: two_tenants(url, 5_000, 10)] if options.tenants else []
        rows = rows or [lambda number=number: drained(url, number) for number in options.entries]
        for row in rows:
            redis.Redis.from_url(url).flushall()
            print(", ".join(f"{name}: {value:.2f}" for name, value in row().items()), flush=True)


if __name__ == "__main__":
    main()
