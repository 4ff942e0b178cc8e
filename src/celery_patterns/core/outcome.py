"""What the result backend knows about a task that has ended, and handing that on in another's place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, cast

from celery import states
from celery.backends.base import DisabledBackend
from celery.backends.redis import RedisBackend

from celery_patterns.core.copies import EndedBefore
from celery_patterns.errors import StoreUnavailable

if TYPE_CHECKING:
    from celery_patterns.core.policy import Call


_SETTLED = "cp_settled"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended, by Celery's own record.

    Args:
        state: ``SUCCESS``, ``FAILURE`` or ``REVOKED``.
        result: The result, or the exception.
    """

    state: str
    result: Any

    def hand_on(self) -> Any:
        """The result, as if it were one's own.

        Raises:
            Exception: The failure, likewise.
        """
        if self.state == states.SUCCESS:
            return self.result
        raise self.result


def keeps_results(call: Call) -> bool:
    """Whether one can look up how a task like this one ended."""
    request, backend = call.request, call.task.backend
    if request.is_eager or request.ignore_result or isinstance(backend, DisabledBackend):
        return False
    return bool(backend.persistent)


def outcome_of(call: Call, task_id: str | None) -> Outcome | None:
    """How the task ``task_id`` ended; ``None`` while no result of it is stored.

    Raises:
        StoreUnavailable: The result backend is out of reach.
    """
    try:
        meta = call.task.backend.get_task_meta(task_id)
    except Exception as error:
        raise _away(error) from error
    state = meta["status"]
    return Outcome(state, meta["result"]) if state in states.READY_STATES else None


def _away(error: Exception) -> StoreUnavailable:
    """Whatever the user's backend raises when it is away."""
    return StoreUnavailable(f"result backend: {type(error).__name__}: {error}")


def acknowledge_copy(call: Call, outcome: Outcome | None, *, is_counted: bool | None) -> Any:
    """End a copy of a task whose earlier delivery has ended: write nothing, send nothing.

    A chord counts a part after its result is stored, so a kill may have come in between. In chords of
    Celery's Redis backend one can tell: there the result is handed on once more, with nothing else
    attached. Other backends would count the copy for another part.

    Args:
        call: The copy.
        outcome: How the task ended, as far as is known.
        is_counted: What :func:`is_counted` says.

    Raises:
        EndedBefore: Outside such a chord, or when nothing is known.
    """
    if outcome is None or outcome.state == states.REVOKED or is_counted:
        _ignore(call)
    call.request.callbacks = call.request.errbacks = call.request.chain = None
    setattr(call.request, _SETTLED, True)
    return outcome.hand_on()


def is_counted(call: Call) -> bool | None:
    """Whether a chord has nothing more to learn of the call; ``None`` where telling it twice does no harm.

    A chord of Celery 5.7 leaves out what it has counted. An older one may be completed twice by a
    part that reports twice, so there one has to look.

    Raises:
        StoreUnavailable: The result backend is out of reach.
    """
    request, backend = call.request, call.task.backend
    if not request.chord or not isinstance(backend, RedisBackend):
        return True
    backend = cast("Any", backend)
    if hasattr(backend, "_chord_part_return_script"):
        return None
    if request.group_index is None or not backend._chord_zset:  # noqa: SLF001 - nobody can tell
        return True
    parts, size = (backend.get_key_for_group(request.group, name) for name in (".j", ".s"))
    try:
        is_over = not backend.client.exists(size)
        return is_over or bool(backend.client.zcount(parts, request.group_index, request.group_index))
    except Exception as error:
        raise _away(error) from error


def is_settled(call: Call) -> bool:
    """Whether what leaves this run is another delivery's end: it was decided there what follows from it."""
    return getattr(call.request, _SETTLED, False)


def _ignore(call: Call) -> NoReturn:
    raise EndedBefore(f"{call.id} has ended already")
