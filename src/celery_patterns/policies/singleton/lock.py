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
of it does (owner ``A/<nonce>``), under a lease. One other call may have the turn after it (``next``):
the longest waiter where conflicts are deferred, the newest where the newest counts.

Beside the lock stand markers, one for each task id that is through with it: it ``ended``, or was
``replaced`` by another before it began. By them a copy that the broker delivers late is known.
"""

from __future__ import annotations

from dataclasses import dataclass

from celery_patterns.core.lease import lapse, task_id_of
from celery_patterns.core.script import Script
from celery_patterns.core.store import Store, tag
from celery_patterns.errors import StoreVersionError

KIND = "singleton"

_queue = Script("singleton_queue")
_begin = Script("singleton_begin")
_end = Script("singleton_end")


@dataclass(frozen=True, slots=True)
class Queued:
    """The lock, or the turn after its holder's, is the call's.

    Args:
        at: When it arrived, in microseconds of the server's clock.
    """

    at: int


@dataclass(frozen=True, slots=True)
class Started:
    """The lock is this delivery's. ``lapsed`` names the delivery that vanished before it, if one did."""

    fence: int
    lapsed: str | None


@dataclass(frozen=True, slots=True)
class Held:
    """Another has the lock, for ``left`` more seconds unless it says more; ``turn``: then it is ours."""

    owner: str
    left: float
    turn: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """An earlier delivery of this very task ended, ``age`` seconds ago."""

    age: float


@dataclass(frozen=True, slots=True)
class Replaced:
    """A newer call took this task's place before it began."""

    by: str


@dataclass(frozen=True, slots=True)
class Over:
    """The task whose result is waited for ended ``age`` seconds ago."""

    age: float


@dataclass(frozen=True, slots=True)
class Moved:
    """The task whose result is waited for was replaced."""

    by: str


Beginning = Started | Held | Ended | Replaced | Over | Moved


@dataclass(frozen=True, slots=True, kw_only=True)
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
        word, what, *rest = _queue(
            self.store,
            [self.key, self._marker(task_id)],
            [task_id, _ms(queued), self.on_conflict, _ms(self.remember), self.host],
        )
        if word == b"queued":
            return Queued(int(what))
        self._check_version(word, what)
        return Held(what.decode(), rest[0] / 1000)

    def begin(
        self,
        owner: str,
        *,
        follows: str | None = None,
        again: bool = False,
        at: int | None = None,
        waited: float = 0.0,
        turn: float = 0.0,
    ) -> Beginning:
        """Take it for a delivery, or learn why not.

        Args:
            owner: The delivery.
            follows: The task whose result it waits for.
            again: Run also if an earlier delivery of the task ended.
            at: When it was published, as :meth:`queue` said.
            waited: How long it has been waiting, where nobody said.
            turn: How long its turn is kept for it, if it gets the next one.

        Raises:
            StoreUnavailable: Nobody knows who has it.
            StoreVersionError: A newer version of the library wrote it.
        """
        task_id = task_id_of(owner)
        answer = _begin(
            self.store,
            [self.key, self._marker(task_id), self._marker(follows or task_id)],
            [
                owner,
                _ms(self.lease),
                _ms(self.keep),
                self.on_conflict,
                int(again),
                "" if at is None else at,
                _ms(waited),
                _ms(turn),
                _ms(self.remember),
                self.host,
            ],
        )
        word, *what = answer
        match word:
            case b"started":
                return Started(int(what[0]), what[1].decode() if what[1] else None)
            case b"held":
                return Held(what[0].decode(), what[1] / 1000, bool(what[2]))
            case b"ended":
                return Ended(what[0] / 1000)
            case b"over":
                return Over(what[0] / 1000)
        self._check_version(word, what[0])
        return (Replaced if word == b"replaced" else Moved)(what[0].decode())

    def release(self, owner: str, fence: int | None, *, ended: bool, grace: float = 0.0) -> str | None:
        """Give it up; returns the owner that has taken it over, if one has.

        Args:
            owner: The delivery.
            fence: Of its lease; ``None`` for whatever the task holds, in the queue or as this delivery.
            ended: Whether to remember that the task ended.
            grace: For how many seconds the delivery may still be running.

        Raises:
            StoreUnavailable: Asking again is safe.
        """
        return self._end(owner, fence, "free", self.remember if ended else 0.0, grace)

    def hand_back(self, owner: str, fence: int | None, queued: float) -> str | None:
        """Give it from a delivery back to its task, which comes again within ``queued``.

        Raises:
            StoreUnavailable: Asking again is safe.
        """
        return self._end(owner, fence, "queue", queued, 0.0)

    def lapse(self, owner: str, grace: float) -> None:
        """End the lease of a delivery whose process is gone, ``grace`` seconds from now at the latest.

        Raises:
            StoreUnavailable: Then the lease runs out by itself.
        """
        lapse(self.store, self.key, owner, grace)

    def _end(self, owner: str, fence: int | None, how: str, lasting: float, grace: float) -> str | None:
        answer = _end(
            self.store,
            [self.key, self._marker(task_id_of(owner))],
            [owner, "" if fence is None else fence, how, _ms(lasting), _ms(grace)],
        )
        return answer[1].decode() if answer[0] == b"lost" else None

    def _marker(self, task_id: str) -> str:
        return f"{self.key}:ended:{task_id}"

    def _check_version(self, word: bytes, version: bytes) -> None:
        if word == b"version":
            raise StoreVersionError(
                f"{self.key} has version {version.decode()}; this library reads version 1"
            )


def lock_key(store: Store, name: str, key: str, kind: str = KIND) -> str:
    """The key in Redis of the lock for ``key`` under ``name``."""
    return store.key(kind, tag(name), key)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
