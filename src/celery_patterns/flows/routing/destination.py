"""Where a call goes that names its destination itself: by its caller, its task's attributes, or a retry.

A destination is taken or left whole. Celery would add the ``routing_key`` of a rule to the ``queue`` of a
caller, and the message would reach neither.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

DESTINATION: Final = ("queue", "exchange", "exchange_type", "routing_key")

_DELAY_EXCHANGE: Final = re.compile(r"(?:.*_)?celery_delayed_(?:\d+|delivery)$")
_DELAY_PREFIX: Final = re.compile(r"(?:[01]\.)+")


def is_settled(options: Mapping[str, Any]) -> bool:
    """Whether the options alone say where the message goes."""
    return bool(options.get("queue") or (options.get("exchange") and options.get("routing_key")))


def is_republished(options: Mapping[str, Any]) -> bool:
    """Whether a running task publishes itself again: a retry, or a postponement.

    Only ``signature_from_request`` passes the ``origin`` of the first message on.
    """
    return "origin" in options and is_settled(options)


def completing_queue(options: dict[str, Any], app: Celery) -> dict[str, str]:
    """The queue behind settled options that do not name one, as a route.

    A message that came through a topic exchange is retried with its exchange and routing key. With quorum
    queues Celery computes the key of a delayed message from a queue, and takes the default queue's if the
    options have none: the retry would move there. One that was delayed before even carries the exchange of
    the delay, which is taken out of ``options`` here, lest it be delayed a second time.
    """
    if options.get("queue"):
        return {}
    exchange = getattr(options["exchange"], "name", options["exchange"])
    routing_key = options["routing_key"]
    was_delayed = bool(_DELAY_EXCHANGE.match(exchange))
    if was_delayed:
        routing_key = _DELAY_PREFIX.sub("", routing_key, count=1)
    for name, queue in app.amqp.queues.items():
        if queue.routing_key == routing_key and (was_delayed or queue.exchange.name == exchange):
            if was_delayed:
                del options["exchange"], options["routing_key"]
            return {"queue": name}
    return {"queue": app.conf.task_default_queue}
