"""The one place where a task is put off.

The same task is published again, with its id, retries, chord, chain, links, stamps, headers,
priority, expiry and limits as they were; then this delivery ends. Publishing comes before the end: a
process killed in between leaves two copies, never none, and a copy is something that policies
recognise. And what its caller sees comes before publishing, since the next delivery may end at once.

A broker that redelivers what was not acknowledged in time (Redis: the visibility timeout, an hour;
RabbitMQ: the consumer timeout, half an hour) does so to waiting tasks as well. So a wait is never
as long as half of that: longer ones hop, carrying the time at which they may run in a header.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, cast

from celery.exceptions import Retry

from celery_patterns.core import parking
from celery_patterns.core.copies import PutOffUnseen
from celery_patterns.core.events import Event, emit
from celery_patterns.core.redelivery import longest_wait
from celery_patterns.core.republish import (
    UNSEEN_HEADER,
    WAKE_HEADER,
    copy_of,
    is_of_one_delivery,
    publish_or_keep,
    whole_seconds_for_quorum,
)
from celery_patterns.core.shown import show_retry
from celery_patterns.core.waits import CONFLICT, Wait, count_one, deferrals, leave_all, waited
from celery_patterns.errors import DeferralExpired, PatternsError, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery_patterns.core.policy import Call


class PutOff(Retry):
    """A call was put off by its policies. Where in their code is nobody's concern, and costly to say."""

    @classmethod
    def because(cls, reason: Exception, delay: float) -> PutOff:
        """For ``delay`` seconds."""
        return cls(message=str(reason), exc=reason, when=delay)  # type: ignore[arg-type]


class EagerWait(BaseException):
    """An eager call has no broker to wait in: the seam waits in place and tries again."""

    def __init__(self, delay: float) -> None:
        super().__init__(delay)
        self.delay = delay


sleep: Callable[[float], None] = time.sleep
"""How an eager call waits; the testing plugin moves its clock instead."""


def wait_in_place(delay: float) -> None:
    """Wait as an eager call does, which has no broker to wait in."""
    sleep(delay)


def postpone(
    call: Call,
    delay: float,
    reason: PatternsError,
    *,
    policy: str,
    key: str | None = None,
    waits: Wait = CONFLICT,
    headers: Mapping[str, Any] | None = None,
    spot: parking.Spot | None = None,
    countdown: Callable[[], float] | None = None,
    **detail: Any,
) -> NoReturn:
    """Put the running call off; to its caller it shows as RETRY, with ``reason``.

    Retries are as they were: being put off is not a failure.

    Args:
        call: The running call.
        delay: Seconds.
        reason: Why; it is what the result's state shows meanwhile.
        policy: The kind of policy that puts it off, for the event.
        key: The key it waits for, for the event.
        waits: The kind of waiting.
        headers: What the policy wants to find among the call's headers next time.
        spot: Where in the waiting room it waits.
        countdown: Says how long it waits, in seconds, where there is no such room.
        detail: What else the event shall say.

    Raises:
        celery.exceptions.Retry: Always, to end this delivery, unless one of the following.
        celery.exceptions.Reject: The broker is away; the message stays with it.
        DeferralExpired: The call has waited for longer than this kind of waiting may last.
    """
    so_far = waited(call, waits)
    if so_far > waits.longest:
        raise DeferralExpired(f"{call.name}[{call.id}] was put off for {so_far:.0f} s: {reason}") from reason
    told = {"policy": policy, "key": key, "copy": False, **detail}
    again = _Comeback(delay=delay, headers=headers or {}, waits=waits, spot=spot, countdown=countdown)
    when = _put_off(call, reason, again, **told)
    raise PutOff.because(reason, when)


def postpone_copy(
    call: Call, delay: float, reason: Refused, *, policy: str, key: str | None = None
) -> NoReturn:
    """Put off a redelivered copy of a task that another delivery is working on.

    The copy is kept, since it is all there is if that delivery dies; but the task's state is the
    other's to write, so nothing shows.

    Raises:
        PutOffUnseen: Always, to end this delivery, unless
        celery.exceptions.Reject: the broker is away.
    """
    again = _Comeback(delay=delay, waits=CONFLICT, unseen=True)
    _put_off(call, reason, again, policy=policy, key=key, copy=True)
    raise PutOffUnseen(str(reason))


def try_again(call: Call, delay: float, error: Exception, headers: Mapping[str, Any]) -> NoReturn:
    """Have a call that failed run once more: the next of its retries, and no deferral.

    Args:
        call: The running call.
        delay: Seconds.
        error: Why; it is what the result's state shows meanwhile.
        headers: What is to be remembered of this attempt.

    Raises:
        celery.exceptions.Retry: Always, to end this delivery, unless
        celery.exceptions.Reject: the broker is away.
    """
    request = call.request
    if request.is_eager:
        request.retries = (request.retries or 0) + 1
        request.headers = {**call.headers, **headers}
        raise EagerWait(delay)
    leave_all(call)  # what it waited for before this attempt is history
    countdown = _send_on(call, error, _Comeback(delay=delay, headers=headers, more_retries=1))
    raise PutOff.because(error, countdown)


def put_back(
    call: Call, delay: float, reason: Exception, headers: Mapping[str, Any], *, unseen: bool = False
) -> NoReturn:
    """Publish a call that has ended once more, with a note for whoever gets it; it counts as nothing.

    Args:
        call: The call.
        delay: Seconds.
        reason: Why.
        headers: The note.
        unseen: Whether Celery has reported the end, so that the task's state must stay as it is.

    Raises:
        celery.exceptions.Retry: Always, to end this delivery, unless
        PutOffUnseen: nothing of it may show, or
        celery.exceptions.Reject: the broker is away.
    """
    countdown = _send_on(call, reason, _Comeback(delay=delay, headers=headers, unseen=unseen))
    if unseen:
        raise PutOffUnseen(str(reason))
    raise PutOff.because(reason, countdown)


def publish_copy(call: Call, delay: float, headers: Mapping[str, Any]) -> None:
    """As :func:`put_back`, where Celery has reported the end already: this delivery goes on.

    Raises:
        kombu.exceptions.KombuError: The broker is away, or ``OSError``.
    """
    kept = {name: value for name, value in call.headers.items() if not is_of_one_delivery(name)}
    copy_of(call, whole_seconds_for_quorum(call.app, delay), {**kept, **headers}).apply_async()


def still_waiting(call: Call) -> float:
    """Seconds that a hopping task has yet to wait; 0 for any other."""
    wake = call.headers.get(WAKE_HEADER)
    return max(0.0, float(wake) - time.time()) if wake else 0.0


def hop(call: Call, delay: float) -> NoReturn:
    """Send a task that came back from one hop on to its next; it is the same deferral.

    Raises:
        celery.exceptions.Retry: Always, unless
        PutOffUnseen: it is a redelivered copy, or
        celery.exceptions.Reject: the broker is away.
    """
    unseen = UNSEEN_HEADER in call.headers
    reason = Refused("waiting", delay)
    countdown = _send_on(call, reason, _Comeback(delay=delay, unseen=unseen))
    if unseen:
        raise PutOffUnseen(str(reason))
    raise PutOff.because(reason, countdown)


def _put_off(
    call: Call,
    reason: Exception,
    again: _Comeback,
    *,
    policy: str,
    key: str | None,
    **detail: Any,
) -> float:
    """Have the call come once more and tell so; an eager call has nowhere to wait, and waits in place."""
    waits = cast("Wait", again.waits)
    is_eager = call.request.is_eager
    delay = again.soonest() if is_eager else _send_on(call, reason, again)
    told = {"delay": delay, "deferrals": deferrals(call, waits) + 1, "reason": str(reason), **detail}
    emit(Event(kind="deferred", policy=policy, task=call.name, task_id=call.id, key=key, detail=told))
    if is_eager:
        raise EagerWait(delay)
    return delay


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comeback:
    """How a call comes once more.

    Args:
        delay: Seconds.
        headers: What policies want to find among its headers.
        waits: The kind of waiting; ``None`` where it is none.
        unseen: Whether it is a copy, whose waiting must not show.
        more_retries: 1 for a retry.
        spot: Where in the waiting room it waits.
        countdown: How long it waits where there is no room, if that is not ``delay``.
    """

    delay: float
    headers: Mapping[str, Any] = field(default_factory=dict)
    waits: Wait | None = None
    unseen: bool = False
    more_retries: int = 0
    spot: parking.Spot | None = None
    countdown: Callable[[], float] | None = None

    def soonest(self) -> float:
        """Seconds that it waits as a countdown."""
        return self.countdown() if self.countdown else self.delay


def _send_on(call: Call, reason: Exception, again: _Comeback) -> float:
    """Park the call, or publish it with a countdown, or with that of its first hop; how long it waits."""
    headers = {name: value for name, value in call.headers.items() if not is_of_one_delivery(name)}
    headers |= again.headers
    if again.waits is not None:
        count_one(call, headers, again.waits)
    if not again.unseen:
        show_retry(call, reason)
    parked = copy_of(call, None, dict(headers), again.more_retries)
    if parking.park(call, parked, again.delay, again.spot):
        return again.delay
    entry = (parked.options.get("headers") or {}).get(parking.ENTRY_HEADER)
    if entry:  # it may be parked all the same
        headers[parking.ENTRY_HEADER] = entry
    delay, cap = again.soonest(), longest_wait(call.app)
    if delay > cap:
        headers[WAKE_HEADER] = time.time() + delay
        if again.unseen:
            headers[UNSEEN_HEADER] = True
    countdown = whole_seconds_for_quorum(call.app, min(delay, cap))
    publish_or_keep(call, copy_of(call, countdown, headers, again.more_retries))
    return countdown
