"""The lock of a singleton in Redis, and what may become of it.

::

              queue                     begin                      end
     free ------------> queued by A ------------> running by A ------------> free, or queued by N
      ^                  |  ^                        |   |                    (N: whose turn is next)
      |   failed publish |  |  retry, deferral,      |   |
      |   revoke, expiry |  |  lost pool process     |   | its worker is gone, the lease runs out
      +------------------+  +------------------------+   v
      ^                                               lapsed --- begin by another, higher fence ---> running
      |   queued_ttl past the time it was due            |
      +--------------------------------------------------+

While a message waits, the *task* holds the lock (owner ``A/``); while its body runs, one *delivery*
of it does (owner ``A/<nonce>``), under a lease. Where conflicts are deferred, the others stand in a line by
their arrival, and the turn after it is the first one's; who does not look again when he said he would is out
of the line. Where the newest counts, the turn is that one's (``next``).

Beside the lock stand markers, one for each task id that is through with it: it ``ended``, or was
``replaced`` by another before it began. By them a copy that the broker delivers late is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from celery_patterns.core.lease import lapse, task_id_of
from celery_patterns.core.script import Ask, Script
from celery_patterns.core.store import Store, tag
from celery_patterns.core.waits import PACE
from celery_patterns.errors import StoreVersionError

KIND = "singleton"

VERSION = "1"
"""Of what is stored; see the reference of the Redis keys."""

WAITING = frozenset({"defer", "replace", "keep_latest"})
"""The choices for a conflict by which one call waits for its own turn."""

_ENDED = -2
"""What a script says instead of how many are ahead."""

_SHARED = ("singleton_line",)
_queue = Script("singleton_queue", after=_SHARED)
_begin = Script("singleton_begin", after=_SHARED)
_keep = Script("singleton_keep")
_end = Script("singleton_end", after=_SHARED)


class Queued(NamedTuple):
    """The lock, or the turn after its holder's, is the call's.

    Args:
        at: When it arrived, in microseconds of the server's clock.
    """

    at: int


class Started(NamedTuple):
    """The lock is this delivery's. ``lapsed`` names the delivery that vanished before it, if one did."""

    fence: int
    lapsed: str | None


class Held(NamedTuple):
    """Another has the lock, for ``left`` more seconds unless it says more.

    Args:
        owner: Who.
        left: Seconds.
        ahead: How many have their turn before this one; ``None`` where it has none.
        ended: Whether the owner's task has ended; then its process may live for a moment still.
    """

    owner: str
    left: float
    ahead: int | None = None
    ended: bool = False

    @property
    def is_queued(self) -> bool:
        """Whether it is the owner's turn, which has yet to come."""
        return self.owner.endswith("/")


class Ended(NamedTuple):
    """An earlier delivery of this very task ended, ``age`` seconds ago, in its ``replay``."""

    age: float
    replay: int


class Replaced(NamedTuple):
    """A newer call took this task's place before it began."""

    by: str


class Over(NamedTuple):
    """The task whose result is waited for ended ``age`` seconds ago."""

    age: float


class Moved(NamedTuple):
    """The task whose result is waited for was replaced."""

    by: str


Beginning = Started | Held | Ended | Replaced | Over | Moved


class GivenBack(NamedTuple):
    """A lock was given up.

    Args:
        successor: The owner that had taken it over before, if one had; ``""`` if nobody has it any more.
        next: The task whose it is now, if its turn was next.
        awaited: Whether anybody may wait for it.
    """

    successor: str | None = None
    next: str | None = None
    awaited: bool = False


@dataclass(slots=True, kw_only=True)
class Lock:
    """One key's lock, as one policy sees it. All durations in seconds.

    Args:
        store: Where it is.
        key: Its key in Redis.
        on_conflict: What the policy does with conflicts: who gets the next turn.
        lease: How long a delivery holds it without a sign of life.
        remember: How long it is remembered that a task ended.
        host: Who asks, for operators.
    """

    store: Store
    key: str
    on_conflict: str
    lease: float
    remember: float
    host: str = ""
    _terms: tuple[int, int, str] = field(init=False, repr=False)
    _remember_ms: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._remember_ms = _ms(self.remember)
        self._terms = _ms(self.lease), _ms(self.keep), f"{VERSION} {self.host}"

    @property
    def keep(self) -> float:
        """How long the lock is there after its last renewal: a lapsed one tells who vanished."""
        return self.lease + self.remember

    def queue(self, task_id: str, queued: float) -> Queued | Held:
        """Take it for a task that is about to be published, and will be due within ``queued``.

        Raises:
            StoreUnavailable: Nobody knows who has it.
            StoreVersionError: A newer version of the library wrote it.
        """
        answer = _queue(
            self.store,
            (self.key, self.marker(task_id)),
            (task_id, _ms(queued), self.on_conflict, self._terms[2], self._remember_ms),
        )
        if isinstance(answer, int):
            return Queued(answer)
        word, what, *left = answer
        if word == b"version":
            raise self._newer(what)
        return Held(what.decode(), left[0] / 1000)

    def keep_queued(self, task_id: str, queued: float) -> bool:
        """Keep it for a task that will be due within ``queued`` from now on; whether it has it, or its turn.

        Raises:
            StoreUnavailable: It lasts as long as was said before.
        """
        return bool(_keep(self.store, (self.key,), (task_id, _ms(queued))))

    def begin(self, owner: str, **terms: Any) -> Beginning:
        """Take it for a delivery, or learn why not; ``terms`` as in :meth:`beginning`.

        Raises:
            StoreUnavailable: Nobody knows who has it.
            StoreVersionError: A newer version of the library wrote it.
        """
        return self.beginning(owner, **terms).now()

    def beginning(
        self,
        owner: str,
        *,
        follows: str | None = None,
        again: bool = False,
        at: int | None = None,
        waited: float = 0.0,
        turn: float = 0.0,
        most: float | None = None,
    ) -> Ask[Beginning]:
        """:meth:`begin`, not yet done.

        Args:
            owner: The delivery.
            follows: The task whose result it waits for.
            again: Run also if an earlier delivery of the task ended.
            at: When it was published, as :meth:`queue` said.
            waited: How long it has been waiting, where nobody said.
            turn: How long its turn is kept for it, if it gets the next one.
            most: How long its place in the line is kept for it at the most, if that is longer; see
                :data:`~celery_patterns.core.waits.PACE`.
        """
        keys: tuple[str, ...] = (self.key, f"{self.key}:ended:{task_id_of(owner)}")
        args: tuple[str | int, ...] = (owner, *self._terms)
        if follows is not None:
            keys += (self.marker(follows),)
        if again or self.on_conflict in WAITING:
            args += ("again" if again else "",)
        if self.on_conflict in WAITING:
            args += (self.on_conflict, at or "", _ms(waited), _ms(turn), self._remember_ms)
        if self.on_conflict == "defer":
            args += (_ms(turn if most is None else most), _ms(PACE))
        return Ask(_begin, self.store, keys, args, self._begun)

    def _begun(self, answer: Any) -> Beginning:
        return Started(answer, None) if type(answer) is int else self._understood(*answer)

    def _understood(self, word: bytes, first: Any, *rest: Any) -> Beginning:
        match word:
            case b"lapsed":
                return Started(int(first), rest[0].decode())
            case b"held":
                left, ahead = rest
                return Held(first.decode(), left / 1000, ahead if ahead >= 0 else None, ended=ahead == _ENDED)
            case b"ended":
                return Ended(max(0.0, self.remember - first / 1000), rest[0])
            case b"over":
                return Over(max(0.0, self.remember - first / 1000))
            case b"replaced":
                return Replaced(first.decode())
            case b"moved":
                return Moved(first.decode())
        raise self._newer(first)

    def release(
        self, owner: str, fence: int | None, *, ended: bool, replay: int = 0, grace: float = 0.0
    ) -> str | None:
        """As :meth:`give_back`; returns the owner that has taken it over, ``""`` if that is gone as well."""
        return self.give_back(owner, fence, ended=ended, replay=replay, grace=grace).successor

    def give_back(
        self, owner: str, fence: int | None, *, ended: bool, replay: int = 0, grace: float = 0.0
    ) -> GivenBack:
        """Give it up.

        Args:
            owner: The delivery.
            fence: Of its lease; ``None`` for whatever the task holds, in the queue or as this delivery.
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
        remember = self._remember_ms if ended else 0
        more = (_ms(grace), "", replay) if grace or replay else ()
        return self._ending(owner, fence, (remember, *more))

    def hand_back(self, owner: str, fence: int | None, queued: float) -> str | None:
        """Give it from a delivery back to its task, which comes again within ``queued``.

        Raises:
            StoreUnavailable: Asking again is safe.
        """
        return self.handing_back(owner, fence, queued).now().successor

    def handing_back(self, owner: str, fence: int | None, queued: float) -> Ask[GivenBack]:
        """:meth:`hand_back`, not yet done."""
        return self._ending(owner, fence, (0, 0, _ms(queued)))

    def lapse(self, owner: str, grace: float) -> None:
        """End the lease of a delivery whose process is gone, ``grace`` seconds from now at the latest.

        Raises:
            StoreUnavailable: Then the lease runs out by itself.
        """
        lapse(self.store, self.key, owner, grace)

    def _ending(self, owner: str, fence: int | None, times: tuple[int | str, ...]) -> Ask[GivenBack]:
        return Ask(
            _end,
            self.store,
            (self.key, f"{self.key}:ended:{task_id_of(owner)}"),
            (owner, "" if fence is None else fence, *times),
            _given_back,
        )

    def marker(self, task_id: str) -> str:
        """The key in Redis that says that a task is through with it."""
        return f"{self.key}:ended:{task_id}"

    def _newer(self, version: bytes) -> StoreVersionError:
        return StoreVersionError(
            f"{self.key} was written by a newer version of celery-patterns: {version!r} "
            f"(this reads {VERSION})"
        )


def _given_back(answer: Any) -> GivenBack:
    if isinstance(answer, int):
        return GivenBack(awaited=answer > 1)
    word, who = answer[0], answer[1].decode()
    return GivenBack(next=who, awaited=True) if word == b"next" else GivenBack(successor=who)


def lock_key(store: Store, name: str, key: str) -> str:
    """The key in Redis of the lock for ``key`` under ``name``."""
    return store.key(KIND, tag(name), key)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
