"""An idempotent task whose process is killed once at a chosen point of its end."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from celery.backends.base import Backend

from celery_patterns import Idempotency, IdempotentTask
from celery_patterns.policies.idempotency.record import Record
from tests.ground.app import ground_app, history

app = ground_app(__name__)


def _die_once(flag: str) -> None:
    """Kill this process, unless another was killed for the same flag before."""
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    history().add("killed", flag=Path(flag).name)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(bind=True, base=IdempotentTask, idempotency=Idempotency(key="order", lease=60))
def charge(self: Any, order: str, point: str, flag: str) -> dict[str, Any]:
    history().add("effect", order=order, id=self.request.id)
    if point == "before record":
        _die_once(flag)
    return {"point": point, "flag": flag, "fence": self.request.fence}


@app.task
def note(value: Any, label: str) -> None:
    history().add("note", label=label)


_completing, _mark_as_done = Record.completing, Backend.mark_as_done


def _complete_and_die(self: Record, fence: int, end: bytes, ttl: float) -> Any:
    ask = _completing(self, fence, end, ttl)

    def understand(answer: Any) -> Any:
        if b'"after record"' in end:
            _die_once(end.split(b'"flag": "')[1].split(b'"')[0].decode())
        return ask.understand(answer)

    return replace(ask, understand=understand)


def _die_and_mark(self: Any, task_id: str, result: Any, *args: Any, **kwargs: Any) -> None:
    if isinstance(result, dict) and result.get("point") == "after dispatch":
        _die_once(result["flag"])
    _mark_as_done(self, task_id, result, *args, **kwargs)
    if isinstance(result, dict) and result.get("point") == "after store":
        _die_once(result["flag"])


Record.completing = _complete_and_die  # type: ignore[method-assign]
Backend.mark_as_done = _die_and_mark  # type: ignore[method-assign]
