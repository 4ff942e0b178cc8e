"""A run's result, as it is kept in its record: the serializer's name, then what it wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.exceptions import EncodeError
from kombu.serialization import dumps, loads, prepare_accept_content

from celery_patterns.core.lease import task_id_of
from celery_patterns.errors import ResultNotStored

if TYPE_CHECKING:
    from celery_patterns.core.policy import Call
    from celery_patterns.policies.idempotency.record import Ended

NOT_KEPT = b""
"""Stands for a result that was too large or not serialisable: only that the run ended is known."""

LARGEST_ERROR = 1_000_000


def pack(call: Call, value: Any, largest: int) -> bytes:
    """A result, as the app's result serializer writes it; ``NOT_KEPT`` where that cannot be."""
    try:
        content_type, encoding, payload = dumps(value, serializer=call.app.conf.result_serializer)
    except (EncodeError, TypeError, ValueError):
        return NOT_KEPT
    body = payload.encode() if isinstance(payload, str) else payload
    return f"{content_type} {encoding}\n".encode() + body if len(body) <= largest else NOT_KEPT


def unpack(call: Call, ended: Ended) -> Any:
    """The value that :func:`pack` wrote.

    Raises:
        ResultNotStored: There is none.
    """
    if ended.end == NOT_KEPT:
        raise ResultNotStored(
            f"{call.name}[{call.id}]: the first run, {task_id_of(ended.owner)}, succeeded, but its result "
            "was larger than max_result or could not be serialised"
        )
    form, _, body = ended.end.partition(b"\n")
    content_type, _, encoding = form.decode().partition(" ")
    accept = prepare_accept_content(call.app.conf.result_accept_content or call.app.conf.accept_content)
    return loads(body, content_type, encoding, accept=accept)


def pack_error(call: Call, error: BaseException) -> bytes:
    """An exception, in the form in which Celery stores exceptions as results."""
    return pack(call, call.task.backend.prepare_exception(error), LARGEST_ERROR)


def unpack_error(call: Call, ended: Ended) -> BaseException:
    """The exception that :func:`pack_error` wrote."""
    error: BaseException = call.task.backend.exception_to_python(unpack(call, ended))
    return error
