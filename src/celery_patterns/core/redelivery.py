"""When a broker delivers a message again that was not acknowledged, and so how long one may wait."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

T = TypeVar("T")

_REDIS_VISIBILITY = 3600.0
_RABBITMQ_CONSUMER = 1800.0
_SHARE = 0.45


def _once_per_app(look_up: Callable[[Celery], T]) -> Callable[[Celery], T]:
    """Look it up once, as Celery does when it connects: each look at a setting takes microseconds."""
    known: WeakKeyDictionary[Celery, T] = WeakKeyDictionary()

    @wraps(look_up)
    def found(app: Celery) -> T:
        if app not in known:
            known[app] = look_up(app)
        return known[app]

    return found


@_once_per_app
def redelivery_timeout(app: Celery) -> float:
    """After how many seconds the app's broker delivers again what was not acknowledged."""
    options = app.conf.broker_transport_options or {}
    default = _RABBITMQ_CONSUMER if is_rabbitmq(app.conf.broker_read_url) else _REDIS_VISIBILITY
    return float(options.get("visibility_timeout", default))


@_once_per_app
def publishes_to_rabbitmq(app: Celery) -> bool:
    """Whether the app's messages go to RabbitMQ."""
    return is_rabbitmq(app.conf.broker_write_url)


def is_rabbitmq(url: str | list[str] | None) -> bool:
    """Whether a broker's URL, or the first of several, is one of RabbitMQ, as it is by default."""
    first = url if isinstance(url, str) or not url else url[0]
    return str(first or "amqp").partition(":")[0] in {"amqp", "amqps", "pyamqp"}


def longest_wait(app: Any) -> float:
    """The longest countdown, in seconds, that the app's broker carries without redelivering it."""
    return redelivery_timeout(app) * _SHARE
