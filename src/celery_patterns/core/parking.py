"""Where a call waits, if there is a waiting room: the door that the room is hung in.

The room is built on this layer, so it cannot be called from here by name: it registers itself when
it is imported (:mod:`celery_patterns.waiting`). Without it, and where no pump lives, a call waits as
a countdown, as Celery has it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from celery.canvas import Signature

    from celery_patterns.core.policy import Call

TICKET_HEADER = "cp-ticket"
"""Set by a release: which ticket the message carries, its old place, and for which limits."""
HOME_HEADER = "cp-home"
"""Set by a release: where the message was meant to go, an exchange and a routing key on two lines."""
REVOKED_HEADER = "cp-revoked"
"""Set by a release: the call was revoked while it waited."""
ENTRY_HEADER = "cp-entry"
"""Set where nobody knows whether a call is parked as well: the nonce of its entry, to take that back."""
OF_A_RELEASE = (TICKET_HEADER, HOME_HEADER, REVOKED_HEADER)

SHORTEST = 1.0
"""Waits shorter than that, in seconds, are left to the broker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Where a call waits.

    Args:
        demands: What it demands of rate limits, as their scripts read it; it waits in the line of the
            one that keeps it for longest.
        line: The line of those who are woken when something comes free, instead.
        turn: Whose turn it is, where a limit is shared out by turns.
        patience: Seconds after which it is released in any case; ``None`` for never.
    """

    demands: str = ""
    line: str = ""
    turn: str = ""
    patience: float | None = None


class Room(Protocol):
    """What a waiting room does for this layer."""

    def park(self, call: Call, signature: Signature[Any], delay: float, spot: Spot) -> bool:
        """Have a call wait in the room; whether it does."""

    def serves(self, call: Call) -> bool:
        """Whether a call that had to wait could do so in the room."""

    def wake(self, call: Call, line: str, *who: str) -> None:
        """Release the tasks of these ids from a line, or the first who waits there, or ``ALL``."""

    def hand_in(self, call: Call) -> None:
        """Give back the ticket of a call that ended without having used it."""

    def withdraw(self, call: Call, nonce: str) -> bool:
        """Take back what may have been parked beside this very delivery; whether that is settled."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket that a message carries.

    Args:
        id: The ticket; empty for a message that only has a place.
        place: The place of the message in its line, should it have to go back.
        limits: The buckets that the ticket is for, and how much of each.
    """

    id: str
    place: str
    limits: tuple[tuple[str, int], ...]

    @classmethod
    def of_demands(cls, id: str, place: str, demands: str) -> Ticket:  # noqa: A002 - what it is
        """A ticket for what a call demands."""
        limits = json.loads(demands) if id else []
        return cls(id, place, tuple((f"{one[0]}:{one[1]}", one[5]) for one in limits))

    def header(self) -> str:
        """The ticket as a header."""
        return json.dumps([self.id, self.place, self.limits], separators=(",", ":"))


def take_ticket(request: Any) -> None:
    """Take the ticket from a delivery's headers, so that its retries do not inherit it."""
    header = request.headers.pop(TICKET_HEADER, None) if request.headers else None
    if header is not None:
        id_, place, limits = json.loads(header)
        setattr(request, _TICKET, Ticket(id_, place, tuple(map(tuple, limits))))


def ticket_of(request: Any) -> Ticket | None:
    """The ticket that a delivery came with."""
    found: Ticket | None = getattr(request, _TICKET, None)
    return found


_TICKET = "cp_ticket"

_rooms: list[Room] = []


def open_room(room: Room) -> None:
    """Have calls wait in ``room`` from now on."""
    _rooms[:] = [room]


def park(call: Call, signature: Signature[Any], delay: float, spot: Spot | None) -> bool:
    """Have a call wait in the room, if there is one and it is worth it; whether it does.

    Args:
        call: The running call.
        signature: The same call as it is to be published when its time has come.
        delay: Seconds.
        spot: Where; ``None`` for nowhere but in time.
    """
    if not _rooms or (spot is None and delay < SHORTEST):
        return False
    return _rooms[0].park(call, signature, delay, spot or Spot())


def serves(call: Call) -> bool:
    """Whether a running call that had to wait could do so in the room."""
    return bool(_rooms) and not call.request.is_eager and _rooms[0].serves(call)


ALL = "*"


def wake(call: Call, line: str, *who: str) -> None:
    """Release the tasks of these ids from a line, or the first who waits there, or ``ALL``."""
    if _rooms and not call.request.is_eager:
        _rooms[0].wake(call, line, *who)


def was_woken(call: Call) -> bool:
    """Whether a running call comes from a line of the room in which others may wait still."""
    ticket = ticket_of(call.request)
    return ticket is not None and not ticket.id


def withdraw(call: Call) -> None:
    """Take back what may have been parked when this message was published: it would run twice."""
    nonce = call.headers.get(ENTRY_HEADER)
    if nonce and _rooms and _rooms[0].withdraw(call, nonce):
        call.request.headers.pop(ENTRY_HEADER)


def hand_in(call: Call) -> None:
    """Give back the ticket of a call that has not asked its limits, if it has one."""
    ticket = ticket_of(call.request)
    if _rooms and ticket and ticket.id:
        _rooms[0].hand_in(call)
