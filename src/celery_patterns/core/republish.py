"""A running call as a message once more: with the same id, retries, canvas, links, priority and limits."""

from __future__ import annotations

import logging
import math
import re
import time
from typing import TYPE_CHECKING, Any

from celery.exceptions import Reject
from celery.utils.quorum_queues import detect_quorum_queues
from kombu.exceptions import LimitExceeded, OperationalError
from kombu.serialization import registry  # type: ignore[attr-defined]

from celery_patterns.core import parking
from celery_patterns.core.policy import CONTENT_HEADER, NONCE_HEADER
from celery_patterns.core.redelivery import publishes_to_rabbitmq

if TYPE_CHECKING:
    from celery.canvas import Signature

    from celery_patterns.core.policy import Call

logger = logging.getLogger("celery_patterns")

WAKE_HEADER = "cp-wake-at"
"""Until when a long wait hops, in seconds since the epoch."""

UNSEEN_HEADER = "cp-unseen"
"""Set while a redelivered copy hops: the task's state is another delivery's to write."""

_ONE_DELIVERYS = {NONCE_HEADER, CONTENT_HEADER, WAKE_HEADER, UNSEEN_HEADER, "redelivered", "delivery_info"}
_ONE_DELIVERYS |= set(parking.OF_A_RELEASE)
_BROKERS_OWN = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
_DELAY = re.compile(r"^(?:(?:[01]\.){28})+")
"""What RabbitMQ's own delays put before a routing key."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0
_AWAY = (OperationalError, LimitExceeded, OSError)
"""What publishing raises when it is worth trying again. A message that no broker would take fails."""


def is_of_one_delivery(header: str) -> bool:
    """Whether a header says something about this very delivery, and nothing about the next one."""
    return header in _ONE_DELIVERYS or header.startswith(_BROKERS_OWN)


def copy_of(
    call: Call, countdown: float | None, headers: dict[str, Any], more_retries: int = 0
) -> Signature[Any]:
    """The call once more, as a message.

    Args:
        call: The running call.
        countdown: Seconds; ``None`` for one that waits elsewhere.
        headers: All of its headers.
        more_retries: 1 for a retry.
    """
    request = call.request
    extra = {}
    if "ignore_result" in vars(request):
        extra["ignore_result"] = request.ignore_result
    serializer = registry.type_to_name.get(getattr(request, CONTENT_HEADER, None))
    if serializer is not None:
        extra["serializer"] = serializer
    signature: Signature[Any] = call.task.signature_from_request(
        request,
        call.args,
        call.kwargs,
        queue=_queue_of(call),
        countdown=countdown,
        retries=(request.retries or 0) + more_retries,
        headers=headers,
        add_to_parent=False,
        **extra,
    )
    return signature


def _queue_of(call: Call) -> str | None:
    """The queue that a delivery came from by way of an exchange, where that can be told.

    Celery would send the next one to the same exchange by the same key; but if it is delayed by
    RabbitMQ itself, it would go by the key of the default queue.
    """
    delivery = call.request.delivery_info or {}
    exchange, key = delivery.get("exchange"), delivery.get("routing_key")
    if not exchange or not key:
        return None  # from the default exchange, where the key is the queue: Celery knows that
    original = _DELAY.sub("", key)
    for name, queue in call.app.amqp.queues.items():
        if queue.routing_key == original and (original != key or queue.exchange.name == exchange):
            return str(name)
    return None


def whole_seconds_for_quorum(app: Any, countdown: float) -> float:
    """RabbitMQ's quorum queues delay by whole seconds only, and refuse to publish a fraction."""
    if not publishes_to_rabbitmq(app):
        return countdown
    return float(math.ceil(countdown)) if detect_quorum_queues(app, "amqp")[0] else countdown


def publish_or_keep(call: Call, signature: Signature[Any]) -> None:
    """Publish, or keep the message alive by the means that its acknowledgement allows.

    Acknowledged late, the broker still has it: hand it back after a pause. Acknowledged early, it
    exists here only: try until it is published, or until this process is told to end.
    """
    pause = _FIRST_PAUSE
    while True:
        try:
            signature.apply_async()
        except _AWAY as error:
            if call.task.acks_late:
                logger.warning(
                    "Cannot put off %s[%s], handing it back to the broker: %s", call.name, call.id, error
                )
                time.sleep(_LONGEST_PAUSE)
                raise Reject(error, requeue=True) from error
            logger.warning(
                "Cannot put off %s[%s], trying again in %s s: %s", call.name, call.id, pause, error
            )
        else:
            return
        try:
            time.sleep(pause)
        except BaseException:
            logger.critical("Lost %s[%s], which no broker took: %r", call.name, call.id, signature)
            raise
        pause = min(pause * 2, _LONGEST_PAUSE)
