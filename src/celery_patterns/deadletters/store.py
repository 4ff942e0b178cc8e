"""Where dead letters are: what a worker writes about them. All keys share one hash tag."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from celery_patterns.core.history import attempts
from celery_patterns.core.policy import REPLAY_HEADER
from celery_patterns.core.script import Script
from celery_patterns.core.store import store_of
from celery_patterns.deadletters.cause import restored
from celery_patterns.deadletters.entry import LARGEST_BODY, QUARANTINE_AFTER, written
from celery_patterns.deadletters.redaction import without
from celery_patterns.errors import DeadLetterTooLarge, StoreVersionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

    from celery_patterns.core.store import Store
    from celery_patterns.deadletters.cause import Cause
    from celery_patterns.deadletters.message import Message

KIND = "dead_letter"
SHARED = ("dead_letter_index",)

_put = Script("dead_letter_put", after=SHARED)
_begin = Script("dead_letter_begin", after=SHARED)
_end = Script("dead_letter_end", after=SHARED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A task that will not run again without a person.

    Args:
        letter: Its message, as it was before the body ran.
        cause: Why.
        by: Which delivery of the task it was, so that what is told twice is stored once.
        queue: The dead-letter queue.
        worker: The worker's name.
        retention: For how many seconds its entry is kept once it is resolved or archived.
        redact: Names of arguments that are not shown.
        secrets: Their values, which must not stand in what is kept about the whole group.
    """

    letter: Message
    cause: Cause
    by: str
    queue: str
    worker: str
    retention: float
    redact: tuple[str, ...] = ()
    secrets: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a death: the state of its entry, and how often it died; 0 for one known before."""

    id: str
    state: str
    deaths: int
    cause: str


@dataclass(frozen=True, slots=True)
class Buried:
    """The life of the task that a delivery belongs to has ended with this error."""

    error: Exception


def root_of(store: Store) -> str:
    """What the keys of all dead letters begin with."""
    return store.key("dead", "letters")


def life_of(headers: Mapping[str, object], task_id: str) -> tuple[str, int]:
    """The entry that a message belongs to, and which replay of it it is: 0 for its first life."""
    entry, slash, number = str(headers.get(REPLAY_HEADER) or "").rpartition("/")
    return (entry, int(number)) if slash else (task_id, 0)


def put(app: Celery, death: Death) -> Stored:
    """Store a death.

    Raises:
        StoreUnavailable: It may or may not be stored; asking again is safe.
        DeadLetterTooLarge: Its body is larger than any store would take.
    """
    letter, cause = death.letter, death.cause
    if len(letter.body) > LARGEST_BODY:
        raise DeadLetterTooLarge(f"a body of {len(letter.body)} bytes; {LARGEST_BODY} can be kept")
    store = store_of(app)
    task, task_id = str(letter.headers.get("task")), str(letter.headers.get("id"))
    entry, replay = life_of(letter.headers, task_id)
    group = cause.fingerprint(death.queue, task)
    about = {"queue": death.queue, "task": task, "exception": cause.exception, "where": cause.where}
    shown = without(cause.message, death.secrets)[:200]
    fields: dict[str, str | bytes | int] = {
        **written(letter),
        "queue": death.queue,
        "task": task,
        "task_id": task_id,
        "source": cause.source,
        "exception": cause.exception,
        "message": cause.message,
        "traceback": cause.traceback,
        "where": json.dumps(cause.where),
        "error": cause.error,
        "worker": death.worker,
        "retries": int(str(letter.headers.get("retries") or 0)),
        "attempts": json.dumps([astuple(one) for one in attempts(letter.headers)]),
        "redact": json.dumps(death.redact),
        "retention_ms": round(death.retention * 1000),
    }
    answer, deaths = _put(
        store,
        (root_of(store),),
        (
            entry,
            group,
            json.dumps({**about, "message": shown}),
            death.by,
            replay,
            QUARANTINE_AFTER,
            f"{cause.source}: {cause.exception}: {shown}",
            *(item for pair in fields.items() for item in pair),
        ),
    )
    if answer == b"version":
        raise StoreVersionError(f"dead letter {entry} was written by a newer version: {deaths!r}")
    if answer == b"known":
        return Stored(entry, deaths.decode(), 0, group)
    return Stored(entry, answer.decode(), deaths, group)


def begin(app: Celery, entry: str, replay: int) -> Buried | bool:
    """Whether a delivery may run; ``False`` when it is a copy from an earlier life of its task.

    Raises:
        StoreUnavailable: Nobody knows.
    """
    store = store_of(app)
    answer = _begin(store, (root_of(store),), (entry, replay))
    if isinstance(answer, bytes):
        return answer == b"run"
    return Buried(restored(app, answer[1].decode()))


def end(app: Celery, entry: str, replay: int, state: str, words: str) -> bool:
    """Report that a replay was resolved, or that its entry is open again; whether that was news.

    Raises:
        StoreUnavailable: It may or may not be recorded; asking again is safe.
    """
    store = store_of(app)
    return bool(_end(store, (root_of(store),), (entry, replay, state, words)) == b"ok")
