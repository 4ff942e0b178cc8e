"""How a call comes into the room: from a worker, when it must wait, or at the gate, when it is published."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from celery_patterns.core.events import Event, emit
from celery_patterns.core.parking import OF_A_RELEASE, TICKET_HEADER, Spot, ticket_of
from celery_patterns.core.parking import Ticket as CarriedTicket
from celery_patterns.core.policy import REPLAY_STEP
from celery_patterns.core.postpone import is_rabbitmq
from celery_patterns.core.settings import setting
from celery_patterns.core.timing import time_to_expiry
from celery_patterns.errors import PolicyError, StoreUnavailable
from celery_patterns.waiting.broker import room_of
from celery_patterns.waiting.lookout import has_pump, is_on
from celery_patterns.waiting.parcel import CapturingProducer, Parcel
from celery_patterns.waiting.room import Parked, Ticket

if TYPE_CHECKING:
    from celery import Celery
    from celery.canvas import Signature
    from celery.result import AsyncResult

    from celery_patterns.core.policy import Call, Publish

logger = logging.getLogger("celery_patterns")

GATE = "patterns_gate"
KIND = "waiting_room"

_SHUT = 5.0
"""Seconds for which a publisher does not wait for a store that was away."""
_HIGHEST = 255
"""RabbitMQ's largest priority."""


def has_gate(app: Celery) -> bool:
    """Whether calls are parked when they are published: on Redis by default, where nothing is lost by it."""
    return is_on(app) and bool(setting(app, GATE, not is_rabbitmq(app.conf.broker_write_url)))


class WaitingRoom:
    """The room as the layers below know it."""

    def park(self, call: Call, signature: Signature[Any], delay: float, spot: Spot) -> bool:
        """Have a call wait; whether it does. It does not where no pump lives, or the store is away."""
        app = call.app
        if not has_pump(app):
            return False
        ticket = ticket_of(call.request)
        parked: list[Parked] = []

        def capture(body: Any, options: dict[str, Any]) -> None:
            found = enter(
                call,
                body,
                options,
                spot=spot,
                wait=None if spot.demands else delay,
                place=ticket.place if ticket and (spot.demands or spot.line) else "",
            )
            if isinstance(found, Parked):
                parked.append(found)

        try:
            with app.producer_or_acquire() as producer:
                signature.apply_async(producer=CapturingProducer(producer.connection, capture))
        except StoreUnavailable as error:
            logger.warning("Cannot park %s[%s]: %s; it waits as a countdown", call.name, call.id, error)
        return bool(parked)

    def serves(self, call: Call) -> bool:
        """Whether a call could wait here now."""
        return has_pump(call.app)

    def wake(self, call: Call, line: str, who: str) -> None:
        """Release the first of those who wait in a line, a certain one, or all."""
        if is_on(call.app):
            try:
                room_of(call.app).wake(line, who)
            except StoreUnavailable as error:
                logger.warning("Cannot wake who waits for %s: %s; it looks by itself", line, error)

    def hand_in(self, call: Call) -> None:
        """Give the ticket of a call back."""
        ticket = ticket_of(call.request)
        if ticket is None:
            return
        try:
            room_of(call.app).hand_in(ticket.id, ticket.limits)
        except StoreUnavailable as error:
            logger.warning("Cannot return the ticket of %s[%s]: %s; it lapses", call.name, call.id, error)


def enter(
    call: Call, body: Any, options: dict[str, Any], *, spot: Spot, gate: bool = False, **how: Any
) -> Ticket | Parked | None:
    """Bring the message of a call into the room, or get a ticket for it.

    Raises:
        StoreUnavailable: Nobody knows whether it is in.
    """
    app = call.app
    parcel = Parcel.of_publication(body, options, app.conf.task_serializer)
    for header in OF_A_RELEASE:
        parcel.headers.pop(header, None)
    parcel.properties.pop("expiration", None)  # RabbitMQ would drop it, and nobody would learn of it
    left = time_to_expiry(app, parcel.headers.get("expires"))
    if left is not None:
        spot = replace(spot, patience=left if spot.patience is None else min(spot.patience, left))
    found = room_of(app).enter(
        parcel,
        id=parcel.headers["id"],
        spot=spot,
        rank=rank_of(app, parcel.properties.get("priority")),
        attempt=call.replay * REPLAY_STEP + int(parcel.headers.get("retries") or 0),
        gate=gate,
        **how,
    )
    if isinstance(found, Parked):
        detail = {"waiting": found.waiting, "oldest": found.oldest, "gate": gate}
        emit(
            Event(
                kind="parked",
                policy=KIND,
                task=call.name,
                task_id=parcel.headers["id"],
                key=found.line or None,
                detail=detail,
            )
        )
    return found


def rank_of(app: Celery, priority: int | None) -> int:
    """Which place a priority has in a line: 0 goes first. Redis counts down, RabbitMQ counts up."""
    if is_rabbitmq(app.conf.broker_write_url):
        return _HIGHEST - min(_HIGHEST, priority or 0)
    return priority or 0


_shut: WeakKeyDictionary[Celery, float] = WeakKeyDictionary()


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
            try:
                found = enter(call, body, how, spot=spot, gate=True)
            except PolicyError:
                found = None  # there is no store, as the task will say when it runs
            except StoreUnavailable as error:
                _shut[app] = time.monotonic()
                logger.warning("%s: %s; it is published and asks when it starts", call.name, error)
                found = None
            if isinstance(found, Parked):
                return None
            if isinstance(found, Ticket):
                how["headers"][TICKET_HEADER] = CarriedTicket.of_demands(found.id, "", spot.demands).header()
            return producer.publish(body, **how)

        options["producer"] = CapturingProducer(producer.connection, capture)
        return proceed(call)
