"""What single operations cost beside those of other libraries: in turns, on one core with the server.

The base of each group is what cannot be done without: EVALSHA of an empty script, through redis-py's client.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import idempotency, leases
from benchmarks.interleaved import Spread, pinned_server, spreads
from benchmarks.limiters import Floors, Ours
from benchmarks.locks import other_locks, other_records
from benchmarks.peers import installed_peers
from celery_patterns.core.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Group:
    """Operations that are compared.

    Args:
        name: What they do.
        base: What their ratios are to.
        times: Microseconds by name.
        round_trips: Of each, by name.
    """

    name: str
    base: str
    times: dict[str, Spread]
    round_trips: dict[str, float]

    def ratio(self, name: str) -> float:
        """The median, in parts of the base's."""
        return self.times[name].median / self.times[self.base].median


def measure_primitives(rounds: int) -> tuple[list[Group], list[str]]:
    """All groups, and which libraries are not installed."""
    with pinned_server() as url:
        store = Store(url)
        locks, no_locks = other_locks(url)
        records, no_records = other_records(url)
        groups = [
            _group(store, "locks", leases.BASE, _ours(leases.actions(store)) | locks, rounds),
            _group(
                store, "idempotency", idempotency.BASE, _ours(idempotency.actions(store)) | records, rounds
            ),
            _group(store, "rate limits", "empty EVALSHA", _limits(url), rounds),
        ]
        store.close()
    return groups, no_locks + no_records


def _ours(actions: dict[str, Callable[[], object]]) -> dict[str, Callable[[], object]]:
    return {name if "empty" in name else f"ours: {name}": action for name, action in actions.items()}


def _limits(url: str) -> dict[str, Callable[[], object]]:
    ours = Ours(url)
    actions: dict[str, Callable[[], object]] = {
        "empty EVALSHA": Floors(ours.store).empty,
        "ours: acquire": ours.acquire,
        "ours: acquire, strict": ours.acquire_strict,
        "ours: denied, exact wait": ours.denied,
    }
    for peer in installed_peers(url):
        actions[f"{peer.name}: acquire"] = peer.acquire
        actions[f"{peer.name}: denied, {peer.says}"] = peer.denied
    ours.denied()
    return actions


def _group(
    store: Store, name: str, base: str, actions: dict[str, Callable[[], object]], rounds: int
) -> Group:
    times = spreads(actions, rounds, warm=True)
    return Group(name, base, times, {one: _round_trips(store, action) for one, action in actions.items()})


def _round_trips(store: Store, action: Callable[[], object], times: int = 20) -> float:
    """How often the server has to read for one action."""

    def reads() -> int:
        return int(store.client.info("stats")["total_reads_processed"])

    before = reads()
    for _ in range(times):
        action()
    return (reads() - before - 1) / times
