"""What the router says about its decisions."""

from typing import Any

from kombu import Queue

from celery_patterns import Rule, TaskPriority, TaskRouter
from celery_patterns.errors import UnroutableQueue
from celery_patterns.flows.routing.explanation import Explanation
from tests.flows.routing.conftest import RABBITMQ, MakeApp


def is_large(order: dict[str, int]) -> bool:
    return order["total"] > 1000


def router() -> TaskRouter:
    return TaskRouter(
        [
            Rule("proj.reports.*", queue="reports", name="reports"),
            Rule(urgent=True, queue="fast", priority=TaskPriority.CRITICAL, name="urgent"),
            Rule("proj.charge", when=is_large, queue="large", priority=TaskPriority.HIGH, name="large"),
            Rule(tier="gold", header={"region": "eu"}, queue="gold", name="gold"),
        ]
    )


def lines(explanation: Explanation) -> list[str]:
    return str(explanation).splitlines()


def test_it_says_which_rule_why_and_with_what_result(make_app: MakeApp) -> None:
    """Nobody could tell why a task is where it is."""
    app = make_app(router())
    told = app.conf.task_routes[0].explain("proj.charge", ({"total": 2000},), {})
    assert lines(told) == [
        "proj.charge: large, because is_large(order) holds",
        "   reports: it is about proj.reports.*",
        "   urgent: it does not say urgent=True",
        "-> large: is_large(order) holds",
        "=> queue large, priority 3 (HIGH)",
    ]
    assert (told.rule, told.queue, told.priority, told.error) == ("large", "large", TaskPriority.HIGH, None)


def test_the_default_and_why_no_rule_matched(make_app: MakeApp) -> None:
    """A rule that should have matched would leave no trace of why it did not."""
    app = make_app(router(), broker=RABBITMQ)
    told = app.conf.task_routes[0].explain(
        app.tasks["proj.method"], kwargs={"order": 1}, headers={"region": "us"}
    )
    assert lines(told) == [
        "proj.method: default, because no rule matches",
        "   reports: it is about proj.reports.*",
        "   urgent: it does not say urgent=True",
        "   large: it is about proj.charge",
        "   gold: header region is 'us'",
        "=> queue celery, priority 4 (NORMAL), headers {'region': 'us'}",
    ]


def test_missing_arguments_and_other_tiers(make_app: MakeApp) -> None:
    """The reason would be the rule's, and not the call's."""
    rules = [Rule(when=lambda order: True, queue="q", name="a"), Rule(tier="gold", queue="q", name="b")]
    app = make_app(TaskRouter([*rules, Rule(urgent=False, queue="q", name="c")]))
    told = app.conf.task_routes[0].explain("proj.reports.daily", headers={"cp-tier": "free"}, urgent=True)
    assert [verdict.why for verdict in told.considered] == [
        "it has no argument order",
        "its tier is 'free'",
        "it is urgent",
    ]
    assert told.rule is None
    assert lines(told)[0] == "proj.reports.daily: no rule, because no rule matches"


def test_explicit_destinations_are_said_to_win(make_app: MakeApp) -> None:
    """The explanation would show the rule's queue, and the task would be in another."""
    app = make_app(router())
    told = app.conf.task_routes[0].explain("proj.pinned", urgent=True)
    assert (told.rule, told.queue) == ("urgent", "pinned")
    assert told.why == "urgent holds; the call itself names where it goes, which wins"
    told = app.conf.task_routes[0].explain("proj.charge", ({"total": 2000},), priority=TaskPriority.LOW)
    assert (told.priority, told.options["priority"]) == (TaskPriority.LOW, 6)


def test_a_rule_that_raises_is_shown_and_not_counted(make_app: MakeApp, events: list[Any]) -> None:
    """Looking would change the counters, and the error would have to be searched for in the logs."""
    app = make_app(router())
    told = app.conf.task_routes[0].explain("proj.charge", ({},))
    assert told.rule == "default"
    assert "'large' raised KeyError('total'), so the default decides" in told.why
    assert told.considered[-1].why == "is_large(order) raised KeyError('total')"
    assert not app.conf.task_routes[0].failures
    assert not events


def test_what_would_fail_is_said_to_fail(make_app: MakeApp) -> None:
    """The explanation would promise a queue that the call never reaches."""
    app = make_app(router(), task_queues=[Queue("celery")], task_create_missing_queues=False)
    told = app.conf.task_routes[0].explain("proj.reports.daily")
    assert isinstance(told.error, UnroutableQueue)
    assert lines(told)[-1].startswith("=> fails: rule 'reports' sends proj.reports.daily to queue 'reports'")


def test_an_override_is_named(make_app: MakeApp) -> None:
    """The table would be blamed for what code has decided."""

    class Router(TaskRouter):
        def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> Any:
            return {"queue": "code"} if task == "proj.charge" else None

    app = make_app(Router([Rule("*", queue="table", name="all")]))
    told = app.conf.task_routes[0].explain("proj.charge", ({},))
    assert (told.rule, told.queue) == ("Router.route_for_task", "code")
    assert app.conf.task_routes[0].explain("proj.export", ("t",)).rule == "all"


def test_an_override_that_asks_a_failing_table_is_not_counted_either(make_app: MakeApp) -> None:
    """Looking would change the counters of a router in the classic style."""

    class Router(TaskRouter):
        def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> Any:
            return super().route_for_task(task, args, kwargs)

    app = make_app(Router([Rule("proj.charge", when=is_large, queue="large")], default="rest"))
    told = app.conf.task_routes[0].explain("proj.charge", ({},))
    assert told.queue == "rest"
    assert not app.conf.task_routes[0].failures
