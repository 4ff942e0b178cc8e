"""The arguments of a call as its worker sees them: bound by name, and carried by the task serializer.

The producer has the values as they were given, the worker as they arrived. A key is made of what
arrives, so at the producer each argument that a key asks for is carried once for the purpose.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from kombu.exceptions import DecodeError, EncodeError
from kombu.serialization import dumps, loads

from celery_patterns.core.canonical import canonical_text
from celery_patterns.errors import KeyArgumentError

Arguments = Mapping[str, Any]

UNFIT: Final = (EncodeError, DecodeError, TypeError, ValueError, RecursionError)
"""What serialisers and ``canonical_text`` raise for a value they cannot take."""

_MISSING: Final = object()
_BY_POSITION: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Parameters:
    """What a task can be called with.

    Args:
        task: The task's name, for messages.
        signature: The signature of the task's body.
        serializer: The name of the serializer that carries its calls.
    """

    def __init__(self, task: str, signature: inspect.Signature, serializer: str) -> None:
        self.task = task
        self.signature = signature
        self.serializer = serializer
        self.catch_all = _name_of(signature, inspect.Parameter.VAR_KEYWORD)
        self._rest = _name_of(signature, inspect.Parameter.VAR_POSITIONAL)
        self._in_order = _names_in_order(signature)
        self._defaults = dict(self._carried_defaults())
        self._default_texts = dict(self._canonical_defaults())

    def __contains__(self, name: str) -> bool:
        return name in self.signature.parameters

    def __str__(self) -> str:
        return ", ".join(self.signature.parameters) or "none"

    def bind(self, args: Sequence[Any], kwargs: Arguments) -> dict[str, Any]:
        """The arguments of a call by name, defaults included, in the order of the signature.

        A default is given as if the message had carried it, so that a call which leaves it out and
        one which spells it out agree; in any other order, a key made of all values would tell them apart.

        Raises:
            KeyArgumentError: The arguments do not fit the signature.
        """
        if not kwargs and self._in_order is not None and len(args) == len(self._in_order):
            return dict(zip(self._in_order, args, strict=True))  # as most calls are; binding takes longer
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise KeyArgumentError(f"{self.task}: {error}; the call has no key") from error
        found = {**self._defaults, **bound.arguments}
        return {name: found[name] for name in self.signature.parameters}

    def is_default(self, name: str, value: Any) -> bool:
        """Whether leaving the argument out would mean the same."""
        if value is self._defaults.get(name, _MISSING):
            return True
        if name in {self._rest, self.catch_all}:
            return not value
        default = self._default_texts.get(name)
        if default is None:
            return False
        try:
            return default == canonical_text(value)
        except UNFIT:
            return False

    def carried(self, name: str, value: Any) -> Any:
        """An argument as it arrives when the serializer has carried it.

        Raises:
            KeyArgumentError: It cannot be carried.
        """
        if value is self._defaults.get(name, _MISSING):
            return value
        if name == self.catch_all:
            return {extra: self._carried_one(extra, item) for extra, item in value.items()}
        if name == self._rest:
            return tuple(self._carried_one(name, list(value)))
        return self._carried_one(name, value)

    def unfit(self, names: Iterable[str], seen: Arguments) -> KeyArgumentError | None:
        """The error that names the first of these arguments that has no place in a key."""
        for name in names:
            value = seen[name]
            for part, item in value.items() if name == self.catch_all else [(name, value)]:
                try:
                    canonical_text(item)
                except UNFIT as reason:
                    return self._unfit(part, reason)
        return None

    def _carried_one(self, name: str, value: Any) -> Any:
        try:
            return _carry(value, self.serializer)
        except UNFIT as reason:
            raise self._unfit(name, reason) from reason

    def _unfit(self, name: str, reason: Exception) -> KeyArgumentError:
        return KeyArgumentError(
            f"{self.task}: argument {name!r} cannot be part of a key: {reason}. "
            "Name a part of it that can, or give a callable as key"
        )

    def _carried_defaults(self) -> Iterable[tuple[str, Any]]:
        """What the body gets for each argument that a call leaves out."""
        for name, parameter in self.signature.parameters.items():
            if name == self._rest:
                yield name, ()
            elif name == self.catch_all:
                yield name, {}
            elif parameter.default is not parameter.empty:
                try:
                    yield name, _carry(parameter.default, self.serializer)
                except UNFIT:  # it cannot arrive in a message either, so only itself is equal to it
                    yield name, parameter.default

    def _canonical_defaults(self) -> Iterable[tuple[str, str]]:
        for name, default in self._defaults.items():
            try:
                yield name, canonical_text(default)
            except UNFIT:
                continue


class Seen(Mapping[str, Any]):
    """The arguments of a call as a key sees them, each looked at only if the key asks for it.

    Args:
        arguments: From :meth:`Parameters.bind`.
        look: What to make of an argument, by its name and value.
    """

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


def _names_in_order(signature: inspect.Signature) -> tuple[str, ...] | None:
    """The names of all arguments, where each can be given by its position."""
    parameters = signature.parameters.values()
    return tuple(signature.parameters) if all(one.kind in _BY_POSITION for one in parameters) else None


def _name_of(signature: inspect.Signature, kind: Any) -> str | None:
    """The name of ``*args`` or ``**kwargs``, if the task takes any."""
    return next((name for name, one in signature.parameters.items() if one.kind is kind), None)
