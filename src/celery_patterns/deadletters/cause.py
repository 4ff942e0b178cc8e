"""Why a task died: the exception, where it came from, and a fingerprint by which causes are grouped."""

from __future__ import annotations

import hashlib
import json
import site
import sysconfig
import traceback
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.exceptions import Reject, SoftTimeLimitExceeded
from kombu.utils import json as kombu_json

from celery_patterns.errors import DeferralExpired, PoisonMessage

if TYPE_CHECKING:
    from celery import Celery

LONGEST_MESSAGE = 2_000
LONGEST_TRACEBACK = 16_000
OWN_FRAMES = 3
"""How many of the innermost frames outside libraries make a fingerprint."""

_SOURCES: tuple[tuple[type[BaseException], str], ...] = (
    (PoisonMessage, "poison"),
    (DeferralExpired, "deferral expired"),
    (SoftTimeLimitExceeded, "soft time limit"),
    (TimeLimitExceeded, "time limit"),
    (WorkerLostError, "worker lost"),
    (Reject, "rejected"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a task died.

    Args:
        source: How it is known: ``"failed"``, ``"time limit"``, ``"worker lost"``...
        exception: The exception's type, with its module unless it is a builtin.
        message: What it says.
        traceback: Where it was raised; empty where Celery does not know.
        where: The innermost frames of the user's own code, outermost first: file and function.
        error: The exception as Celery's result backends write it, in JSON.
    """

    source: str
    exception: str
    message: str
    traceback: str = ""
    where: tuple[str, ...] = ()
    error: str = ""

    @classmethod
    def of(cls, app: Celery, error: BaseException, source: str | None = None) -> Cause:
        """The cause that an exception tells."""
        named = next((name for kind, name in _SOURCES if isinstance(error, kind)), "failed")
        if isinstance(error, Reject):
            reason = getattr(error, "reason", None)
            error = reason if isinstance(reason, BaseException) else error
        kind = type(error)
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if not frame.filename.startswith(_libraries())]
        return cls(
            source=source or named,
            exception=kind.__qualname__
            if kind.__module__ == "builtins"
            else f"{kind.__module__}.{kind.__qualname__}",
            message=_text(error)[:LONGEST_MESSAGE],
            traceback="".join(traceback.format_exception(error))[-LONGEST_TRACEBACK:] if frames else "",
            where=tuple(f"{Path(frame.filename).name}:{frame.name}" for frame in own[-OWN_FRAMES:]),
            error=_portable(app, error),
        )

    def fingerprint(self, queue: str, task: str) -> str:
        """What deaths of one cause share: no line numbers, which each deploy moves, and no message."""
        parts = [queue, task, self.exception, *self.where]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


@cache
def _libraries() -> tuple[str, ...]:
    """Where code is that is not the user's own."""
    folders = {*sysconfig.get_paths().values(), *site.getsitepackages(), str(Path(__file__).parents[1])}
    return tuple(folders - {"", sysconfig.get_path("scripts"), sysconfig.get_path("data")})


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as trouble:  # noqa: BLE001 - the user's __str__ may raise anything
        return f"<{type(error).__name__}, whose text cannot be had: {type(trouble).__name__}>"


def _portable(app: Celery, error: BaseException) -> str:
    if not isinstance(error, Exception):
        return ""
    try:
        return str(kombu_json.dumps(app.backend.prepare_exception(error, serializer="json")))
    except Exception:  # noqa: BLE001 - arguments that JSON cannot carry; its text is kept beside it
        return ""


def restored(app: Celery, error: str, message: str = "") -> Exception:
    """The exception that ``Cause.error`` describes, to be raised where its task was not told yet."""
    found: Any = app.backend.exception_to_python(kombu_json.loads(error)) if error else None
    return found if isinstance(found, Exception) else RuntimeError(message or "the task died before")
