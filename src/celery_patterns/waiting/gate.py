"""The gate: a call that could not start is parked when it is published, and so delivered once.

It costs one round trip. A group's calls go through it in chunks, since each of 10,000 would wait for its
own answer: a chunk is asked for in one round trip, and then published, as far as it is.
"""

from __future__ import annotations

import functools
import logging
import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from celery.canvas import group

from celery_patterns.core.parking import ENTRY_HEADER, TICKET_HEADER, Spot
from celery_patterns.core.parking import Ticket as CarriedTicket
from celery_patterns.core.redelivery import publishes_to_rabbitmq
from celery_patterns.core.settings import setting, switch
from celery_patterns.errors import PolicyError, StoreUnavailable
from celery_patterns.waiting.answers import Entry, Parked, Ticket
from celery_patterns.waiting.broker import room_of
from celery_patterns.waiting.lookout import is_on
from celery_patterns.waiting.parcel import CapturingProducer
from celery_patterns.waiting.parking import entry_of, tell_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from celery import Celery
    from celery.result import AsyncResult

    from celery_patterns.core.policy import Call, Publish

logger = logging.getLogger("celery_patterns")

GATE = "patterns_gate"

AT_ONCE = 100
"""How many calls of a group are asked for at once."""
_SHUT = 5.0
"""Seconds for which a publisher does not wait for a store that was away."""

_shut: WeakKeyDictionary[Celery, float] = WeakKeyDictionary()


def has_gate(app: Celery) -> bool:
    """Whether calls are parked when they are published: on Redis by default, where nothing is lost by it."""
    return is_on(app) and switch(app, GATE, default=not publishes_to_rabbitmq(app))


@dataclass(frozen=True, slots=True)
class _Booking:
    """A message on its way through the gate."""

    call: Call
    body: Any
    how: dict[str, Any]
    entry: Entry


@dataclass(slots=True)
class _Chunk:
    """What is not asked for yet of a group that is being published."""

    app: Celery
    producer: Any
    bookings: list[_Booking] = field(default_factory=list)

    def add(self, booking: _Booking) -> None:
        """One more."""
        self.bookings.append(booking)
        if len(self.bookings) >= AT_ONCE:
            self.settle()

    def settle(self) -> None:
        """Ask for them and publish those that need not wait."""
        bookings, self.bookings = self.bookings, []
        if bookings:
            with self.app.producer_or_acquire(self.producer) as producer:
                _settle(self.app, bookings, producer)


_chunk: ContextVar[_Chunk | None] = ContextVar("celery_patterns_chunk", default=None)


def through_gate(call: Call, spot: Spot, proceed: Publish) -> AsyncResult[Any]:
    """Publish a call if there is room for it, else park it: either way it is delivered once.

    A call for later passes, as does every call where no pump lives or the store is away: then it
    asks when it starts.
    """
    app, options = call.app, call.options
    later = options.get("countdown") or options.get("eta")
    is_shut = time.monotonic() < _shut.get(app, -_SHUT) + _SHUT
    if not spot.demands or later or app.conf.task_always_eager or is_shut or not has_gate(app):
        return proceed(call)
    with app.producer_or_acquire(options.get("producer")) as producer:

        def capture(body: Any, how: dict[str, Any]) -> Any:
            booking = _Booking(call, body, how, entry_of(call, body, how, spot=spot, gate=True))
            chunk = _chunk.get()
            if chunk is not None and chunk.app is app:
                return chunk.add(booking)
            return _settle(app, [booking], producer)

        options["producer"] = CapturingProducer(producer.connection, capture)
        return proceed(call)


def _settle(app: Celery, bookings: Sequence[_Booking], producer: Any) -> None:
    """Park what has to wait, publish the rest."""
    found: Sequence[Ticket | Parked | None] = [None] * len(bookings)
    try:
        found = room_of(app).enter_all([one.entry for one in bookings])
    except PolicyError:
        if setting(app, "patterns_url", None) is not None:
            raise
        # there is no store, as the tasks will say when they run
    except StoreUnavailable as error:
        _shut[app] = time.monotonic()
        names = ", ".join(sorted({one.call.name for one in bookings}))
        logger.warning("%s: %s; it is published and asks when it starts", names, error)
        for one in bookings:  # it may have come in all the same
            one.how["headers"][ENTRY_HEADER] = one.entry.nonce
    for one, answer in zip(bookings, found, strict=True):
        if isinstance(answer, Parked):
            tell_of(one.call, one.entry, answer)
            for tell in one.call.at_parking:
                tell(answer.wait)
            continue
        if isinstance(answer, Ticket):
            ticket = CarriedTicket.of_demands(answer.id, "", one.entry.spot.demands)
            one.how["headers"][TICKET_HEADER] = ticket.header()
        producer.publish(one.body, **one.how)


@contextmanager
def in_chunks(app: Celery, producer: Any = None) -> Iterator[None]:
    """Have calls that are published meanwhile go through the gate in chunks; the last one at the end."""
    chunk = _Chunk(app, producer)
    before = _chunk.get()
    _chunk.set(chunk)
    try:
        yield
    finally:  # what was called before something failed would have been published by then
        _chunk.set(before)
        chunk.settle()


def _applying(apply: Callable[..., Any]) -> Callable[..., Any]:
    """Celery's way to publish a group's calls, which then go through the gate in chunks."""

    @functools.wraps(apply)
    def apply_tasks(
        self: Any, tasks: Any, producer: Any = None, app: Any = None, *more: Any, **options: Any
    ) -> Any:
        with in_chunks(app or self.app, producer):
            yield from apply(self, tasks, producer, app, *more, **options)

    return apply_tasks


def book_groups_in_chunks() -> None:
    """Celery has no public door to the calls of a group; without this one each asks for itself."""
    found = getattr(group, "_apply_tasks", None)
    if found is not None and not hasattr(found, "__wrapped__"):
        group._apply_tasks = _applying(found)  # type: ignore[attr-defined]  # noqa: SLF001
