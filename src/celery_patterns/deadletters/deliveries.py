"""Counting the deliveries of one task that began its body and vanished: the mark of a poison message.

A task that kills its worker reports nothing. So each delivery leaves a sign of life in Redis when
its body begins, renews it meanwhile, and takes it back when the body ends, however it ends: what
throttles, conflicts or fails is no poison. A sign whose time has run out belongs to a delivery that
vanished; the worker's parent, where it lives on, ends the sign of a lost process at once.

::

    begun --renewed every third of LIFE--> taken back when the body has ended
      |
      +-- its process dies --> not renewed for LIFE, or ended by the parent: vanished

Between a death and the end of its sign nobody can tell whether that delivery lives. Where the answer
matters (with it, the most that may vanish is reached) the next delivery waits for it.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from celery_patterns.core.lease import Lease, keeper
from celery_patterns.core.redelivery import redelivery_timeout
from celery_patterns.core.script import Ask, Script
from celery_patterns.core.store import store_of
from celery_patterns.errors import StoreUnavailable

if TYPE_CHECKING:
    from celery import Celery

    from celery_patterns.core.store import Store

LIFE = 10.0
"""Seconds without a sign of life after which a delivery has vanished."""
AWAY = 5.0
"""Seconds for which a store that did not answer is not asked again by those who can do without."""

_begin = Script("delivery_begin")
_end = Script("delivery_end")
_lost = Script("delivery_lost")
_renew = Script("delivery_renew")

_away_until = 0.0


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


class Poison(NamedTuple):
    """So many deliveries have vanished that the body must not begin again."""

    vanished: int


class Unsure(NamedTuple):
    """That may be so: it is known in ``seconds``, unless a delivery lives on."""

    seconds: float


def begin(app: Celery, task_id: str, delivery: str, most: int) -> Sign | Poison | Unsure:
    """Begin a body, if fewer than ``most`` deliveries of the task have vanished.

    Raises:
        StoreUnavailable: Nobody knows.
    """
    global _away_until  # noqa: PLW0603 - what this process knows of its store
    store, keep = store_of(app), _keep(app)
    try:
        answer = _begin(store, [_key(store, task_id)], [delivery, most, _ms(LIFE), _ms(keep)])
    except StoreUnavailable:
        _away_until = monotonic() + AWAY
        raise
    if answer[0] == b"poison":
        return Poison(int(answer[1]))
    if answer[0] == b"unsure":
        return Unsure(int(answer[1]) / 1000)
    sign = Sign(store=store, key=_key(store, task_id), owner=delivery, fence=0, length=LIFE, keep=keep)
    keeper.hold(sign)
    return sign


def is_away() -> bool:
    """Whether the store did not answer a moment ago."""
    return monotonic() < _away_until


def end(app: Celery, task_id: str, delivery: str, sign: Sign | None = None) -> None:
    """A delivery has reported an end: forget it, and all that have vanished before.

    Raises:
        StoreUnavailable: Then the sign runs out by itself, and counts as vanished.
    """
    if sign is not None:
        keeper.drop(sign)
    ending(app, task_id, delivery).now()


def ending(app: Celery, task_id: str, delivery: str) -> Ask[Any]:
    """:func:`end`, not yet done."""
    store = store_of(app)
    return Ask(_end, store, (_key(store, task_id),), (delivery,), int)


def lost(app: Celery, task_id: str, delivery: str) -> None:
    """The process of a delivery is gone.

    Raises:
        StoreUnavailable: Then its sign runs out by itself.
    """
    store = store_of(app)
    _lost(store, [_key(store, task_id)], [delivery, _ms(_keep(app))])


def _key(store: Store, task_id: str) -> str:
    return store.key("deliveries", task_id)


def _keep(app: Celery) -> float:
    return max(86_400.0, 2 * redelivery_timeout(app))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
