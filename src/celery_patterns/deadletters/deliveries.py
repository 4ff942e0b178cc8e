"""Counting the deliveries of one task that began its body and vanished: the mark of a poison message.

A task that kills its worker reports nothing. So a delivery that is not a task's first leaves a sign
of life in Redis while its body runs, and removes all of them when the body ends, however it ends:
what throttles, conflicts or fails is no poison. A sign whose time has run out belongs to a delivery
that vanished. A first delivery leaves no sign, which keeps the common path free of round trips: if
its child process dies, the worker's parent writes the sign; if the whole worker dies, that one
death goes uncounted.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from celery_patterns.core.lease import Lease, keeper
from celery_patterns.core.postpone import redelivery_timeout
from celery_patterns.core.script import Script
from celery_patterns.core.store import store_of

if TYPE_CHECKING:
    from celery import Celery

    from celery_patterns.core.store import Store

LIFE = 10.0
"""Seconds without a sign of life after which a delivery has vanished."""

_begin = Script("delivery_begin")
_lost = Script("delivery_lost")
_renew = Script("delivery_renew")


class Sign(Lease):
    """A delivery's sign of life, renewed as leases are; several may stand side by side."""

    def renew(self) -> bool:
        """Give the sign another full length.

        Raises:
            StoreUnavailable: Nobody knows whether it is there.
        """
        asked = monotonic()
        if _renew(self.store, [self.key], [self.owner, _ms(self.length), _ms(self.keep)]) == b"lost":
            return False
        self._extend(asked)
        return True


def begin(app: Celery, task_id: str, delivery: str, most: int) -> Sign | int:
    """Begin a body; or how many deliveries have vanished, where that is ``most`` or more.

    Raises:
        StoreUnavailable: Nobody knows.
    """
    store, keep = store_of(app), _keep(app)
    vanished = int(_begin(store, [_key(store, task_id)], [delivery, most, _ms(LIFE), _ms(keep)]))
    if vanished >= most:
        return vanished
    sign = Sign(store=store, key=_key(store, task_id), owner=delivery, fence=0, length=LIFE, keep=keep)
    keeper.hold(sign)
    return sign


def end(app: Celery, task_id: str, sign: Sign | None = None) -> None:
    """The task has reported an end: forget all its deliveries.

    Raises:
        StoreUnavailable: Then the signs run out by themselves.
    """
    if sign is not None:
        keeper.drop(sign)
    store = store_of(app)
    with store.reporting():
        store.client.delete(_key(store, task_id))


def lost(app: Celery, task_id: str, delivery: str) -> None:
    """The process of a delivery is gone.

    Raises:
        StoreUnavailable: Then a sign, if it left one, runs out by itself.
    """
    store = store_of(app)
    _lost(store, [_key(store, task_id)], [delivery, _ms(_keep(app))])


def _key(store: Store, task_id: str) -> str:
    return store.key("deliveries", task_id)


def _keep(app: Celery) -> float:
    return max(86_400.0, 2 * redelivery_timeout(app))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
