"""The shape of a signature: what starts first, what ends last, and in which order parts stand.

A signature is a dict, and in a message it is a plain one; these functions read both alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.canvas import maybe_signature

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, MutableMapping

    from celery.canvas import Signature


PARTIAL_CHORD = "partial_chord"
"""The type of a partial chord where Celery's says ``"chord"``."""


def starters(signature: Mapping[str, Any]) -> Iterator[MutableMapping[str, Any]]:
    """The tasks that are published when ``signature`` is."""
    match _kind(signature):
        case "chain":
            yield from starters(_tasks(signature)[0])
        case "group":
            for task in _tasks(signature):
                yield from starters(task)
        case "chord":
            header = _header(signature)
            for task in header or [signature["kwargs"]["body"]]:
                yield from starters(task)
        case _:
            yield signature  # type: ignore[misc]  # whoever changes it has a mutable one


def ends(signature: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The tasks whose end is the end of ``signature``."""
    match _kind(signature):
        case "chain":
            yield from ends(_tasks(signature)[-1])
        case "group":
            for task in _tasks(signature):
                yield from ends(task)
        case "chord":
            yield from ends(signature["kwargs"]["body"])
        case _:
            yield signature


def result_id(signature: Mapping[str, Any]) -> str | None:
    """The id of the result that a caller gets for a frozen ``signature``."""
    match _kind(signature):
        case "chain":
            return result_id(_tasks(signature)[-1])
        case "chord":
            return result_id(signature["kwargs"]["body"])
        case _:
            found: str | None = signature["options"].get("task_id")
            return found


def in_order(header: Iterable[Any]) -> list[Signature[Any]]:
    """The tasks of a header, groups in it read from left to right.

    Celery flattens a group in a group too, but from right to left, and so its results.
    """
    found: list[Signature[Any]] = []
    for one in header:
        signature: Any = maybe_signature(one)
        if _kind(signature) == "group":
            found += in_order(signature.tasks)
        else:
            found.append(_inside_in_order(signature))
    return found


def _inside_in_order(signature: Any) -> Any:
    """``signature``, or a copy in which no group stands directly in a group."""
    kind = _kind(signature)
    if kind not in {"chain", "group", "chord"}:
        return signature
    copy: Any = signature.clone()
    match kind:
        case "group":
            copy.tasks = in_order(copy.tasks)
        case "chain":
            copy.tasks = [_inside_in_order(task) for task in map(maybe_signature, copy.tasks)]
        case _:
            copy.tasks = in_order(_header(copy))
            copy.body = copy.body and _inside_in_order(copy.body)
    return copy


def plain_copy(value: Any) -> Any:
    """A plain copy of a signature, all the way down: Celery's own copies share their options."""
    if isinstance(value, dict):
        return {name: plain_copy(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_copy(one) for one in value]
    return value


def own_copy(signature: Any) -> Any:
    """A copy of a signature whose tasks have options of their own: Celery's copies share their tasks."""
    copy: Any = maybe_signature(signature, clone=True)
    match _kind(copy):
        case "chain" | "group":
            copy.tasks = [own_copy(task) for task in copy.tasks]
        case "chord":
            copy.tasks = [own_copy(task) for task in _header(copy)]
            copy.body = copy.body and own_copy(copy.body)
        case _:
            pass
    return copy


def chords_in(signature: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The chords that have parts and a body in ``signature``, or are it, from the outside in."""
    kind = _kind(signature)
    if kind in {"chain", "group"}:
        for task in _tasks(signature):
            yield from chords_in(task)
    elif kind == "chord" and signature["kwargs"]["body"] and _header(signature):
        yield signature
        for task in (*_header(signature), signature["kwargs"]["body"]):
            yield from chords_in(task)


def _kind(signature: Mapping[str, Any]) -> str | None:
    kind: str | None = signature.get("subtask_type")
    return "chord" if kind == PARTIAL_CHORD else kind


def _tasks(signature: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(signature["kwargs"]["tasks"])


def _header(signature: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    header = signature["kwargs"]["header"]
    return _tasks(header) if _kind_or_none(header) == "group" else list(header)


def _kind_or_none(header: Any) -> str | None:
    return _kind(header) if hasattr(header, "get") else None
