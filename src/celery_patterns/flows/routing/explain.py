"""How an explanation is found: the table is asked as when publishing, and each rule for its reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from celery_patterns.errors import UnroutableQueue
from celery_patterns.flows.routing.decision import NOTHING, Decision, route_for, settle_options
from celery_patterns.flows.routing.destination import is_settled
from celery_patterns.flows.routing.explanation import Explanation, Verdict
from celery_patterns.flows.routing.routed_call import RoutedCall
from celery_patterns.flows.routing.router_apps import app_of
from celery_patterns.flows.routing.rule_names import describe_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from celery import Celery
    from celery.app.task import Task

    from celery_patterns.flows.routing.router import TaskRouter
    from celery_patterns.flows.routing.rule import Rule

_ATTRIBUTES: Final = ("queue", "exchange", "routing_key", "priority")
"""What a task's attributes can say about its route; Celery passes them as options."""


def explain(router: TaskRouter, call: RoutedCall) -> Explanation:
    """What ``TaskRouter.explain`` answers."""
    raised: list[str] = []
    explicit, said = dict(call.options), call.priority
    decision = router.decide(call, lambda source, _, error: raised.append(f"{source!r} raised {error!r}"))
    considered = tuple(_verdicts(router, decision, call))
    route, error = _route(decision, call)
    published = {**route, **{name: value for name, value in call.options.items() if value is not None}}
    queue = published.get("queue") or (None if is_settled(call.options) else call.app.conf.task_default_queue)
    return Explanation(
        task=call.name,
        rule=None if decision is NOTHING else decision.source,
        why=_why(considered, raised, explicit),
        considered=considered,
        queue=getattr(queue, "name", queue),
        priority=decision.priority if said is None else said,
        options=published,
        error=error,
    )


def call_to_explain(
    router: TaskRouter,
    task: str | Task[Any, Any],
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    *,
    app: Celery | None,
    options: Mapping[str, Any],
) -> RoutedCall:
    """The call as the router would see it: with what the task's attributes say among its options."""
    if isinstance(task, str):
        app = app or app_of(router, None)
        name, known = task, app.tasks.get(task)
    else:
        app, name, known = app or task.app, task.name, task
    attributes = {name: getattr(known, name, None) for name in _ATTRIBUTES}
    said = {name: value for name, value in attributes.items() if value is not None}
    return RoutedCall(app, name, args, kwargs, {**said, **options}, task=known, tier_of=router.tier_of)


def _route(decision: Decision, call: RoutedCall) -> tuple[dict[str, Any], Exception | None]:
    try:
        settle_options(decision, call)
        return route_for(decision, call), None
    except UnroutableQueue as error:
        return dict(decision.route), error


def _verdicts(router: TaskRouter, decision: Decision, call: RoutedCall) -> Iterator[Verdict]:
    """What each rule says, down to the one that decides."""
    rules = {str(rule.name): rule for rule in router.table.rules}
    if decision.source not in rules and decision.source.endswith(".route_for_task"):
        yield Verdict(rule=decision.source, matched=True, why="it answered for this call")
        return
    for name, rule in rules.items():
        verdict = consider(rule, call)
        yield verdict
        if name == decision.source or verdict.raised:
            return


def consider(rule: Rule, call: RoutedCall) -> Verdict:
    """What one rule says of a call, condition by condition."""
    name = str(rule.name)
    if not rule.speaks_of(call.name):
        return Verdict(rule=name, matched=False, why=f"it is about {describe_names(rule.patterns)}")
    for condition in rule.conditions:
        try:
            if not condition.holds(call):
                return Verdict(rule=name, matched=False, why=condition.why_not(call))
        except Exception as error:  # noqa: BLE001 - a user's function, whose error is what is to be shown
            return Verdict(rule=name, matched=False, raised=True, why=f"{condition} raised {error!r}")
    said = " and ".join(map(str, rule.conditions))
    return Verdict(rule=name, matched=True, why=f"{said} holds" if said else "the name matches")


def _why(considered: Sequence[Verdict], raised: Sequence[str], explicit: Mapping[str, Any]) -> str:
    if raised:
        why = f"{raised[0]}, so the default decides"
    elif considered and considered[-1].matched:
        why = considered[-1].why
    else:
        why = "no rule matches"
    return f"{why}; the call itself names where it goes, which wins" if is_settled(explicit) else why
