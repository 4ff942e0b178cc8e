"""The names of a task's parameters, by which a router knows the arguments of a call."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery.app.task import Task

_known: WeakKeyDictionary[Any, Parameters | None] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a task's body can be called with.

    Args:
        positional: The names of arguments that may be given by position, in order.
        rest: The name that catches further ones, if there is one.
        defaults: What holds for an argument that a call leaves out.
    """

    positional: tuple[str, ...]
    rest: str | None
    defaults: Mapping[str, Any]

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name.

        Lenient, and several times as quick as ``Signature.bind``: whether the call fits is for the task to
        say, whom Celery asks before it routes. What a ``**kwargs`` would catch is among the others.
        """
        arguments = {**self.defaults, **kwargs, **dict(zip(self.positional, args, strict=False))}
        if self.rest is not None:
            arguments[self.rest] = tuple(args[len(self.positional) :])
        return arguments


def parameters_of(task: Task[Any, Any]) -> Parameters | None:
    """The parameters of a task's body, or ``None`` where Python cannot tell them."""
    try:
        return _known[task]
    except KeyError:
        _known[task] = found = _inspect(task)
        return found


def _inspect(task: Task[Any, Any]) -> Parameters | None:
    try:
        parameters = inspect.signature(task.run).parameters.values()
    except (TypeError, ValueError):
        return None
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    rest = [one.name for one in parameters if one.kind is one.VAR_POSITIONAL]
    return Parameters(
        positional=tuple(one.name for one in parameters if one.kind in by_position),
        rest=rest[0] if rest else None,
        defaults={one.name: one.default for one in parameters if one.default is not one.empty},
    )
