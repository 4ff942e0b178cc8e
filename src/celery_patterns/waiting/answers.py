"""What waits in the room, and what the room answers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery_patterns.core.parking import Spot
    from celery_patterns.waiting.parcel import Parcel


@dataclass(frozen=True, slots=True)
class Started:
    """The tokens are taken, for a start at this time (seconds since the epoch), ``ahead`` seconds on."""

    at: float
    ahead: float


@dataclass(frozen=True, slots=True)
class Waits:
    """Nothing was taken: ``wait`` seconds, for the demand at position ``which``, one token in ``pace`` s."""

    wait: float
    which: int
    pace: float


@dataclass(frozen=True, slots=True)
class Ticket:
    """A publisher may publish at once."""

    id: str


@dataclass(frozen=True, slots=True)
class Parked:
    """It waits.

    Args:
        line: Where; empty for those who wait for a time.
        waiting: How many do there.
        oldest: For how many seconds the first of them has.
        wait: For how many seconds it will, as it looks.
    """

    line: str
    waiting: int
    oldest: float
    wait: float


@dataclass(frozen=True, slots=True)
class Release:
    """What the pump is to publish now.

    Args:
        id: The entry.
        number: Of this release; a confirmation carries it.
        ticket: The ticket; empty where it has none.
        demands: Of the limits that the ticket is for.
        place: Its place, should it have to come back.
        head: Of the message.
        body: Of the message.
        revoked: Whether it was revoked meanwhile.
    """

    id: str
    number: int
    ticket: str
    demands: str
    place: str
    head: bytes
    body: bytes
    revoked: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """What the pump learns: what to publish, and in how many seconds to ask again at the latest.

    Args:
        wait: Seconds.
        leads: Whether this pump is the one that leads.
        releases: What to publish.
        broker: Whose what waits is, if it is not this pump's broker's.
    """

    wait: float
    leads: bool
    releases: Sequence[Release] = ()
    broker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Who comes in.

    Args:
        parcel: The message.
        id: The task id.
        spot: Where to wait.
        wait: Seconds, where it waits for a time.
        place: Its old place, if it had one.
        rank: By its priority; 0 goes first.
        attempt: Of the task; a later one replaces an earlier one that still waits.
        gate: Whether it could be published instead.
        looked: Seconds since it looked whether what it waits for is there; ``None`` if it did not.
        nonce: By it an entry that comes in again is known, as one does whose answer was lost.
    """

    parcel: Parcel
    id: str
    spot: Spot
    wait: float | None = None
    place: str = ""
    rank: int = 0
    attempt: int = 0
    gate: bool = False
    looked: float | None = None
    nonce: str = field(default_factory=lambda: os.urandom(8).hex())

    def args(self, broker: str) -> list[str | bytes | int]:
        """As the script reads it."""
        spot = self.spot
        return [
            "gate" if self.gate else "park",
            broker,
            self.id,
            self.nonce,
            self.attempt,
            self.place,
            self.rank,
            spot.demands,
            spot.line,
            "" if self.wait is None else _us(self.wait),
            "" if spot.patience is None else _us(spot.patience),
            spot.turn,
            "" if self.looked is None else _us(self.looked),
            self.parcel.head(),
            self.parcel.body,
        ]


def entered(answer: Any) -> Ticket | Parked | None:
    """What became of an entry; ``None`` where nobody would ever release it."""
    match answer[0]:
        case b"ticket":
            return Ticket(answer[1].decode())
        case b"parked":
            return Parked(answer[3].decode(), answer[1], answer[2] / 1e6, answer[4] / 1e6)
    return None


def release_of(  # noqa: PLR0917 - as the script answers
    id: bytes,  # noqa: A002 - what it is
    number: int,
    ticket: bytes,
    demands: bytes,
    place: bytes,
    head: bytes,
    body: bytes,
    revoked: bytes,
) -> Release:
    """What the pump is to publish."""
    texts = (id.decode(), number, ticket.decode(), demands.decode(), place.decode())
    return Release(*texts, head, body, bool(revoked))


def _us(seconds: float) -> int:
    return max(0, round(seconds * 1e6))
