"""How a call comes into the room: from a worker, when it must wait, or at the gate, when it is published."""

from __future__ import annotations

import logging
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from celery_patterns.core.events import Event, emit
from celery_patterns.core.parking import ENTRY_HEADER, OF_A_RELEASE, Spot, ticket_of
from celery_patterns.core.policy import REPLAY_STEP
from celery_patterns.core.redelivery import publishes_to_rabbitmq
from celery_patterns.core.timing import time_to_expiry
from celery_patterns.errors import StoreUnavailable
from celery_patterns.waiting.answers import Entry, Parked
from celery_patterns.waiting.broker import room_of
from celery_patterns.waiting.lookout import has_pump, is_on
from celery_patterns.waiting.parcel import CapturingProducer, Parcel

if TYPE_CHECKING:
    from celery import Celery
    from celery.canvas import Signature

    from celery_patterns.core.policy import Call

logger = logging.getLogger("celery_patterns")

KIND = "waiting_room"

_ON_ITS_WAY = 0.05
"""Seconds for which an entry may be on its way to the store."""
_HIGHEST = 255
"""RabbitMQ's largest priority."""


class WaitingRoom:
    """The room as the layers below know it."""

    def park(self, call: Call, signature: Signature[Any], delay: float, spot: Spot) -> bool:
        """Have a call wait; whether it does. It does not where no pump lives, or the store is away."""
        app = call.app
        if not has_pump(app):
            return False
        ticket = ticket_of(call.request)
        entries: list[Entry] = []
        parked: list[Parked] = []

        def capture(body: Any, options: dict[str, Any]) -> None:
            entry = entry_of(
                call,
                body,
                options,
                spot=spot,
                wait=None if spot.demands else delay,
                place=ticket.place if ticket and (spot.demands or spot.line) else "",
                looked=monotonic() - call.asked_at + _ON_ITS_WAY if spot.line and call.asked_at else None,
            )
            entries.append(entry)
            (found,) = room_of(app).enter_all(entries)
            if isinstance(found, Parked):
                parked.append(found)
                tell_of(call, entry, found)

        try:
            with app.producer_or_acquire() as producer:
                signature.apply_async(producer=CapturingProducer(producer.connection, capture))
        except StoreUnavailable as error:
            logger.warning("Cannot park %s[%s]: %s; it waits as a countdown", call.name, call.id, error)
            signature.options.setdefault("headers", {})[ENTRY_HEADER] = entries[0].nonce
        return bool(parked)

    def withdraw(self, call: Call, nonce: str) -> bool:
        """Take back what may have been parked beside this very delivery; whether that is settled."""
        try:
            room_of(call.app).withdraw(str(call.id), nonce)
        except StoreUnavailable as error:
            logger.warning("Cannot look whether %s[%s] waits as well: %s", call.name, call.id, error)
            return False
        return True

    def serves(self, call: Call) -> bool:
        """Whether a call could wait here now."""
        return has_pump(call.app)

    def wake(self, call: Call, line: str, *who: str) -> None:
        """Release the tasks of these ids from a line, or the first who waits there, or all."""
        if is_on(call.app):
            try:
                room_of(call.app).wake(line, *who)
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


def entry_of(call: Call, body: Any, options: dict[str, Any], *, spot: Spot, **how: Any) -> Entry:
    """The message of a call as it comes into the room."""
    app = call.app
    parcel = Parcel.of_publication(body, options, app.conf.task_serializer)
    for header in (*OF_A_RELEASE, ENTRY_HEADER):
        parcel.headers.pop(header, None)
    parcel.properties.pop("expiration", None)  # RabbitMQ would drop it, and nobody would learn of it
    left = time_to_expiry(app, parcel.headers.get("expires"))
    if left is not None:
        spot = replace(spot, patience=left if spot.patience is None else min(spot.patience, left))
    return Entry(
        parcel=parcel,
        id=parcel.headers["id"],
        spot=spot,
        rank=rank_of(app, parcel.properties.get("priority")),
        attempt=call.replay * REPLAY_STEP + int(parcel.headers.get("retries") or 0),
        **how,
    )


def tell_of(call: Call, entry: Entry, parked: Parked) -> None:
    """Say that a call was parked."""
    detail = {"waiting": parked.waiting, "oldest": parked.oldest, "gate": entry.gate}
    key = parked.line or None
    emit(Event(kind="parked", policy=KIND, task=call.name, task_id=entry.id, key=key, detail=detail))


def rank_of(app: Celery, priority: int | None) -> int:
    """Which place a priority has in a line: 0 goes first. Redis counts down, RabbitMQ counts up."""
    if publishes_to_rabbitmq(app):
        return _HIGHEST - min(_HIGHEST, priority or 0)
    return priority or 0
