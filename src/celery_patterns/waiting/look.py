"""What operators see of the room: its lines, and who waits in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kombu.utils import json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_patterns.waiting.room import Room

TIMED = ""
"""The line of those who only wait for a time."""

_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class LineStatus:
    """One line.

    Args:
        name: The limit and key, or what it is that those in it are woken for; empty for the timed.
        waiting: How many wait.
        oldest: For how many seconds the first of them has waited.
    """

    name: str
    waiting: int
    oldest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One entry.

    Args:
        id: Of the task.
        task: Its name.
        args: Its arguments, as Celery shows them.
        waited: For how many seconds.
    """

    id: str
    task: str
    args: str
    waited: float


def lines(room: Room, name: str | None = None) -> list[LineStatus]:
    """All lines in which somebody waits, longest first; or those of one limit.

    It looks through the keys of the server: for people, not for each request.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    prefix = room.key("room-line", "")
    with room.store.reporting():
        client = room.store.client
        names = [
            key.decode().removeprefix(prefix) for key in client.scan_iter(match=_literally(prefix) + "*")
        ]
        if client.exists(room.key("room-time")):
            names.append(TIMED)
        found = [_status(room, one) for one in names if name is None or one.split(":")[0] == name]
    return sorted((one for one in found if one.waiting), key=lambda one: -one.waiting)


def entries(room: Room, line: str) -> Iterator[Waiting]:
    """Who waits in a line, who goes first coming first; read in pages.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    key, now, start = _key(room, line), room.store.now(), 0
    while True:
        with room.store.reporting():
            client = room.store.client
            ids = client.zrange(key, start, start + _AT_ONCE - 1)
            pipe = client.pipeline(transaction=False)
            for one in ids:
                pipe.hmget(room.key("room-entry", one.decode()), "head", "at")
            rows = pipe.execute()
        yield from (_waiting(head, at, now) for head, at in rows if head)
        if len(ids) < _AT_ONCE:
            return
        start += _AT_ONCE


def _status(room: Room, line: str) -> LineStatus:
    client = room.store.client
    key = _key(room, line)
    first = client.zrange(key, 0, 0)
    since = client.hget(room.key("room-entry", first[0].decode()), "at") if first else None
    oldest = room.store.now() - int(since) / 1e6 if since else 0.0
    return LineStatus(name=line, waiting=client.zcard(key), oldest=max(0.0, oldest))


def _key(room: Room, line: str) -> str:
    return room.key("room-line", line) if line else room.key("room-time")


def _waiting(head: bytes, at: bytes, now: float) -> Waiting:
    headers: dict[str, Any] = json.loads(head)[2]
    shown = f"{headers.get('argsrepr') or '()'} {headers.get('kwargsrepr') or '{}'}"
    return Waiting(id=headers["id"], task=headers["task"], args=shown, waited=now - int(at) / 1e6)


def _literally(text: str) -> str:
    """Text as a pattern for SCAN."""
    return "".join(f"\\{one}" if one in "*?[]\\^" else one for one in text)
