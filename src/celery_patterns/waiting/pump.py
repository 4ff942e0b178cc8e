"""The pump: it publishes what waits in the room, when its turn has come.

One pump of an app leads, under a lease that each call renews; the others stand by. Each call says what
the broker has taken of the last call's releases, and gets the next ones: a pump that dies in between
leaves releases that nobody confirmed, and its successor publishes them again.

It runs in a process of its own. Publishing may block for as long as a broker is away, which no worker's
event loop must, and a thread that publishes would hold locks when its process forks.
"""

from __future__ import annotations

import logging
import os
import socket
from time import monotonic
from time import sleep as _sleep
from typing import TYPE_CHECKING, Any

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from celery_patterns.core.parking import HOME_HEADER, REVOKED_HEADER, TICKET_HEADER, Ticket
from celery_patterns.errors import StoreUnavailable
from celery_patterns.waiting.broker import broker_of
from celery_patterns.waiting.parcel import Parcel
from celery_patterns.waiting.queues import Register, home
from celery_patterns.waiting.room import LEAD, Room
from celery_patterns.waiting.stamps import Stamps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from celery import Celery

    from celery_patterns.core.store import Store
    from celery_patterns.waiting.answers import Release
    from celery_patterns.waiting.queues import ReleaseQueue

logger = logging.getLogger("celery_patterns")

MOST = 100
"""How many are released at once."""
SHORTEST, LONGEST = 0.002, 0.5
"""Seconds between two looks into the room."""
STANDBY = 0.5
"""Seconds between two looks of a pump that does not lead."""
RENEW = 1.0
"""Seconds between two looks at which release queues are consumed."""
TELL = 10.0
"""Seconds between two warnings of one kind."""
FRESH = LEAD / 2
"""Seconds after which a release is left to whoever leads by then."""


class Pump:
    """One pump.

    Args:
        app: Whose broker.
        store: Where the room is.
        queues: The release queues that are consumed for as long as this pump lives.
    """

    def __init__(self, app: Celery, store: Store, queues: Sequence[ReleaseQueue] = ()) -> None:
        self.room = Room(store, broker_of(app))
        self.name = f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
        self.leads = False
        self._outlet = _Outlet(app)
        self._register = Register(self.room)
        self._stamps = Stamps(self.room)
        self._queues = queues
        self._consumed: dict[str, ReleaseQueue] = {}
        self._taken: list[Release] = []
        self._renew_at = 0.0
        self._told_of = ""
        self._tell_at = 0.0
        self._bell = _Bell(self.room)

    def run(self, ends: Callable[[], bool]) -> None:
        """Pump until ``ends`` says so."""
        while not ends():
            try:
                pause = self.step()
            except StoreUnavailable as error:
                if monotonic() >= self._tell_at:
                    self._tell_at = monotonic() + TELL
                    logger.warning("The waiting room is out of reach, and nothing is released: %s", error)
                self._bell.close()
                pause = STANDBY
            self._bell.sleep(pause)
        self.close()

    def step(self) -> float:
        """Release what is due; in how many seconds to look again.

        Raises:
            StoreUnavailable: The store is out of reach; nothing is lost.
        """
        now = monotonic()
        if now >= self._renew_at:
            self._renew_at = now + RENEW
            self._register.renew(self._queues)
            self._consumed = self._register.read()
            self._stamps.read()
        asked = monotonic()
        turn = self.room.release(self.name, self._taken, MOST if self._outlet.is_open() else 0)
        self._taken = []
        if turn.leads is not self.leads:
            self.leads = turn.leads
            logger.info(
                "%s the waiting room's pump: %s", "Leading as" if turn.leads else "Standing by as", self.name
            )
            if self.leads:
                self._outlet.get_ready(self._consumed.values())
        if not turn.leads:
            self._tell_of(turn.broker)
            return min(STANDBY, turn.wait + 0.05)
        for release in turn.releases:
            if monotonic() - asked > FRESH or not self._outlet.is_open():
                break
            if self._publish(release):
                self._taken.append(release)
        if turn.releases:
            return 0.0 if len(turn.releases) == MOST else SHORTEST
        return max(SHORTEST, min(LONGEST, turn.wait))

    def _tell_of(self, broker: str) -> None:
        """Say once that what waits is another broker's."""
        if broker and broker != self._told_of:
            logger.error(
                "What is in the waiting room is for the broker %s, and this pump's is %s: it is left alone. "
                "Give apps on different brokers a patterns_prefix each. If the broker has moved, run "
                "celery patterns pump --adopt",
                broker,
                self.room.broker,
            )
        self._told_of = broker

    def close(self) -> None:
        """Confirm what was published, and let another one lead."""
        try:
            if self.leads:
                self.room.release(self.name, self._taken, 0)
                self.room.resign(self.name)
        except StoreUnavailable as error:
            logger.warning("Cannot tell the waiting room that its pump ends: %s", error)
        self._outlet.close()
        self._bell.close()

    def _publish(self, release: Release) -> bool:
        parcel = Parcel.of_stored(release.head, release.body)
        headers = dict(parcel.headers)
        if release.place:
            headers[TICKET_HEADER] = Ticket.of_demands(
                release.ticket, release.place, release.demands
            ).header()
        if release.revoked or self._stamps.match(headers):
            headers[REVOKED_HEADER] = True
        meant = home(parcel.exchange, parcel.routing_key)
        queue = self._consumed.get(meant)
        if queue is not None and not self._outlet.takes(queue):
            queue = None
        if queue is not None:
            headers[HOME_HEADER] = meant
        return self._outlet.publish(parcel, headers, queue)


class _Outlet:
    """A connection to the broker that confirms what it has taken, opened again after a pause if it breaks."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._connection: Any = None
        self._producer: Any = None
        self._declared: dict[str, bool] = {}
        self._retry_at = 0.0

    def is_open(self) -> bool:
        """Whether it is worth trying to publish now."""
        return monotonic() >= self._retry_at

    def get_ready(self, queues: Iterable[ReleaseQueue]) -> None:
        """Connect before there is something to publish: that takes as long as a hundred messages."""
        try:
            self._open()
            all(self.takes(queue) for queue in queues)  # the first that cannot be declared ends it
        except Exception as error:  # noqa: BLE001 - whatever it is, the first message will tell
            logger.debug("No broker yet: %s", error)
            self.close()

    def takes(self, queue: ReleaseQueue) -> bool:
        """Whether messages can be published to a release queue: it is there now, as its consumers have it."""
        if queue.name in self._declared:
            return self._declared[queue.name]
        try:
            queue.declaration().bind(self._open().channel).declare()
        except self._errors() as error:
            logger.warning("Cannot declare %s, publishing to the queue beside it: %s", queue.name, error)
            if isinstance(error, tuple(self._connection.channel_errors)):  # it was declared in another way
                self._declared[queue.name] = False
            self.close()
            return False
        self._declared[queue.name] = True
        return True

    def publish(self, parcel: Parcel, headers: dict[str, Any], queue: ReleaseQueue | None) -> bool:
        """Publish a message to a release queue, or where it was first meant to go; whether that worked.

        A broken connection is left alone for a moment. What breaks no connection concerns one message.
        """
        try:
            self._open().publish(
                parcel.body,
                content_type=parcel.content_type,
                content_encoding=parcel.content_encoding,
                headers=headers,
                exchange=parcel.exchange if queue is None else "",
                routing_key=parcel.routing_key if queue is None else queue.name,
                retry=False,
                **parcel.properties,
            )
        except self._errors() as error:
            logger.warning("Cannot release %s, trying again: %s", headers.get("id"), error)
            self.close()
            self._retry_at = monotonic() + STANDBY
            return False
        except Exception:
            logger.exception("Cannot release %s, trying again later; it stays in the room", headers.get("id"))
            return False
        return True

    def _errors(self) -> tuple[type[Exception], ...]:
        known = (KombuError, OSError, RedisError)
        if self._connection is None:
            return known
        return (*known, *self._connection.connection_errors, *self._connection.channel_errors)

    def _open(self) -> Any:
        if self._producer is None:
            options = dict(self._app.conf.broker_transport_options or {})
            self._connection = self._app.connection_for_write(
                transport_options={**options, "confirm_publish": True}, connect_timeout=2
            )
            self._connection.connect()
            self._declared = {name: taken for name, taken in self._declared.items() if not taken}
            self._producer = self._app.amqp.Producer(self._connection, auto_declare=False)
        return self._producer

    def close(self) -> None:
        """Close the connection; the next message opens another one."""
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            try:
                connection.close()
            except Exception as error:  # noqa: BLE001 - whatever a broken connection raises when it is closed
                logger.debug("Closing a connection: %s", error)


class _Bell:
    """Sleep that ends early when something is due before the pump would have looked."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._pubsub: Any = None

    def sleep(self, seconds: float) -> None:
        """Sleep for ``seconds``, or until the room pokes its pump."""
        ends = monotonic() + seconds
        try:
            if self._pubsub is None:
                self._pubsub = self._room.store.client.pubsub(ignore_subscribe_messages=True)
                self._pubsub.subscribe(self._room.key("room-poke"))
            while (left := ends - monotonic()) > 0:
                if self._pubsub.get_message(timeout=left) is not None:
                    return
        except (RedisError, StoreUnavailable, OSError):
            self.close()
            _sleep(max(SHORTEST, ends - monotonic()))

    def close(self) -> None:
        """Listen no longer; the next sleep does."""
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            try:
                pubsub.close()
            except (RedisError, OSError) as error:
                logger.debug("Closing a subscription: %s", error)
