"""What a rule may ask of a call, besides its name. Each condition is a value that can say why it failed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from typing_extensions import override

if TYPE_CHECKING:
    from celery_patterns.flows.routing.of_arguments import OfArguments
    from celery_patterns.flows.routing.routed_call import RoutedCall


class Condition(ABC):
    """One thing that must hold of a call. ``str(condition)`` is how operators read it."""

    __slots__ = ()

    @abstractmethod
    def holds(self, call: RoutedCall) -> bool:
        """Whether it holds; may raise what a user's function raises."""

    @abstractmethod
    def why_not(self, call: RoutedCall) -> str:
        """What the call has instead."""

    def implied_by(self, other: Condition) -> bool:
        """Whether it surely holds for every call for which ``other`` does."""
        return self == other


@dataclass(frozen=True, slots=True)
class Urgency(Condition):
    """The call says, or does not say, that it is urgent."""

    wanted: bool

    @override
    def holds(self, call: RoutedCall) -> bool:
        return call.urgent is self.wanted

    @override
    def why_not(self, call: RoutedCall) -> str:
        return "it is urgent" if call.urgent else "it does not say urgent=True"

    def __str__(self) -> str:
        return "urgent" if self.wanted else "not urgent"


@dataclass(frozen=True, slots=True)
class HeaderValue(Condition):
    """A header, or a stamp, has a value, or satisfies a function of it."""

    name: str
    wanted: Any

    @override
    def holds(self, call: RoutedCall) -> bool:
        value = call.header(self.name)
        if callable(self.wanted):
            return value is not None and bool(self.wanted(value))
        return bool(value == self.wanted)

    @override
    def why_not(self, call: RoutedCall) -> str:
        return f"header {self.name} is {call.header(self.name)!r}"

    def __str__(self) -> str:
        wanted = "as its function says" if callable(self.wanted) else repr(self.wanted)
        return f"header {self.name} {wanted}"


@dataclass(frozen=True, slots=True)
class Tier(Condition):
    """The tenant is of one of these tiers."""

    wanted: frozenset[str]

    @override
    def holds(self, call: RoutedCall) -> bool:
        return call.tier in self.wanted

    @override
    def why_not(self, call: RoutedCall) -> str:
        return f"its tier is {call.tier!r}"

    @override
    def implied_by(self, other: Condition) -> bool:
        return isinstance(other, Tier) and other.wanted <= self.wanted

    def __str__(self) -> str:
        return f"tier {' or '.join(sorted(self.wanted))}"


@dataclass(frozen=True, slots=True)
class ArgumentsMeet(Condition):
    """A user's function of the arguments says yes. A call that lacks what it asks for does not match."""

    function: OfArguments

    @override
    def holds(self, call: RoutedCall) -> bool:
        arguments = call.arguments
        return not self.function.missing(arguments) and bool(self.function(arguments))

    @override
    def why_not(self, call: RoutedCall) -> str:
        missing = self.function.missing(call.arguments)
        return f"it has no argument {', '.join(missing)}" if missing else f"{self.function} says no"

    def __str__(self) -> str:
        return str(self.function)
