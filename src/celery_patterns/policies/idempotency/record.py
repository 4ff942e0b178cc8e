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

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kombu.exceptions import EncodeError
from kombu.serialization import dumps, loads, prepare_accept_content

from celery_patterns.core.script import Script
from celery_patterns.core.store import Store, store_of, tag
from celery_patterns.errors import ResultNotStored, StoreVersionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_patterns.core.policy import Call

_begin = Script("idempotency_begin")
_end = Script("idempotency_end")

KIND = "idempotency"

NO_VALUE = "none"
"""The form of a result that was too large or not serialisable: only that it ended is known."""


@dataclass(frozen=True, slots=True)
class Started:
    """The run is ours. ``lapsed`` names the holder that vanished before us, if there was one."""

    fence: int
    lapsed: str | None


@dataclass(frozen=True, slots=True)
class Running:
    """Another delivery runs; its lease lasts ``left`` more seconds."""

    owner: str
    left: float


@dataclass(frozen=True, slots=True)
class Lapsed:
    """The run vanished, and the policy says that a rerun is not for us to decide."""

    owner: str


@dataclass(frozen=True, slots=True)
class Reused:
    """The key was used with other arguments, by ``owner``."""

    owner: str


@dataclass(frozen=True, slots=True)
class Ended:
    """An earlier run ended, and this delivery has claimed the right to hand its result or error on.

    ``again`` says that an earlier delivery of the same task id may have handed it on before.
    """

    owner: str
    failed: bool
    form: str
    body: bytes
    again: bool


@dataclass(frozen=True, slots=True)
class Claimed:
    """Another delivery of the same task id is handing the result on, for ``left`` more seconds at most."""

    owner: str
    left: float


@dataclass(frozen=True, slots=True)
class Lost:
    """Another run holds the key by now."""

    owner: str


Beginning = Started | Running | Lapsed | Reused | Ended | Claimed


def task_id_of(owner: str) -> str:
    """The task id in an owner; the rest is the nonce of the delivery."""
    return owner.rpartition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One key's record, as one delivery sees it. All durations in seconds.

    Args:
        store: Where it is.
        key: Its key in Redis.
        owner: The delivery.
        fingerprint: Of the arguments.
        attempt: Which attempt of the task this is: its retries so far.
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
        answer = _begin(
            self.store,
            [self.key, self.claim_key],
            [self.owner, self.fingerprint, _ms(lease), _ms(lease + ttl), on_lapsed, self.attempt, _ms(claim)],
        )
        word, who, *rest = answer
        match word:
            case b"started":
                return Started(int(who), rest[0].decode() if rest[0] else None)
            case b"running":
                return Running(who.decode(), rest[0] / 1000)
            case b"claimed":
                return Claimed(who.decode(), rest[0] / 1000)
            case b"lapsed":
                return Lapsed(who.decode())
            case b"reused":
                return Reused(who.decode())
            case b"version":
                raise StoreVersionError(
                    f"{self.key} has version {who.decode()}; this library reads version 1"
                )
        form, body, again = rest
        return Ended(who.decode(), word == b"failed", form.decode(), body, bool(again))

    def complete(self, fence: int, form: str, body: bytes, ttl: float) -> Lost | None:
        """Record the result; ``Lost`` where another run holds the key by now.

        Raises:
            StoreUnavailable: It may or may not be recorded; asking again is safe.
        """
        return self._end(fence, "completed", form, body, ttl)

    def fail(self, fence: int, form: str, body: bytes, ttl: float) -> Lost | None:
        """Record the error."""
        return self._end(fence, "failed", form, body, ttl)

    def release(self, fence: int) -> Lost | None:
        """Forget the run: it had no effect that counts."""
        return self._end(fence, "absent", "", b"", 0)

    def _end(self, fence: int, state: str, form: str, body: bytes, ttl: float) -> Lost | None:
        answer = _end(
            self.store,
            [self.key],
            [self.owner, fence, state, _ms(ttl), self.fingerprint, self.attempt, form, body],
        )
        return Lost(answer[1].decode()) if answer[0] == b"lost" else None


def record_key(store: Store, name: str, key: str) -> str:
    """The key in Redis of the record for ``key`` under ``name``."""
    return store.key(KIND, tag(name), key)


def pack(call: Call, value: Any, largest: int) -> tuple[str, bytes]:
    """A result as form and body, written by the app's result serializer."""
    try:
        content_type, encoding, payload = dumps(value, serializer=call.app.conf.result_serializer)
    except (EncodeError, TypeError, ValueError):
        return NO_VALUE, b""
    body = payload.encode() if isinstance(payload, str) else payload
    return (f"{content_type} {encoding}", body) if len(body) <= largest else (NO_VALUE, b"")


def unpack(call: Call, ended: Ended) -> Any:
    """The value that :func:`pack` wrote.

    Raises:
        ResultNotStored: There is none.
    """
    if ended.form == NO_VALUE:
        raise ResultNotStored(
            f"{call.name}[{call.id}]: the first run, {task_id_of(ended.owner)}, succeeded, but its result "
            "was larger than max_result or could not be serialised"
        )
    content_type, _, encoding = ended.form.partition(" ")
    accept = prepare_accept_content(call.app.conf.result_accept_content or call.app.conf.accept_content)
    return loads(ended.body, content_type, encoding, accept=accept)


def pack_error(call: Call, error: BaseException) -> tuple[str, bytes]:
    """An exception in the form in which Celery stores exceptions as results."""
    return pack(call, call.task.backend.prepare_exception(error), 1_000_000)


def unpack_error(call: Call, ended: Ended) -> BaseException:
    """The exception that :func:`pack_error` wrote."""
    error: BaseException = call.task.backend.exception_to_python(unpack(call, ended))
    return error


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What an operator sees of a record."""

    key: str
    state: str
    task_id: str
    fence: int
    lease_left: float
    expires_in: float
    result: str | None

    @classmethod
    def of(cls, key: str, fields: Mapping[bytes, bytes], now: float, expires_in: float) -> Snapshot:
        """From the hash itself."""
        state = fields[b"state"].decode()
        left = int(fields[b"until"]) / 1000 - now
        return cls(
            key=key,
            state="lapsed" if state == "running" and left <= 0 else state,
            task_id=task_id_of(fields[b"owner"].decode()),
            fence=int(fields[b"fence"]),
            lease_left=max(0.0, left) if state == "running" else 0.0,
            expires_in=expires_in,
            result=fields[b"body"].decode(errors="replace") if fields.get(b"body") else None,
        )


def find(app: Any, key: str) -> Snapshot | None:
    """The record of a key, written as events and logs write it: ``<name>:<key>``.

    A plain word after the colon means the string (``charge:A-17`` for ``charge:"A-17"``).

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    store = store_of(app)
    with store.reporting():
        for candidate in _spellings(key):
            redis_key = f"{store.prefix}:{KIND}:{{{candidate}}}"
            fields = store.client.hgetall(redis_key)
            if fields:
                return Snapshot.of(candidate, fields, store.now(), store.client.pttl(redis_key) / 1000)
    return None


def forget(app: Any, key: str) -> bool:
    """Delete the record of a key, so that its next call runs; whether there was one.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    found = find(app, key)
    if found is None:
        return False
    store = store_of(app)
    with store.reporting():
        return bool(store.client.delete(f"{store.prefix}:{KIND}:{{{found.key}}}"))


def _spellings(key: str) -> list[str]:
    name, _, text = key.partition(":")
    return [key, f"{name}:{json.dumps(text, ensure_ascii=False)}"]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
