"""The record of one idempotency key in Redis, and what may become of it.

::

                 begin                        end(completed)
    absent ---------------> running(lease) ------------------> completed (result)
      ^                      |   |      ^                          |
      |   end(absent):       |   |      | begin by another,        | TTL
      +-- the body failed ---+   |      | higher fence             v
      |   or was put off         |      |                        absent
      |                          +-- lapsed (the holder is gone, its effect unknown)
      |                          |
      +--- TTL --- failed <------+  end(failed), only with ``cache_errors``
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from celery_patterns.core.lease import task_id_of
from celery_patterns.core.script import Ask, Script
from celery_patterns.core.store import tag
from celery_patterns.errors import StoreVersionError

if TYPE_CHECKING:
    from celery_patterns.core.store import Store

_begin = Script("idempotency_begin")
_end = Script("idempotency_end")

KIND = "idempotency"
VERSION = "1"
"""The version of records that this library writes; it stands before the fingerprint."""


class Started(NamedTuple):
    """The run is ours. ``lapsed`` names the holder that vanished before us, if there was one."""

    fence: int
    lapsed: str | None


class Running(NamedTuple):
    """Another delivery runs; its lease lasts ``left`` more seconds."""

    owner: str
    left: float


class Lapsed(NamedTuple):
    """The run vanished, and the policy says that a rerun is not for us to decide."""

    owner: str


class Reused(NamedTuple):
    """The key was used with other arguments, by ``owner``."""

    owner: str


class Ended(NamedTuple):
    """An earlier run ended, and this delivery has claimed the right to hand its result or error on.

    ``again`` says that an earlier delivery of the same task id may have handed it on before.
    """

    owner: str
    failed: bool
    end: bytes
    again: bool


class Claimed(NamedTuple):
    """Another delivery of the same task id is handing the result on, for ``left`` more seconds at most."""

    owner: str
    left: float


class Finished(NamedTuple):
    """A run was recorded, or forgotten.

    Args:
        successor: The run that holds the key by now, if it is another; then nothing was recorded.
        awaited: Whether anybody waits for it.
    """

    successor: str | None = None
    awaited: bool = False


Beginning = Started | Running | Lapsed | Reused | Ended | Claimed


@dataclass(slots=True, kw_only=True)
class Record:
    """One key's record, as one delivery sees it. All durations in seconds.

    Args:
        store: Where it is.
        key: Its key in Redis.
        owner: The delivery.
        fingerprint: Of the arguments.
        attempt: Which attempt of the task this is; it grows with retries and replays.
    """

    store: Store
    key: str
    owner: str
    fingerprint: str
    attempt: int

    @property
    def claim_key(self) -> str:
        """The key of this task's claim to hand on what the record says."""
        return f"{self.key}:to:{task_id_of(self.owner)}"

    def begin(self, *, lease: float, ttl: float, on_lapsed: str, claim: float) -> Beginning:
        """Take the key if it is free; else learn why not.

        Args:
            lease: How long the run, or a claim to hand on its result, lasts without a sign of life.
            ttl: How long the record lives after the lease.
            on_lapsed: ``"rerun"`` to take the key over from a run that vanished.
            claim: How long it is remembered that this task's result was handed on.

        Raises:
            StoreUnavailable: Nobody knows whether it is.
            StoreVersionError: A newer version of the library wrote the record.
        """
        return self.beginning(lease=lease, ttl=ttl, on_lapsed=on_lapsed, claim=claim).now()

    def beginning(self, *, lease: float, ttl: float, on_lapsed: str, claim: float) -> Ask[Beginning]:
        """:meth:`begin`, not yet done."""
        return Ask(
            _begin,
            self.store,
            (self.key, self.claim_key),
            (
                self.owner,
                f"{VERSION} {self.fingerprint}",
                _ms(lease),
                _ms(lease + ttl),
                on_lapsed,
                self.attempt,
                _ms(claim),
            ),
            self._begun,
        )

    def _begun(self, answer: Any) -> Beginning:
        return Started(answer, None) if isinstance(answer, int) else self._understood(*answer)

    def _understood(self, word: bytes, first: bytes, *rest: int | bytes) -> Beginning:
        match word, rest:
            case b"rerun", (bytes(owner),):
                return Started(int(first), owner.decode())
            case b"running", (int(left),):
                return Running(first.decode(), left / 1000)
            case b"claimed", (int(left),):
                return Claimed(first.decode(), left / 1000)
            case b"lapsed", ():
                return Lapsed(first.decode())
            case b"reused", ():
                return Reused(first.decode())
            case ((b"completed" | b"failed"), (bytes(end), int(again))):
                return Ended(first.decode(), word == b"failed", end, bool(again))
        raise StoreVersionError(
            f"{self.key} was written by a newer version of celery-patterns: {first!r} (this reads {VERSION})"
        )

    def complete(self, fence: int, end: bytes, ttl: float) -> Finished:
        """Record the result, unless another run holds the key by now.

        Raises:
            StoreUnavailable: It may or may not be recorded; asking again is safe.
        """
        return self.completing(fence, end, ttl).now()

    def completing(self, fence: int, end: bytes, ttl: float) -> Ask[Finished]:
        """:meth:`complete`, not yet done."""
        return self._finishing(fence, "completed", end, ttl)

    def fail(self, fence: int, end: bytes, ttl: float) -> Finished:
        """Record the error, as :meth:`complete` does the result."""
        return self._finishing(fence, "failed", end, ttl).now()

    def release(self, fence: int) -> Finished:
        """Forget the run: it had no effect that counts."""
        return self._finishing(fence, "absent", b"", 0).now()

    def _finishing(self, fence: int, state: str, end: bytes, ttl: float) -> Ask[Finished]:
        return Ask(
            _end,
            self.store,
            (self.key,),
            (self.owner, fence, state, _ms(ttl), f"{VERSION} {self.fingerprint}", self.attempt, end),
            _finished,
        )


def _finished(answer: Any) -> Finished:
    if isinstance(answer, int):
        return Finished(awaited=answer > 1)
    return Finished(successor=answer[1].decode())


def record_key(store: Store, name: str, key: str) -> str:
    """The key in Redis of the record for ``key`` under ``name``."""
    return store.key(KIND, tag(name), key)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
