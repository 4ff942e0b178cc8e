"""A user's function of a call's arguments, by name: ``lambda order: order["total"] > 1000``."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from celery_patterns.errors import RuleError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_REFUSED_KINDS = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)


@dataclass(frozen=True)
class OfArguments:
    """A function whose parameters are names of a task's arguments.

    A parameter without a default is an argument that the call must have; one with a default may be
    missing; ``**arguments`` receives all the rest. Two of them are equal if they call the same function.

    Args:
        function: What the user wrote.
        role: The option it was given as, for messages.

    Raises:
        RuleError: The function cannot be called by name, or would answer a coroutine, which is always true.
    """

    function: Callable[..., Any]
    role: str = field(compare=False)
    required: tuple[str, ...] = field(init=False, compare=False)
    optional: tuple[str, ...] = field(init=False, compare=False)
    takes_rest: bool = field(init=False, compare=False)

    def __post_init__(self) -> None:
        parameters = self._parameters()
        named = [one for one in parameters if one.kind is not inspect.Parameter.VAR_KEYWORD]
        set_once = object.__setattr__  # the way to derive fields of a frozen dataclass
        set_once(self, "required", tuple(one.name for one in named if one.default is one.empty))
        set_once(self, "optional", tuple(one.name for one in named if one.default is not one.empty))
        set_once(self, "takes_rest", len(named) < len(parameters))

    def missing(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """The arguments that the function needs and the call does not have."""
        return tuple(name for name in self.required if name not in arguments)

    def __call__(self, arguments: Mapping[str, Any]) -> Any:
        """What the function says of the call; ask :meth:`missing` first."""
        if self.takes_rest:
            return self.function(**arguments)
        names = (*self.required, *(name for name in self.optional if name in arguments))
        return self.function(**{name: arguments[name] for name in names})

    def __str__(self) -> str:
        asked = ", ".join((*self.required, *self.optional, *(("**",) if self.takes_rest else ())))
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"{self.role}({asked})" if name == "<lambda>" else f"{name}({asked})"

    def _parameters(self) -> list[inspect.Parameter]:
        function = self.function
        wanted = f"{self.role}={function!r}: write a function of the task's arguments by name"
        if not callable(function):
            raise RuleError(f"{wanted}, such as lambda order: order['total'] > 1000")
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise RuleError(
                f"{wanted}; this one would have to be awaited or iterated, and its promise is always true"
            )
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError) as error:
            raise RuleError(
                f"{wanted}; this one does not tell its parameters, so wrap it in a lambda"
            ) from error
        if any(one.kind in _REFUSED_KINDS for one in parameters):
            raise RuleError(f"{wanted}; arguments cannot be told by position")
        if not parameters:
            raise RuleError(f"{wanted}; this one asks for none, so it says the same of every call")
        return parameters
