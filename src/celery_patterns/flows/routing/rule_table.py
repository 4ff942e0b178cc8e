"""Rules in order, with what is known of each task name worked out once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from celery.exceptions import SoftTimeLimitExceeded

from celery_patterns.errors import RuleError
from celery_patterns.flows.routing.decision import NOTHING, Decision
from celery_patterns.flows.routing.priority import TaskPriority
from celery_patterns.flows.routing.routed_call import RoutedCall
from celery_patterns.flows.routing.rule import Rule
from celery_patterns.flows.routing.rule_names import ANY_TASK, NamePattern, is_glob

Route = str | Mapping[str, Any] | Rule
Routes = Mapping[Any, Any] | Iterable[Rule]
"""Rules in order, or a dict of routes by name, of which a type checker could not follow a mixed literal."""
Failed = Callable[[str, RoutedCall, Exception], None]

UNSET: Final = object()
"""No default was given, which is not the same as none."""

_REMEMBERED_NAMES: Final = 10_000


@dataclass(slots=True)
class Plan:
    """What the table says of one task name.

    Args:
        candidates: The rules that may match, up to the first that asks nothing more than the name.
        otherwise: The decision if none of them does.
    """

    candidates: tuple[tuple[Rule, Decision], ...]
    otherwise: Decision

    @property
    def is_sure(self) -> bool:
        """Whether the decision is the same for all calls of this name."""
        return not self.candidates or not self.candidates[0][0].conditions


class RuleTable:
    """A table of rules; the first match wins.

    Args:
        routes: Rules in order, or a dict in the form of Celery's ``task_routes``, where exact names come
            before patterns.
        default: What holds where no rule matches, or where one raises.
    """

    def __init__(self, routes: Iterable[Rule], default: Route | object | None = UNSET) -> None:
        self.rules = tuple(_named(routes))
        self.has_levels = any(isinstance(rule.priority, TaskPriority) for rule in self.rules)
        self.default = self._default(default)
        self.decisions = tuple((rule, Decision.of(rule, self._unless_said)) for rule in self.rules)
        self._plans: dict[str, Plan] = {}

    def plan(self, name: str) -> Plan:
        """What the table says of calls of this name."""
        found = self._plans.get(name)
        if found is None:
            if len(self._plans) >= _REMEMBERED_NAMES:  # names that somebody makes up as they go
                self._plans.clear()
            found = self._plans[name] = Plan(tuple(self._candidates(name)), self.default)
        return found

    def decide(self, call: RoutedCall, failed: Failed) -> Decision:
        """The decision about a call; ``failed`` is told of a rule that raises, and the default decides."""
        for rule, decision in self.plan(call.name).candidates:
            try:
                if rule.holds(call):
                    return decision
            except SoftTimeLimitExceeded:  # of the task that publishes: no fault of the rule
                raise
            except Exception as error:  # noqa: BLE001 - a user's function must not lose a task; it is reported
                failed(str(rule.name), call, error)
                return self.default
        return self.default

    def unreachable(self) -> Iterable[tuple[Rule, Rule]]:
        """Rules that no call can reach, each with the earlier rule that takes all its calls."""
        for place, rule in enumerate(self.rules):
            for earlier in self.rules[:place]:
                if earlier.hides(rule):
                    yield rule, earlier
                    break

    @property
    def _unless_said(self) -> TaskPriority | None:
        """A call whose rule names no priority is NORMAL, once any rule speaks of priorities.

        Left to itself such a message would be among the first on Redis, and the last on RabbitMQ.
        """
        return TaskPriority.NORMAL if self.has_levels else None

    def _candidates(self, name: str) -> Iterable[tuple[Rule, Decision]]:
        for rule, decision in self.decisions:
            if rule.speaks_of(name):
                yield rule, decision
                if not rule.conditions:
                    return

    def _default(self, default: Any) -> Decision:
        if default is None:
            return NOTHING
        if default is UNSET:
            return Decision("default", {}, TaskPriority.NORMAL) if self.has_levels else NOTHING
        rule = replace(Rule.from_route(None, default), name="default")
        if rule.conditions or rule.patterns != (ANY_TASK,):
            raise RuleError(
                f"default={default!r}: the default holds for every call; make it the last rule instead"
            )
        self.has_levels = self.has_levels or isinstance(rule.priority, TaskPriority)
        return Decision.of(rule, self._unless_said)


def rules_of(routes: Routes) -> tuple[Rule, ...]:
    """The rules that a table is given as.

    Raises:
        RuleError: Something in it is no rule.
    """
    if isinstance(routes, Mapping):
        exact_first = sorted(routes.items(), key=lambda entry: _is_pattern(entry[0]))
        return tuple(Rule.from_route(task, route) for task, route in exact_first)
    rules = (routes,) if isinstance(routes, Rule | str) else tuple(routes)
    for rule in rules:
        if not isinstance(rule, Rule):
            raise RuleError(
                f"{rule!r} is no Rule; write Rule('proj.reports.*', queue='reports'), or pass a dict"
            )
    return rules


def _is_pattern(task: NamePattern) -> bool:
    return not isinstance(task, str) or is_glob(task)


def _named(rules: Iterable[Rule]) -> Iterable[Rule]:
    """The rules, each with a name of its own."""
    taken = {"default"}
    for number, rule in enumerate(rules, start=1):
        name = rule.name or f"rule {number}: {rule}"
        if name in taken:
            raise RuleError(f"name={name!r}: two rules of that name could not be told apart in logs")
        taken.add(name)
        yield replace(rule, name=name)
