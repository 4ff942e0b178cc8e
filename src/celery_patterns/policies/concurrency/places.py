"""The places under a concurrency limit in Redis, and the line of those who wait for one.

::

               acquire                          release
    waiting ------------> holding (a lease) ------------------> gone; "ended" is remembered
     |    ^                 |        |
     |    | looks again     |        +-- until passes --> lapsed: the next who asks gets the place
     +----+                 |
     |                      +-- retry, deferral --> gone, and comes again
     +-- does not look again in time --> out of the line

A set of owners, never a counter: a place is held by a task id under a lease of its own, and whoever
vanishes gives it back when that has run out. A free place is for those who have waited longest: with
``k`` places free, the first ``k`` of the line may have them, and whoever comes new is behind them.
Someone in the line who does not look again when he said he would is out of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from celery_patterns.core.lease import Lease, task_id_of
from celery_patterns.core.script import Ask, Script
from celery_patterns.core.store import Store, tag
from celery_patterns.core.waits import PACE
from celery_patterns.errors import StoreVersionError

if TYPE_CHECKING:
    from collections.abc import Iterable

KIND = "concurrency_limit"

VERSION = "1"
"""Of what is stored; see the reference of the Redis keys."""

LOOK_SLACK = 5.0
"""Seconds by which a look may be late: the way through the broker, and a queue that is not empty."""

_acquire = Script("concurrency_acquire")
_release = Script("concurrency_release")


class Started(NamedTuple):
    """A place is this delivery's. ``lapsed`` names a delivery that vanished from one, if one did."""

    fence: int
    lapsed: str | None


class Copy(NamedTuple):
    """Another delivery of this very task holds a place, for ``left`` more seconds unless it says more."""

    owner: str
    left: float


class Ended(NamedTuple):
    """An earlier delivery of this very task ended, ``age`` seconds ago, in its ``replay``."""

    age: float
    replay: int


class Full(NamedTuple):
    """All places are taken, or promised to the ``ahead`` who wait for longer; look again in ``wait`` s.

    Args:
        wait: Seconds.
        ahead: How many wait for longer.
        next: The task ids of those among them for whom places are free.
    """

    wait: float
    ahead: int
    next: tuple[str, ...] = ()


class GivenBack(NamedTuple):
    """A place was given up: whether it was still this delivery's, and who may have one that is free."""

    kept: bool
    next: tuple[str, ...] = ()


Answer = Started | Copy | Ended | Full


@dataclass(slots=True, kw_only=True)
class Places:
    """The places under one limit, as one policy sees them. All durations in seconds.

    Args:
        store: Where they are.
        key: The limit's key in Redis.
        limit: How many there are.
        lease: How long one is held without a sign of life.
        remember: How long it is remembered that a task ended.
        host: Who asks, for operators.
    """

    store: Store
    key: str
    limit: int
    lease: float
    remember: float
    host: str = ""
    _terms: tuple[int, int, int, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._terms = _ms(self.lease), _ms(self.keep), self.limit, self.host

    @property
    def keep(self) -> float:
        """How long a place is on record after its last renewal."""
        return self.lease * 2

    def acquire(self, owner: str, **terms: Any) -> Answer:
        """Take a place if one is free and nobody waits for it; ``terms`` as in :meth:`acquiring`.

        Raises:
            StoreUnavailable: Nobody knows.
            StoreVersionError: A newer version of the library wrote the limit.
        """
        return self.acquiring(owner, **terms).now()

    def acquiring(
        self, owner: str, *, again: bool = False, waited: float = 0.0, near: float = 0.0, far: float = 0.0
    ) -> Ask[Answer]:
        """:meth:`acquire`, not yet done. Where none is free, it is to wait in line for one.

        Args:
            owner: The delivery.
            again: Run also if an earlier delivery of the task ended.
            waited: For how long it has been waiting.
            near: When it would look again if its turn is next; 0 if it would not.
            far: When it would look again at the latest; see :data:`~celery_patterns.core.waits.PACE`.
        """
        args: tuple[str | int, ...] = (owner, *self._terms)
        if again or near:
            args += ("again" if again else "",)
        if near:
            args += (_ms(waited), _ms(near), _ms(far), _ms(LOOK_SLACK), _ms(PACE))
        return Ask(_acquire, self.store, self._keys(owner), args, self._acquired)

    def _acquired(self, answer: Any) -> Answer:
        return Started(answer, None) if type(answer) is int else self._understood(*answer)

    def _understood(self, word: bytes, first: Any, *rest: Any) -> Answer:
        match word:
            case b"full":
                return Full(first / 1000, rest[0], _ids(rest[1]))
            case b"copy":
                return Copy(first.decode(), rest[0] / 1000)
            case b"lapsed":
                return Started(int(first), rest[0].decode())
            case b"ended":
                return Ended(max(0.0, self.remember - first / 1000), rest[0])
        raise StoreVersionError(
            f"{self.key} was written by a newer version of celery-patterns: {first!r} (this reads {VERSION})"
        )

    def release(
        self, owner: str, fence: int | None, *, ended: bool, replay: int = 0, grace: float = 0.0
    ) -> bool:
        """As :meth:`give_back`; whether it was still this delivery's."""
        return self.give_back(owner, fence, ended=ended, replay=replay, grace=grace).kept

    def give_back(
        self, owner: str, fence: int | None, *, ended: bool, replay: int = 0, grace: float = 0.0
    ) -> GivenBack:
        """Give the place up.

        Args:
            owner: The delivery.
            fence: Of its lease; ``None`` for whatever it has, also in the line.
            ended: Whether to remember that the task ended.
            replay: Which replay of a dead letter that was; 0 for none.
            grace: For how many seconds the delivery may still be running.

        Raises:
            StoreUnavailable: Asking again is safe.
        """
        return self.giving_back(owner, fence, ended=ended, replay=replay, grace=grace).now()

    def giving_back(
        self, owner: str, fence: int | None, *, ended: bool, replay: int = 0, grace: float = 0.0
    ) -> Ask[GivenBack]:
        """:meth:`give_back`, not yet done."""
        args: tuple[str | int, ...] = (
            owner,
            "" if fence is None else fence,
            _ms(self.remember) if ended else 0,
            self.limit,
        )
        if grace or replay:
            args += (_ms(grace), replay)
        return Ask(
            _release,
            self.store,
            self._keys(owner),
            args,
            _given_back,
        )

    def lease_of(self, owner: str, fence: int, asked: float | None = None) -> Lease:
        """The lease of a place that was ``asked`` for then, on this process's clock; default: now."""
        return Lease(
            store=self.store,
            key=self._keys(owner)[1],
            owner=owner,
            fence=fence,
            length=self.lease,
            keep=self.keep,
            among=f"{self.key}:held",
            asked=asked,
        )

    def _keys(self, owner: str) -> tuple[str, str, str]:
        task_id = task_id_of(owner)
        return self.key, f"{self.key}:held:{task_id}", self.marker(task_id)

    def marker(self, task_id: str) -> str:
        """The key in Redis that says that a task has ended."""
        return f"{self.key}:ended:{task_id}"


def limit_key(store: Store, name: str, key: str | None) -> str:
    """The key in Redis of the limit ``name``, or of its part for ``key``."""
    return store.key(KIND, tag(name)) if key is None else store.key(KIND, tag(name), key)


def _given_back(answer: Any) -> GivenBack:
    kept, ids = (answer, ()) if isinstance(answer, int) else answer
    return GivenBack(kept=kept > 0, next=_ids(ids))


def _ids(found: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(one.decode() for one in found)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
