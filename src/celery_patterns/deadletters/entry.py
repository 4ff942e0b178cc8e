"""One dead letter, as it is kept in Redis.

::

                replay                    it ended well
    open ----------------> replaying -----------------------> resolved
     ^  ^                    |    |                              |
     |  |  it was revoked,   |    | it died again                |
     |  +-- or the replayer -+    +--> open again                | retention
     |      was killed            +--> quarantined               v
     |                                  (3 in a row)           gone
     +---- unarchive ---- archived <-- a person ---- open, quarantined
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kombu.utils import json as kombu_json

from celery_patterns.core.history import Attempt
from celery_patterns.deadletters.message import Message
from celery_patterns.errors import StoreVersionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VERSION = "1"
"""The version of entries that this library writes."""

STATES = ("open", "quarantined", "replaying", "resolved", "archived")
QUARANTINE_AFTER = 3
"""How many replays in a row may fail before an entry is left out of further ones."""
LARGEST_BODY = 100_000_000
"""Bytes of a body that are kept; a larger one is refused by the store, and said so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One line of an entry's history."""

    at: float
    what: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A dead letter. Times are in seconds since the epoch, by the server's clock.

    Args:
        id: What operators call it: the task id of the call that died first.
        state: One of ``STATES``.
        queue: The dead-letter queue that the task's policy names.
        task: The task's name.
        task_id: The id of the message that would be replayed.
        cause: The fingerprint of its group.
        source: How the death became known.
        exception: The exception's type.
        message: The exception's message.
        traceback: Where it was raised, as text.
        where: The innermost own frames.
        error: The exception in Celery's own JSON.
        worker: The worker that had it.
        first_died: When it died first.
        died: When it died last.
        deaths: How often.
        replays: How many replays there were.
        failed_replays: How many of the latest ones failed, in a row.
        retries: Which retry died.
        attempts: The attempts before, as far as the message remembers them.
        redact: Names of arguments that are not shown.
        original: The body before it was edited; ``None`` where it was not.
        letter: The message.
        history: What happened to the entry; read only by ``DeadLetters.get``.
    """

    id: str
    state: str
    queue: str
    task: str
    task_id: str
    cause: str
    source: str
    exception: str
    message: str
    traceback: str
    where: tuple[str, ...]
    error: str
    worker: str
    first_died: float
    died: float
    deaths: int
    replays: int
    failed_replays: int
    retries: int
    attempts: tuple[Attempt, ...]
    redact: tuple[str, ...]
    original: bytes | None
    letter: Message
    history: tuple[Note, ...] = ()

    @classmethod
    def read(cls, fields: Mapping[bytes, bytes], history: Sequence[bytes] = ()) -> Entry:
        """From the hash itself.

        Raises:
            StoreVersionError: A newer version of the library wrote it.
        """
        if fields.get(b"v") != VERSION.encode():
            raise StoreVersionError(
                f"dead letter {fields.get(b'id')!r} was written by a newer version of celery-patterns: "
                f"{fields.get(b'v')!r} (this reads {VERSION})"
            )
        text = {name.decode(): value for name, value in fields.items()}
        plain: dict[str, Any] = {name: text[name].decode() for name in _TEXTS}
        plain |= {name: int(text.get(name) or 0) for name in _NUMBERS}
        return cls(
            **plain,
            first_died=int(text["first_died"]) / 1e6,
            died=int(text["died"]) / 1e6,
            where=tuple(json.loads(text["where"])),
            attempts=tuple(Attempt(*one) for one in json.loads(text["attempts"])),
            redact=tuple(json.loads(text["redact"])),
            original=text.get("original"),
            letter=_letter(text["body"], text["headers"], text["delivery"]),
            history=tuple(_note(one) for one in history),
        )


_TEXTS = (
    *("id", "state", "queue", "task", "task_id", "cause", "source"),
    *("exception", "message", "traceback", "error", "worker"),
)
_NUMBERS = ("deaths", "replays", "failed_replays", "retries")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a replay needs to know of an entry; the rest of it is what makes reading slow.

    Args:
        id: The entry.
        task: The task's name.
        task_id: The id of the message that would be replayed.
        died: When it died last, in seconds since the epoch.
        letter: The message.
    """

    id: str
    task: str
    task_id: str
    died: float
    letter: Message

    @classmethod
    def read(cls, fields: Sequence[bytes]) -> Candidate:
        """From the values of ``CANDIDATE``."""
        entry, task, task_id, died, *letter = fields
        return cls(
            id=entry.decode(),
            task=task.decode(),
            task_id=task_id.decode(),
            died=int(died) / 1e6,
            letter=_letter(*letter),
        )


CANDIDATE = ("id", "task", "task_id", "died", "body", "headers", "delivery")
"""The fields of a ``Candidate``."""


def _letter(body: bytes, headers: bytes, delivery: bytes) -> Message:
    return Message(body=body, headers=kombu_json.loads(headers.decode()), **json.loads(delivery))


def _note(line: bytes) -> Note:
    at, what, words = json.loads(line)
    return Note(at=at / 1000, what=what, words=words)


def written(letter: Message) -> dict[str, str | bytes]:
    """A message as fields of an entry."""
    delivery: dict[str, Any] = {
        "content_type": letter.content_type,
        "content_encoding": letter.content_encoding,
        "exchange": letter.exchange,
        "routing_key": letter.routing_key,
        "priority": letter.priority,
        "reply_to": letter.reply_to,
    }
    return {
        "body": letter.body,
        "headers": str(kombu_json.dumps(letter.headers)),
        "delivery": json.dumps(delivery),
    }
