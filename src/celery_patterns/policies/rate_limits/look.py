"""A look at the arguments of a call, for the keys and the costs of its limits."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from celery_patterns.core.keys import KeyMaker, KeySpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery import Celery

    from celery_patterns.core.policy import Call


@dataclass(frozen=True, slots=True)
class Look:
    """A look at a call's arguments, for keys and costs.

    Limits take no key from the header ``cp-key``: a sender could walk around a limit with it.

    Args:
        task: Whose arguments, for messages.
        arguments: Gives them by name; asked only where a key or a cost needs one.
        maker: Makes keys by a specification.
        serialised: Whether a serializer has carried the arguments.
    """

    task: str
    arguments: Callable[[], Mapping[str, Any]]
    maker: Callable[[KeySpec], KeyMaker]
    serialised: bool

    def key(self, spec: KeySpec) -> str:
        """The key that the call has."""
        return self.maker(spec).key(self.arguments(), serialised=self.serialised)

    def value(self, spec: KeySpec) -> Any:
        """The value itself that a specification picks."""
        return self.maker(spec).pick(self.arguments())


def look_at(call: Call) -> Look:
    """A look at the arguments of a call."""
    serializer = call.options.get("serializer")
    return Look(
        task=call.name,
        arguments=lambda: call.arguments,
        maker=lambda spec: call.seam.keys(spec, serializer),
        serialised=call.is_serialised,
    )


def look_outside(who: str, arguments: Mapping[str, Any], app: Celery) -> Look:
    """A look at arguments that are not those of a task, as if one had been called with them."""
    maker = partial(_maker, who, tuple(arguments), app.conf.task_serializer)
    return Look(who, lambda: arguments, maker, serialised=False)


@lru_cache(maxsize=1024)
def _maker(who: str, names: tuple[str, ...], serializer: str, spec: KeySpec) -> KeyMaker:
    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    return KeyMaker(spec, who, inspect.Signature(parameters), serializer)
