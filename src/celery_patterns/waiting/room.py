"""The operations on the room, each of them one script.

All keys share the hash tag of the rate limits, since a release tests limits and takes an entry out of
its line in one script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_patterns.core.operations import operations
from celery_patterns.core.parking import ALL
from celery_patterns.core.script import Ask, Script
from celery_patterns.errors import StoreVersionError
from celery_patterns.waiting.answers import (
    Entry,
    Parked,
    Release,
    Started,
    Ticket,
    Turn,
    Waits,
    entered,
    release_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from celery_patterns.core.store import Store
    from celery_patterns.waiting.parcel import Parcel

_SHARED = ("limit_bucket", "room_limits")
_start = Script("room_start", after=_SHARED)
_enter = Script("room_enter", after=_SHARED)
_release = Script("room_release", after=_SHARED)
_return = Script("room_return", after=_SHARED)
_wake = Script("room_wake", after=_SHARED)
_cancel = Script("room_cancel", after=_SHARED)
_withdraw = Script("room_withdraw", after=_SHARED)

_AT_ONCE = 1_000
"""How many are woken by one script, at most."""

LEAD = 3.0
"""Seconds for which a pump leads without a sign of life."""


class Room:
    """The room in one store.

    Args:
        store: Where it is.
        broker: Whose calls come in, and out. See :mod:`celery_patterns.waiting.broker`.
    """

    def __init__(self, store: Store, broker: str = "") -> None:
        self.store = store
        self.broker = broker
        self.root = self.key("room")

    def key(self, kind: str, rest: str | None = None) -> str:
        """A key of the room."""
        prefix = self.store.prefix
        return f"{prefix}:{kind}:{{{prefix}}}" + ("" if rest is None else f":{rest}")

    def start(self, demands: str, ticket: str) -> Started | Waits:
        """Take the tokens of a task that would start, if it is its turn.

        Raises:
            StoreUnavailable: Nobody knows whether they were taken.
            StoreVersionError: A newer version of the library wrote a bucket.
        """
        return self.starting(demands, ticket).now()

    def starting(self, demands: str, ticket: str) -> Ask[Started | Waits]:
        """:meth:`start`, not yet done."""
        slots = operations(self.store.prefix)
        slot, number = slots.begin()

        def understand(answer: Any) -> Started | Waits:
            slots.end(slot)
            match answer[0]:
                case b"ok":
                    return Started(answer[1] / 1e6, answer[2] / 1e6)
                case b"wait":
                    return Waits(answer[1] / 1e6, answer[2] - 1, answer[3] / 1e6)
            raise StoreVersionError(
                f"limits {demands}: a bucket was written by a newer version of celery-patterns"
            )

        return Ask(
            _start,
            self.store,
            (self.root, slot),
            (demands, ticket, number),
            understand,
            lambda: slots.end(slot),
        )

    def enter(self, parcel: Parcel, **how: Any) -> Ticket | Parked | None:
        """As :meth:`enter_all`, for one; ``how`` are the other fields of its :class:`Entry`."""
        return self.enter_all([Entry(parcel=parcel, **how)])[0]

    def enter_all(self, entries: Sequence[Entry]) -> list[Ticket | Parked | None]:
        """Come in: at the gate with a ticket at once, if there is room for one; else to a place to wait in.

        Returns:
            For each; ``None`` where no pump of its broker lives: nobody would ever release it.

        Raises:
            StoreUnavailable: Nobody knows which of them are in. Entering again is safe.
        """
        answers = _enter.each(self.store, [([self.root], one.args(self.broker)) for one in entries])
        return [entered(answer) for answer in answers]

    def withdraw(self, task_id: str, nonce: str) -> bool:
        """Take an entry back that is on its way otherwise; whether it waited.

        Raises:
            StoreUnavailable: Nobody knows.
        """
        return bool(_withdraw(self.store, [self.root], [task_id, nonce]))

    def release(self, pump: str, confirmed: Iterable[Release], most: int) -> Turn:
        """What ``pump`` is to publish now, if it leads.

        Args:
            pump: Who asks.
            confirmed: What the broker has taken of what the last call said.
            most: How many at once.

        Raises:
            StoreUnavailable: The next call repairs what was lost.
        """
        taken = [part for one in confirmed for part in (one.id, one.number)]
        answer = _release(self.store, [self.root], [pump, self.broker, round(LEAD * 1000), most, *taken])
        if len(answer) == 1:
            return Turn(-answer[0] / 1e6, leads=False)
        if isinstance(answer[1], bytes):
            return Turn(-answer[0] / 1e6, leads=False, broker=answer[1].decode())
        return Turn(answer[0] / 1e6, leads=True, releases=[release_of(*one) for one in answer[1]])

    def resign(self, pump: str) -> None:
        """Have another pump lead at once.

        Raises:
            StoreUnavailable: Then another one leads when the lease has run out.
        """
        with self.store.reporting():
            if self.store.client.get(self.key("room-leader")) == pump.encode():
                self.store.client.delete(self.key("room-leader"))

    def hand_in(self, ticket: str, limits: Iterable[tuple[str, int]]) -> None:
        """Give a ticket back that nobody will use.

        Raises:
            StoreUnavailable: Then it lapses by itself.
        """
        _return(self.store, [self.root], [ticket, *(part for limit in limits for part in limit)])

    def wake(self, line: str, *who: str) -> int:
        """Release who waits for something that has come free; how many did.

        Args:
            line: For what they wait.
            who: The ids of tasks, or ``"*"`` for all; nobody in particular is the first.

        Raises:
            StoreUnavailable: Then they look when their time has come.
        """
        woken = count = int(_wake(self.store, [self.root], [line, *who]))
        while who == (ALL,) and count == _AT_ONCE:
            count = int(_wake(self.store, [self.root], [line, *who]))
            woken += count
        return woken

    def wake_all(self) -> None:
        """Look at every line anew: limits have changed.

        Raises:
            StoreUnavailable: Then it takes some seconds.
        """
        with self.store.reporting():
            due = self.key("room-due")
            self.store.client.zunionstore(due, {due: 0})
            self.store.client.publish(self.key("room-poke"), "")

    def adopt(self) -> None:
        """Have what waits published to this broker from now on: it has moved.

        Raises:
            StoreUnavailable: Nothing has changed.
        """
        with self.store.reporting():
            self.store.client.hset(self.root, "broker", self.broker)

    def has_pump(self) -> bool:
        """Whether a pump of this broker leads.

        Raises:
            StoreUnavailable: Nobody knows.
        """
        with self.store.reporting():
            leads = self.store.client.exists(self.key("room-leader"))
            return bool(leads) and self.store.client.hget(self.root, "broker") == self.broker.encode()

    def length(self, line: str) -> int:
        """How many wait in a line.

        Raises:
            StoreUnavailable: The store is out of reach.
        """
        with self.store.reporting():
            return int(self.store.client.zcard(self.key("room-line", line)))

    def cancel(self, ids: Sequence[str]) -> int:
        """Revoke what waits; how many of them did.

        Raises:
            StoreUnavailable: Nobody knows.
        """
        return int(_cancel(self.store, [self.root], list(ids))) if ids else 0
