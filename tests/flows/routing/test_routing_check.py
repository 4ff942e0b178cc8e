"""What the check finds, and what it leaves alone."""

from typing import Any

from kombu import Queue

from celery_patterns import Rule, TaskPriority, TaskRouter, task_queues_for
from celery_patterns.flows.routing.routing_check import Finding, check_routes
from tests.flows.routing.conftest import RABBITMQ, REDIS, MakeApp

ALL = Rule("*", queue="rest", name="all")
DECLARED = {"worker_prefetch_multiplier": 1}


def check(make_app: MakeApp, *rules: Rule, consumed: Any = None, **conf: Any) -> list[tuple[str, str]]:
    """The kinds and subjects of what is found in a table on an app whose queues are declared."""
    router = TaskRouter(rules)
    app = make_app(router, **DECLARED, **{**task_queues_for(router, "pinned"), **conf})
    return found(check_routes(app, consumed=consumed))


def found(findings: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(finding.kind, finding.subject) for finding in findings]


def test_a_sound_table_has_no_findings(make_app: MakeApp) -> None:
    """A check that always finds something is switched off."""
    rules = [
        Rule("proj.charge", urgent=True, queue="fast", priority=TaskPriority.HIGH),
        Rule("proj.charge", when=lambda order: order, queue="orders"),
        Rule("proj.charge", tier=("gold", "silver"), queue="orders"),
        Rule("proj.charge", tier="bronze", queue="orders"),
        ALL,
    ]
    consumed = {"fast", "orders", "rest", "pinned"}
    assert check(make_app, *rules, consumed=consumed) == []
    assert check(make_app, *rules, consumed=consumed, broker=RABBITMQ) == []


def test_unreachable_rules(make_app: MakeApp) -> None:
    """A special case below a general one never holds, and nobody notices."""
    rules = [
        Rule("proj.*", urgent=True, queue="q", name="urgent"),
        Rule("proj.charge", urgent=True, header={"a": 1}, queue="q", name="hidden by urgent"),
        Rule("proj.charge", urgent=False, queue="q", name="not hidden"),
        Rule(tier=("gold", "free"), queue="q", name="tiers"),
        Rule(tier="gold", queue="q", name="hidden by tiers"),
        ALL,
        Rule("proj.export", queue="q", name="hidden by all"),
    ]
    assert check(make_app, *rules) == [
        ("unreachable rule", "hidden by urgent"),
        ("unreachable rule", "hidden by tiers"),
        ("unreachable rule", "hidden by all"),
    ]


def test_a_predicate_on_an_argument_that_no_task_has(make_app: MakeApp) -> None:
    """A typing error in a lambda's parameter is a rule that never matches."""
    rules = [
        Rule("proj.charge", when=lambda ordre: True, queue="q", name="typo"),
        Rule("proj.charge", when=lambda order: True, queue="q", name="fine"),
        Rule("proj.export", when=lambda anything: True, queue="q", name="caught by **filters"),
        Rule("elsewhere.*", when=lambda whatever: True, queue="q", name="about tasks that are not known"),
        ALL,
    ]
    assert check(make_app, *rules) == [("unreachable rule", "typo")]


def test_tasks_without_a_rule(make_app: MakeApp) -> None:
    """A new task would go to the default queue because nobody thought of it."""
    rules = [Rule("proj.charge", queue="q"), Rule("proj.m*", urgent=True, queue="q")]
    expected = [("task without a rule", "proj.export"), ("task without a rule", "proj.reports.daily")]
    assert check(make_app, *rules) == expected


def test_a_rule_for_all_urgent_calls_says_nothing_of_the_others(make_app: MakeApp) -> None:
    """One rule without a name would have every forgotten task pass the check."""
    rules = [Rule(urgent=True, queue="q"), Rule("proj.charge", queue="q"), Rule("proj.m*", queue="q")]
    expected = [("task without a rule", "proj.export"), ("task without a rule", "proj.reports.daily")]
    assert check(make_app, *rules) == expected


def test_tasks_that_celery_s_own_dict_routes_have_a_rule(make_app: MakeApp) -> None:
    """An app that moves over bit by bit could not be checked."""
    router = TaskRouter([Rule("proj.charge", queue="q")], default=None)
    app = make_app(router, {"proj.*": "rest"}, **DECLARED, **task_queues_for(router, "pinned", "rest"))
    assert found(check_routes(app)) == []


def test_unknown_queues(make_app: MakeApp) -> None:
    """Tasks would wait in a queue that was made by mistake."""
    queues = [Queue("celery"), Queue("long", alias="short")]
    rules = [Rule("proj.charge", queue="typo"), Rule("proj.export", queue="short"), Rule("*", queue="celery")]
    assert check(make_app, *rules, task_queues=queues) == [
        ("unknown queue", "typo"),
        ("unknown queue", "pinned"),
    ]


def test_queues_that_were_made_on_the_fly_are_unknown_still(make_app: MakeApp) -> None:
    """The finding would go away when somebody publishes to the wrong queue."""
    app = make_app(TaskRouter([Rule("*", queue="typo")]), **DECLARED)
    app.tasks["proj.charge"].delay({})
    assert ("unknown queue", "typo") in found(check_routes(app))


def test_queues_without_a_worker(make_app: MakeApp) -> None:
    """Tasks would wait for ever in a queue that is declared and that nobody reads."""
    rules = [Rule("proj.charge", queue="orders"), ALL]
    assert check(make_app, *rules, consumed={"rest", "pinned"}) == [("queue without a worker", "orders")]
    alias = {"task_queues": [Queue("orders", alias="short"), Queue("rest"), Queue("pinned")]}
    rules[0] = Rule("proj.charge", queue="short")
    assert check(make_app, *rules, consumed={"orders", "rest", "pinned"}, **alias) == []


def test_the_default_queue_needs_a_worker_only_if_something_gets_there(make_app: MakeApp) -> None:
    """A deployment without workers on the default queue could not be checked."""
    assert check(make_app, ALL, consumed={"rest", "pinned"}) == []
    partly = Rule("proj.charge", urgent=True, queue="rest")
    others = Rule(("proj.e*", "proj.m*", "proj.r*"), queue="rest")
    assert check(make_app, partly, others, consumed={"rest", "pinned"}) == [
        ("queue without a worker", "celery")
    ]
    nowhere = Rule("*", priority=TaskPriority.LOW)
    assert check(make_app, nowhere, consumed={"pinned"}) == [("queue without a worker", "celery")]


def test_routers_that_are_never_asked(make_app: MakeApp) -> None:
    """Rules after a router that answers for everything do not hold."""
    router = TaskRouter([Rule("*", queue="q", priority=TaskPriority.LOW)])
    app = make_app(router, {"a": "q"}, **DECLARED, **task_queues_for(router, "pinned"))
    assert found(check_routes(app)) == [("router never asked", "MapRoute")]


class HeaderRouter(TaskRouter):
    """Asks for headers."""

    ROUTES = (Rule(header={"a": 1}, queue="q", name="by header"), Rule("*", queue="q"))


def test_a_router_given_by_its_class_sees_no_headers(make_app: MakeApp) -> None:
    """Its rules by header never match, and nobody notices."""
    settings = task_queues_for("q", "pinned")
    app = make_app(f"{__name__}.HeaderRouter", **DECLARED, **settings)
    assert found(check_routes(app)) == [("blind router", "by header")]
    assert found(check_routes(make_app(HeaderRouter(), **DECLARED, **settings))) == []


def test_advice_about_priorities_fails_nothing(make_app: MakeApp) -> None:
    """Priorities that RabbitMQ ignores, or a worker's prefetch undoes, would go unnoticed."""
    router = TaskRouter([Rule("*", queue="q", priority=TaskPriority.LOW)])
    queues = [Queue("q"), Queue("pinned", queue_arguments={"x-queue-type": "quorum"}), Queue("celery")]

    def advice(broker: str) -> list[tuple[str, str, bool]]:
        app = make_app(router, broker=broker, task_queues=queues)
        return [(finding.kind, finding.subject, finding.fails) for finding in check_routes(app)]

    prefetch = ("prefetch", "worker_prefetch_multiplier", False)
    assert advice(REDIS) == [prefetch]
    assert advice(RABBITMQ) == [prefetch, ("unsorted queue", "q", False)]


def test_an_override_may_speak_of_any_task(make_app: MakeApp) -> None:
    """Each task of a router in the classic style would be reported."""

    class Router(TaskRouter):
        def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> Any:
            return "q"

    app = make_app(Router(), **DECLARED, **task_queues_for("q", "pinned"))
    assert found(check_routes(app)) == []
