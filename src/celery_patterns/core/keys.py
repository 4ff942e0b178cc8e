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
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from string import Formatter
from typing import Any, Final

from kombu.exceptions import DecodeError, EncodeError
from kombu.serialization import dumps, loads

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

Arguments = Mapping[str, Any]
_MISSING: Final = object()
_UNFIT: Final = (EncodeError, DecodeError, TypeError, ValueError, RecursionError)
"""What serialisers and ``canonical_text`` raise for a value they cannot take."""


def check_key(spec: object) -> None:
    """Refuse what cannot be a key specification, where it is declared.

    Raises:
        PolicyError: Naming the value and what to write instead.
    """
    if isinstance(spec, str):
        _paths_of(spec)
    elif isinstance(spec, tuple):
        if not spec or not all(isinstance(one, str) and one and "{" not in one for one in spec):
            raise PolicyError(
                f"key={spec!r}: a tuple names one or more arguments, such as ('tenant', 'order_id')"
            )
    elif not (spec is ALL_ARGS or callable(spec)):
        raise PolicyError(
            f"key={spec!r}: write an argument's name, a tuple of names, a template like "
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
        self.signature = signature
        self.serializer = serializer
        self._rest = _name_of(signature, inspect.Parameter.VAR_POSITIONAL)
        self._catch_all = _name_of(signature, inspect.Parameter.VAR_KEYWORD)
        self._defaults = dict(self._carried_defaults())
        self._default_texts = dict(self._canonical_defaults())
        self._pick = self._picker()

    def bind(self, args: Iterable[Any], kwargs: Arguments) -> dict[str, Any]:
        """The arguments of a call by name, defaults included.

        A default is given as if the message had carried it, so that a call which leaves it out and
        one which spells it out agree.

        Raises:
            KeyArgumentError: The arguments do not fit the signature.
        """
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise KeyArgumentError(f"{self.task}: {error}; the call has no key") from error
        return {**self._defaults, **bound.arguments}

    def key(self, arguments: Arguments, *, serialised: bool) -> str:
        """The canonical key of a call.

        Args:
            arguments: From :meth:`bind`.
            serialised: Whether the task serializer has carried the values already, as in a
                worker. At the producer it has not: the values are taken as it would leave them.

        Raises:
            KeyArgumentError: A value cannot be part of a key, or a dotted path leads nowhere.
        """
        seen = _Seen(arguments, self._take if serialised else self._carried)
        chosen = self._pick(seen)
        try:
            return shorten(canonical_text(chosen))
        except _UNFIT as error:
            raise self._culprit(seen, error) from error

    def pick(self, arguments: Arguments) -> Any:
        """The very value that the specification picks from the arguments of a call."""
        return self._pick(arguments)

    def fingerprint(self, arguments: Arguments, *, serialised: bool) -> str:
        """A digest of all arguments, by which a key that was used for another call is noticed.

        A value that only pickle can carry counts by its type alone: its text may differ between
        two equal objects, and a real duplicate must never be refused.
        """
        seen = _Seen(arguments, self._take if serialised else self._carried)
        chosen = self._all_arguments(seen)
        try:
            return digest(canonical_text(chosen, name_type))
        except _UNFIT as error:
            raise self._culprit(seen, error) from error

    @staticmethod
    def _take(_: str, value: Any) -> Any:
        return value

    def _carried(self, name: str, value: Any) -> Any:
        """An argument as it arrives when the serializer has carried it."""
        if value is self._defaults.get(name, _MISSING):
            return value
        if name == self._catch_all:
            return {extra: self._carried_one(extra, item) for extra, item in value.items()}
        if name == self._rest:
            return tuple(self._carried_one(name, list(value)))
        return self._carried_one(name, value)

    def _carried_one(self, name: str, value: Any) -> Any:
        try:
            return _carry(value, self.serializer)
        except _UNFIT as reason:
            raise self._unfit(name, reason) from reason

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
            return self._callable_picker(spec)
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

    def _callable_picker(self, function: Callable[..., Any]) -> Callable[[Arguments], Any]:
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return function
        names = [one.name for one in parameters if one.kind not in _VARIABLE]
        if parameters and not names:  # such as operator.itemgetter
            return function
        unknown = [name for name in names if name not in self.signature.parameters]
        if not unknown:
            return lambda arguments: function(**{name: arguments[name] for name in names})
        if len(names) == 1:
            return function
        raise PolicyError(
            f"{self.task}: key={function!r} takes {', '.join(unknown)}, which the task does not; "
            f"it has {self._names()}"
        )

    def _all_arguments(self, arguments: Arguments) -> dict[str, Any]:
        return {name: value for name, value in arguments.items() if not self._is_default(name, value)}

    def _is_default(self, name: str, value: Any) -> bool:
        """Whether leaving the argument out would mean the same."""
        if value is self._defaults.get(name, _MISSING):
            return True
        if name in {self._rest, self._catch_all}:
            return not value
        default = self._default_texts.get(name)
        if default is None:
            return False
        try:
            return default == canonical_text(value)
        except _UNFIT:
            return False

    def _carried_defaults(self) -> Iterable[tuple[str, Any]]:
        """What the body gets for each argument that a call leaves out."""
        for name, parameter in self.signature.parameters.items():
            if name == self._rest:
                yield name, ()
            elif name == self._catch_all:
                yield name, {}
            elif parameter.default is not parameter.empty:
                try:
                    yield name, _carry(parameter.default, self.serializer)
                except _UNFIT:  # it cannot arrive in a message either, so only itself is equal to it
                    yield name, parameter.default

    def _canonical_defaults(self) -> Iterable[tuple[str, str]]:
        for name, default in self._defaults.items():
            try:
                yield name, canonical_text(default)
            except _UNFIT:
                continue

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
        extra = arguments.get(self._catch_all, {}) if self._catch_all else {}
        if name not in extra:
            raise KeyArgumentError(f"{self.task}: the call lacks {name!r}, which is part of its key")
        return extra[name]

    def _check_path(self, path: str) -> None:
        first = path.partition(".")[0]
        if first not in self.signature.parameters and not self._catch_all:
            raise PolicyError(
                f"{self.task}: key names {first!r}, but the task's arguments are {self._names()}"
            )

    def _names(self) -> str:
        return ", ".join(self.signature.parameters) or "none"

    def _culprit(self, seen: _Seen, error: Exception) -> KeyArgumentError:
        """The error that names the argument which has no place in a key."""
        for name in list(seen.asked):
            value = seen[name]
            for part, item in value.items() if name == self._catch_all else [(name, value)]:
                try:
                    canonical_text(item)
                except _UNFIT as reason:
                    return self._unfit(part, reason)
        return KeyArgumentError(f"{self.task}: key={self.spec!r} gave what cannot be a key: {error}")

    def _unfit(self, name: str, reason: Exception) -> KeyArgumentError:
        return KeyArgumentError(
            f"{self.task}: argument {name!r} cannot be part of a key: {reason}. "
            "Name a part of it that can, or give a callable as key"
        )


class _Seen(Mapping[str, Any]):
    """The arguments of a call as a key sees them, each carried only if the key asks for it."""

    def __init__(self, arguments: Arguments, look: Callable[[str, Any], Any]) -> None:
        self.asked: dict[str, None] = {}
        self._arguments = arguments
        self._look = look

    def __getitem__(self, name: str) -> Any:
        value = self._arguments[name]
        self.asked[name] = None
        return self._look(name, value)

    def __contains__(self, name: object) -> bool:
        return name in self._arguments

    def __iter__(self) -> Iterator[str]:
        return iter(self._arguments)

    def __len__(self) -> int:
        return len(self._arguments)


def _carry(value: Any, serializer: str) -> Any:
    """``value`` as it arrives when the serializer has carried it."""
    content_type, encoding, payload = dumps(value, serializer=serializer)
    return loads(payload, content_type, encoding, accept=[content_type])


_VARIABLE: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _name_of(signature: inspect.Signature, kind: Any) -> str | None:
    """The name of ``*args`` or ``**kwargs``, if the task takes any."""
    return next((name for name, one in signature.parameters.items() if one.kind is kind), None)


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
