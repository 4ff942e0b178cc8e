"""One line of a routing table: which calls it speaks of, and where they go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kombu import Queue

from celery_patterns.errors import RuleError
from celery_patterns.flows.routing.of_arguments import OfArguments
from celery_patterns.flows.routing.priority import HIGHEST_NUMBER, TaskPriority
from celery_patterns.flows.routing.rule_conditions import ArgumentsMeet, Condition, HeaderValue, Tier, Urgency
from celery_patterns.flows.routing.rule_names import (
    NamePattern,
    TaskNames,
    covers,
    describe_names,
    matches_name,
    name_patterns,
)

if TYPE_CHECKING:
    from celery_patterns.flows.routing.routed_call import RoutedCall

ROUTE_OPTIONS: Final = frozenset(
    (
        "compression",
        "confirm_timeout",
        "delivery_mode",
        "exchange",
        "exchange_type",
        "immediate",
        "mandatory",
        "priority",
        "queue",
        "retry",
        "retry_policy",
        "routing_key",
        "serializer",
        "timeout",
    )
)
"""What a route may say. Celery takes nothing else from a router: ``countdown`` or ``expires`` end in a
TypeError when a task is published, and ``headers`` would be lost for every caller that sends some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Calls for which all of this holds go to this queue, with this priority.

    A rule that asks nothing speaks of every call: put one last to say where the rest goes.

    Args:
        task: The names: one exact name, a glob (``"proj.reports.*"``), a compiled regular expression (matched
            from the start of the name), or a tuple of them. Left out: every task.
        queue: Where to. A name, or a kombu ``Queue``.
        priority: How soon, as a :class:`TaskPriority`. A number is sent as it is, and means different
            things on different brokers.
        when: A function of the task's arguments by name. A call that lacks an argument it asks for does not
            match; one that makes it raise goes to the router's default.
        tier: The tenant's tier, or several: of the header that ``submit_with_priority`` sends, else as the
            router's ``tier_of`` finds it.
        urgent: Whether the call says ``urgent=True``, as an argument, as an option or in a header.
        header: Headers (or stamps) and their values; a function is asked about the value, if there is one.
        options: What else Celery takes from a router: ``exchange``, ``routing_key``, ``serializer``...
        name: What logs and errors call the rule; by default its place in the table and what it asks.

    Raises:
        RuleError: The rule says nothing, or something that Celery could not obey.

    Example:
        >>> rule = Rule("proj.orders.*", when=lambda order: order["total"] > 1000, queue="big-orders")
        >>> print(rule)
        proj.orders.* when(order)
    """

    task: TaskNames = field(default=None, kw_only=False)
    queue: str | Queue | None = None
    priority: TaskPriority | int | None = None
    when: Callable[..., Any] | None = None
    tier: str | tuple[str, ...] | None = None
    urgent: bool | None = None
    header: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    patterns: tuple[NamePattern, ...] = field(init=False, repr=False, compare=False)
    conditions: tuple[Condition, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        set_once = object.__setattr__  # the way to derive fields of a frozen dataclass
        set_once(self, "header", _mapping("header", self.header))
        set_once(self, "options", _mapping("options", self.options))
        set_once(self, "patterns", name_patterns(self.task))
        set_once(self, "conditions", tuple(self._conditions()))
        _check_route(self)

    @classmethod
    def from_route(cls, task: TaskNames, route: str | Mapping[str, Any] | Rule) -> Rule:
        """The rule that an entry of Celery's own ``task_routes`` means."""
        if isinstance(route, Rule):
            return route
        if isinstance(route, str):
            return cls(task, queue=route)
        if not isinstance(route, Mapping):
            raise RuleError(
                f"{task!r}: {route!r} is no route; write a queue's name, a dict of options, or a Rule"
            )
        said = {key: value for key, value in route.items() if key in {"queue", "priority"}}
        return cls(task, **said, options={key: value for key, value in route.items() if key not in said})

    @property
    def route(self) -> dict[str, Any]:
        """The options that the rule gives, without the priority."""
        return {**self.options, **({} if self.queue is None else {"queue": self.queue})}

    @property
    def tiers(self) -> frozenset[str]:
        """The tiers that the rule names."""
        return frozenset() if self.tier is None else _tiers(self.tier)

    def speaks_of(self, task_name: str) -> bool:
        """Whether the rule is about the task of this name at all."""
        return matches_name(self.patterns, task_name)

    def holds(self, call: RoutedCall) -> bool:
        """Whether all conditions hold of a call, whose name matches."""
        for condition in self.conditions:  # noqa: SIM110 - all() of a generator costs a frame for each message
            if not condition.holds(call):
                return False
        return True

    def hides(self, later: Rule) -> bool:
        """Whether no call can get past this rule and still match ``later``."""
        return all(any(covers(mine, its) for mine in self.patterns) for its in later.patterns) and all(
            any(mine.implied_by(its) for its in later.conditions) for mine in self.conditions
        )

    def __str__(self) -> str:
        return " ".join((describe_names(self.patterns), *map(str, self.conditions)))

    def _conditions(self) -> Iterator[Condition]:
        """Cheap questions first: the function of the arguments binds the call to the task's signature."""
        if self.urgent is not None:
            yield Urgency(self.urgent)
        for name, wanted in self.header.items():
            yield HeaderValue(name, wanted)
        if self.tier is not None:
            yield Tier(self.tiers)
        if self.when is not None:
            yield ArgumentsMeet(OfArguments(self.when, "when"))


def _check_route(rule: Rule) -> None:
    """Refuse what Celery would only find out when a task is published."""
    if rule.queue is None and rule.priority is None and not rule.options:
        raise RuleError(f"Rule for {rule} routes nowhere: give it a queue=, a priority=, or options=")
    if rule.queue is not None and (not rule.queue or not isinstance(rule.queue, str | Queue)):
        raise RuleError(f"queue={rule.queue!r}: write the queue's name")
    check_priority(rule.priority)
    if rule.urgent is not None and not isinstance(rule.urgent, bool):
        raise RuleError(f"urgent={rule.urgent!r}: write True or False, or leave it out")
    check_options(rule.options, f"Rule for {rule}")
    twice = {"queue", "priority"} & rule.options.keys()
    if twice:
        raise RuleError(
            f"Rule for {rule}: say {' and '.join(sorted(twice))} as an argument of Rule, not in options="
        )


def check_priority(priority: object) -> None:
    """Refuse what is no priority.

    Raises:
        RuleError: Saying what to write instead.
    """
    if priority is None or isinstance(priority, TaskPriority):
        return
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise RuleError(f"priority={priority!r}: write a TaskPriority, such as TaskPriority.HIGH")
    if not 0 <= priority <= HIGHEST_NUMBER:
        raise RuleError(f"priority={priority!r}: brokers take 0 to {HIGHEST_NUMBER}")


def check_options(options: Mapping[str, Any], source: str) -> None:
    """Refuse options that Celery does not take from a router.

    Raises:
        RuleError: Naming them and what to do instead.
    """
    refused = sorted(set(options) - ROUTE_OPTIONS)
    if refused:
        raise RuleError(
            f"{source}: a router cannot set {', '.join(refused)}; set it on the task or in apply_async "
            f"(a route may say: {', '.join(sorted(ROUTE_OPTIONS))})"
        )


def _mapping(option: str, value: object) -> Mapping[str, Any]:
    """A copy that nobody else can change."""
    if not isinstance(value, Mapping):
        raise RuleError(f"{option}={value!r}: write a dict")
    return dict(value)


def _tiers(tier: object) -> frozenset[str]:
    tiers = (tier,) if isinstance(tier, str) else tier
    if not isinstance(tiers, tuple | list | set | frozenset) or not tiers or not all(map(_is_name, tiers)):
        raise RuleError(f"tier={tier!r}: write a tier's name, or a tuple of them")
    return frozenset(tiers)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)
