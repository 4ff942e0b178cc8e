"""Which key a call has: a function of its bound arguments, the same at the producer and the worker.

A key specification is what users write as ``key=``:

==========================  ==============================================================
``"order_id"``              one argument, by name
``"order.customer.id"``     a dotted path into an argument (mapping keys or attributes)
``("tenant", "order_id")``  several of them
``"{tenant}:{order_id}"``   a template; each field may be a dotted path
``ALL_ARGS``                all arguments that differ from their default
a callable                  of arguments by name, ``lambda order: order["id"]``, or of one
                            mapping with all of them, ``lambda arguments: ...``
==========================  ==============================================================

A call is bound to the task's signature first, so ``f(1)`` and ``f(order_id=1)`` agree, and each
argument, defaults included, is taken as it looks after the task serializer has carried it, so a
producer's tuple and the worker's list agree.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from string import Formatter
from typing import Any, Final

from celery_patterns.core.arguments import UNFIT, Arguments, Parameters, Seen
from celery_patterns.core.canonical import canonical_text, digest, name_type, shorten
from celery_patterns.errors import KeyArgumentError, PolicyError


class _AllArguments:
    """The type of ``ALL_ARGS``."""

    def __repr__(self) -> str:
        return "ALL_ARGS"

    def __reduce__(self) -> str:
        return "ALL_ARGS"


ALL_ARGS: Final = _AllArguments()
"""The key of a call is all its arguments."""

KeySpec = str | tuple[str, ...] | _AllArguments | Callable[..., Any]

KEY_HEADER = "cp-key"
"""A header with which a caller overrides the key of one call."""

_MISSING: Final = object()
_VARIABLE: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_key(spec: object, option: str = "key") -> None:
    """Refuse what cannot be a key specification, where it is declared as an ``option``.

    Raises:
        PolicyError: Naming the value and what to write instead.
    """
    if isinstance(spec, str):
        _paths_of(spec)
    elif isinstance(spec, tuple):
        if not spec or not all(isinstance(one, str) and one and "{" not in one for one in spec):
            raise PolicyError(
                f"{option}={spec!r}: a tuple names one or more arguments, such as ('tenant', 'order_id')"
            )
    elif not (spec is ALL_ARGS or callable(spec)):
        raise PolicyError(
            f"{option}={spec!r}: write an argument's name, a tuple of names, a template like "
            '"{tenant}:{order_id}", ALL_ARGS, or a callable of the arguments'
        )


class KeyMaker:
    """Makes the keys of one task by one specification.

    Args:
        spec: The specification; see the module.
        task: The task's name, for messages.
        signature: The signature of the task's body.
        serializer: The task serializer's name.

    Raises:
        PolicyError: The specification names an argument that the task does not have.
    """

    def __init__(self, spec: KeySpec, task: str, signature: inspect.Signature, serializer: str) -> None:
        check_key(spec)
        self.spec = spec
        self.task = task
        self.serializer = serializer
        self.parameters = Parameters(task, signature, serializer)
        self._pick = self._picker()

    def bind(self, args: Sequence[Any], kwargs: Arguments) -> dict[str, Any]:
        """The arguments of a call by name; see :meth:`Parameters.bind`."""
        return self.parameters.bind(args, kwargs)

    def key(self, arguments: Arguments, *, serialised: bool) -> str:
        """The canonical key of a call.

        Args:
            arguments: From :meth:`bind`.
            serialised: Whether the task serializer has carried the values already, as in a
                worker. At the producer it has not: the values are taken as it would leave them.

        Raises:
            KeyArgumentError: A value cannot be part of a key, or a dotted path leads nowhere.
        """
        seen = Seen(arguments, _take if serialised else self.parameters.carried)
        chosen = self._pick(seen)
        try:
            return shorten(canonical_text(chosen))
        except UNFIT as error:
            raise self._culprit(seen, error) from error

    def pick(self, arguments: Arguments) -> Any:
        """The very value that the specification picks from the arguments of a call."""
        return self._pick(arguments)

    def fingerprint(self, arguments: Arguments, *, serialised: bool) -> str:
        """A digest of all arguments, by which a key that was used for another call is noticed.

        A value that only pickle can carry counts by its type alone: its text may differ between
        two equal objects, and a real duplicate must never be refused.
        """
        seen = Seen(arguments, _take if serialised else self.parameters.carried)
        chosen = self._all_arguments(seen)
        try:
            return digest(canonical_text(chosen, name_type))
        except UNFIT as error:
            raise self._culprit(seen, error) from error

    def _picker(self) -> Callable[[Arguments], Any]:
        """The function from arguments to what the key is made of."""
        spec = self.spec
        if isinstance(spec, _AllArguments):
            return self._all_arguments
        if isinstance(spec, tuple):
            for path in spec:
                self._check_path(path)
            return lambda arguments: [self._follow(path, arguments) for path in spec]
        if callable(spec):
            return self._guarded(self._callable_picker(spec))
        if "{" in spec or "}" in spec:
            return self._template_picker(spec)
        self._check_path(spec)
        return lambda arguments: self._follow(spec, arguments)

    def _template_picker(self, template: str) -> Callable[[Arguments], Any]:
        parts = _paths_of(template)
        for _, path in parts:
            if path is not None:
                self._check_path(path)

        def pick(arguments: Arguments) -> list[Any]:
            chosen: list[Any] = []
            for literal, path in parts:
                if literal:
                    chosen.append(literal)
                if path is not None:
                    chosen.append(self._follow(path, arguments))
            return chosen

        return pick

    def _guarded(self, pick: Callable[[Arguments], Any]) -> Callable[[Arguments], Any]:
        def guarded(arguments: Arguments) -> Any:
            try:
                return pick(arguments)
            except KeyArgumentError:
                raise
            except Exception as error:  # whatever a function of somebody else's raises: the call has no key
                raise KeyArgumentError(
                    f"{self.task}: key={self.spec!r} raised {error!r}; the call has no key"
                ) from error

        return guarded

    def _callable_picker(self, function: Callable[..., Any]) -> Callable[[Arguments], Any]:
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return function
        names = [one.name for one in parameters if one.kind not in _VARIABLE]
        if parameters and not names:  # such as operator.itemgetter
            return function
        unknown = [name for name in names if name not in self.parameters]
        if not unknown:
            return lambda arguments: function(**{name: arguments[name] for name in names})
        if names == ["arguments"]:
            return function
        raise PolicyError(
            f"{self.task}: key={function!r} takes {', '.join(unknown)}, which the task does not; it has "
            f"{self.parameters}. A callable that takes one mapping with all of them calls it 'arguments'"
        )

    def _all_arguments(self, arguments: Arguments) -> dict[str, Any]:
        is_default = self.parameters.is_default
        return {name: value for name, value in arguments.items() if not is_default(name, value)}

    def _follow(self, path: str, arguments: Arguments) -> Any:
        first, *steps = path.split(".")
        value = arguments[first] if first in arguments else self._extra(first, arguments)
        for step in steps:
            value = (
                value.get(step, _MISSING) if isinstance(value, Mapping) else getattr(value, step, _MISSING)
            )
            if value is _MISSING:
                raise KeyArgumentError(
                    f"{self.task}: argument {first!r} has no {path!r}; the call has no key"
                )
        return value

    def _extra(self, name: str, arguments: Arguments) -> Any:
        catch_all = self.parameters.catch_all
        extra = arguments[catch_all] if catch_all else {}
        if name not in extra:
            raise KeyArgumentError(f"{self.task}: the call lacks {name!r}, which is part of its key")
        return extra[name]

    def _check_path(self, path: str) -> None:
        first, *steps = path.split(".")
        if not all(steps):
            raise PolicyError(f"{self.task}: key names {path!r}; a path is names with one dot between them")
        if first not in self.parameters and not self.parameters.catch_all:
            raise PolicyError(
                f"{self.task}: key names {first!r}, but the task's arguments are {self.parameters}"
            )

    def _culprit(self, seen: Seen, error: Exception) -> KeyArgumentError:
        return self.parameters.unfit(list(seen.asked), seen) or KeyArgumentError(
            f"{self.task}: key={self.spec!r} gave what cannot be a key: {error}"
        )


def _take(_: str, value: Any) -> Any:
    return value


@cache
def _paths_of(template: str) -> tuple[tuple[str, str | None], ...]:
    """The literals and the fields of a template, in order.

    Raises:
        PolicyError: It is empty, has an unnamed field, a conversion or a format.
    """
    if not template:
        raise PolicyError('key="": name an argument')
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise PolicyError(f"key={template!r}: {error}") from error
    for _, name, form, conversion in parts:
        if name == "" or form or conversion:
            raise PolicyError(
                f"key={template!r}: a field is an argument's name or dotted path, as in "
                '"{tenant}:{order_id}"'
            )
    if parts[0][0] != template and all(name is None for _, name, _, _ in parts):
        raise PolicyError(f"key={template!r} names no argument, so all calls would have one key")
    return tuple((literal, name) for literal, name, _, _ in parts)
