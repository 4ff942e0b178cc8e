"""When a broker delivers a message again that was not acknowledged, and so how long one may wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from celery import Celery

_REDIS_VISIBILITY = 3600.0
_RABBITMQ_CONSUMER = 1800.0
_SHARE = 0.45


def redelivery_timeout(app: Celery) -> float:
    """After how many seconds the app's broker delivers again what was not acknowledged.

    Looked up once, as by Celery when it connects: each look at a setting takes microseconds.
    """
    known = _redelivery.get(app)
    if known is None:
        known = _redelivery[app] = _redelivery_timeout(app)
    return known


_redelivery: WeakKeyDictionary[Celery, float] = WeakKeyDictionary()


def _redelivery_timeout(app: Celery) -> float:
    options = app.conf.broker_transport_options or {}
    default = _RABBITMQ_CONSUMER if is_rabbitmq(app.conf.broker_read_url) else _REDIS_VISIBILITY
    return float(options.get("visibility_timeout", default))


def is_rabbitmq(url: str | list[str] | None) -> bool:
    """Whether a broker's URL, or the first of several, is one of RabbitMQ, as it is by default."""
    first = url if isinstance(url, str) or not url else url[0]
    return str(first or "amqp").partition(":")[0] in {"amqp", "amqps", "pyamqp"}


def publishes_to_rabbitmq(app: Celery) -> bool:
    """Whether the app's messages go to RabbitMQ; looked up once, as above."""
    known = _to_rabbitmq.get(app)
    if known is None:
        known = _to_rabbitmq[app] = is_rabbitmq(app.conf.broker_write_url)
    return known


_to_rabbitmq: WeakKeyDictionary[Celery, bool] = WeakKeyDictionary()


def longest_wait(app: Any) -> float:
    """The longest countdown, in seconds, that the app's broker carries without redelivering it."""
    return redelivery_timeout(app) * _SHARE
