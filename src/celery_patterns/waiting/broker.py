"""Which broker a room belongs to.

What waits in a room is published again by a pump, which must have the very broker that the task was
meant for. Apps on different brokers may share a store, and a prefix: so a room remembers whose it is,
and lets in, and out, only what is of that broker. For all others there is no room, and no pump.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from kombu.utils.url import url_to_parts

from celery_patterns.core.store import store_of
from celery_patterns.waiting.room import Room

if TYPE_CHECKING:
    from celery import Celery

_SAME: dict[str, str] = {"pyamqp": "amqp", "amqps": "amqp", "rediss": "redis"}
_PORTS: dict[str, int] = {"amqp": 5672, "amqps": 5671, "pyamqp": 5672}
_PORTS |= {"redis": 6379, "rediss": 6379, "sentinel": 26379}
_NOTHING_SAID: dict[str, str] = {"amqp": "/", "redis": "0", "sentinel": "0"}
"""Which virtual host, or database, a URL means that names none."""


def broker_of(app: Celery) -> str:
    """The broker that an app publishes to: the same text in all processes that mean the same one.

    One host under two names counts as two brokers, since nobody can tell. It has no password in it.
    """
    conf = app.conf
    options: dict[str, Any] = conf.broker_transport_options or {}
    url = conf.broker_write_url or "amqp://"
    urls = tuple(url.split(";") if isinstance(url, str) else url)
    return _text(urls, str(options.get("master_name") or ""), str(options.get("global_keyprefix") or ""))


def transport_of(app: Celery) -> str:
    """How an app talks to its broker: ``"redis"``, ``"amqp"``, ``"memory"``..."""
    return broker_of(app).partition(":")[0]


def room_of(app: Celery) -> Room:
    """The room of an app's calls.

    Its broker is looked up once, as by Celery when it connects: each look at a setting takes microseconds.

    Raises:
        PolicyError: No store is configured.
    """
    store, room = store_of(app), _rooms.get(app)
    if room is None or room.store is not store:
        room = _rooms[app] = Room(store, broker_of(app))
    return room


_rooms: WeakKeyDictionary[Celery, Room] = WeakKeyDictionary()


@lru_cache
def _text(urls: tuple[str, ...], *more: str) -> str:
    places = sorted({_place(one) for one in urls})
    return " ".join([", ".join(places), *filter(None, more)])


def _place(url: str) -> str:
    name, separator, _ = url.partition("://")
    if not separator:
        return name  # a transport's or a host's name alone
    parts = url_to_parts(url)
    scheme = _SAME.get(name, name)
    port = parts.port or _PORTS.get(name)
    path = str(parts.query.get("virtual_host") or "") + (parts.path or "")
    return f"{scheme}://{parts.hostname or 'localhost'}:{port or ''}/{path or _NOTHING_SAID.get(scheme, '')}"
