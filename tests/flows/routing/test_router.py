"""The router through Celery's own publishing, on apps for Redis and for RabbitMQ that no broker answers."""

import logging
import pickle
import re
from typing import Any, ClassVar

import pytest
from celery import Celery
from celery.canvas import xstarmap
from celery.exceptions import QueueNotFound, SoftTimeLimitExceeded
from kombu import Exchange, Queue

from celery_patterns import Event, Rule, TaskPriority, TaskRouter
from celery_patterns.errors import UnroutableQueue
from tests.flows.routing.conftest import RABBITMQ, REDIS, MakeApp

BULK, LOW, NORMAL, HIGH, CRITICAL = TaskPriority


def send(app: Celery, task: str, *args: Any, **options: Any) -> Any:
    """Publish, and return what would have gone out."""
    kwargs = options.pop("kwargs", None)
    app.tasks[task].apply_async(args, kwargs, **options)
    return app.outbox.last


def is_large(order: dict[str, int]) -> bool:
    return order["total"] > 1000


PLANS = {"acme": "gold", "small": "free"}


def plan_of(tenant: str) -> str | None:
    return PLANS.get(tenant)


# --- which rule -------------------------------------------------------------------------------------------


def test_names_exact_glob_and_regex(make_app: MakeApp) -> None:
    """A task would go to the queue of another."""
    app = make_app(
        TaskRouter(
            [
                Rule("proj.charge", queue="exact"),
                Rule("proj.reports.*", queue="glob"),
                Rule(re.compile(r"proj\.(export|import)$"), queue="regex"),
                Rule(("proj.method", "proj.other"), queue="several"),
            ]
        )
    )
    assert send(app, "proj.charge", {}).queue == "exact"
    assert send(app, "proj.reports.daily").queue == "glob"
    assert send(app, "proj.export", "t").queue == "regex"
    assert send(app, "proj.method", {}).queue == "several"
    app.send_task("elsewhere.task")
    assert app.outbox.last.queue == "celery"


def test_the_first_match_wins(make_app: MakeApp) -> None:
    """A special case written above a general one would never hold."""
    app = make_app(
        TaskRouter([Rule("proj.*", urgent=True, queue="first"), Rule("proj.charge", queue="second")])
    )
    assert send(app, "proj.charge", {}).queue == "second"
    assert send(app, "proj.charge", {}, True, urgent=True).queue == "first"


@pytest.mark.parametrize("call", [([{"total": 2000}], {}), ([], {"order": {"total": 2000}})])
def test_arguments_are_found_however_they_are_passed(make_app: MakeApp, call: Any) -> None:
    """A large order would be routed by whether its argument was given by position or by name."""
    app = make_app(TaskRouter([Rule("proj.*", when=is_large, queue="large")]))
    args, kwargs = call
    assert send(app, "proj.charge", *args, kwargs=kwargs).queue == "large"
    assert send(app, "proj.method", *args, kwargs=kwargs).queue == "large"
    app.send_task("proj.unknown.here", (), {"order": {"total": 2000}})
    assert app.outbox.last.queue == "large", "a keyword argument has its name without the task"


def test_a_known_task_that_is_sent_by_name_has_names_for_its_arguments(make_app: MakeApp) -> None:
    """send_task and apply_async would route one and the same call differently."""
    app = make_app(TaskRouter([Rule("proj.*", when=is_large, queue="large")]))
    app.finalize()
    app.send_task("proj.charge", ({"total": 2000},))
    assert app.outbox.last.queue == "large"


def test_predicates_see_defaults_and_caught_keywords(make_app: MakeApp) -> None:
    """A rule about an argument that the caller left out, or that **kwargs caught, would never match."""
    app = make_app(
        TaskRouter(
            [
                Rule(when=lambda amount: amount == 1, queue="default-amount"),
                Rule(when=lambda region: region == "eu", queue="caught"),
                Rule(when=lambda tenant, region="nowhere": region == "nowhere", queue="optional"),
                Rule(when=lambda **arguments: arguments["tenant"] == "acme", queue="all"),
            ]
        )
    )
    assert send(app, "proj.charge", {}).queue == "default-amount"
    assert send(app, "proj.export", "t", region="x", kwargs={"region": "eu"}).queue == "caught"
    assert send(app, "proj.export", "t").queue == "optional"
    assert send(app, "proj.export", "acme", kwargs={"region": "us"}).queue == "all"


def test_a_call_without_the_argument_does_not_match(make_app: MakeApp, events: list[Event]) -> None:
    """A rule for all tasks with an order would fail for each task without one."""
    app = make_app(TaskRouter([Rule(when=is_large, queue="large")]))
    assert send(app, "proj.reports.daily").queue == "celery"
    assert events == []


def test_urgent_as_argument_option_or_header(make_app: MakeApp) -> None:
    """Urgent calls would queue with the others, depending on how urgency was said."""
    app = make_app(TaskRouter([Rule(urgent=True, queue="fast"), Rule(urgent=False, queue="slow")]))
    assert send(app, "proj.charge", {}, kwargs={"urgent": True}).queue == "fast"
    assert send(app, "proj.charge", {}, 1, True).queue == "fast"
    assert send(app, "proj.reports.daily", headers={"cp-urgent": True}).queue == "fast"
    assert send(app, "proj.reports.daily", headers={"cp-urgent": "true"}).queue == "fast"
    assert send(app, "proj.reports.daily", headers={"cp-urgent": "false"}).queue != "fast"
    assert send(app, "proj.reports.daily").queue == "slow"
    sent = send(app, "proj.reports.daily", urgent=True, headers={"mine": 1})
    assert sent.queue == "fast"
    assert sent.headers == {"mine": 1, "cp-urgent": True}, "a retry would not know"
    assert "urgent" not in sent.options


def test_headers_and_stamps(make_app: MakeApp) -> None:
    """Calls would be routed by a header only if it came as one, and not as a stamp."""
    app = make_app(
        TaskRouter(
            [
                Rule(header={"region": "eu"}, queue="eu"),
                Rule(header={"size": lambda size: size > 10}, queue="big"),
            ]
        )
    )
    assert send(app, "proj.reports.daily", headers={"region": "eu"}).queue == "eu"
    assert send(app, "proj.reports.daily", headers={"region": "us", "size": 11}).queue == "big"
    assert send(app, "proj.reports.daily", headers={"size": 3}).queue == "celery"
    signature = app.tasks["proj.reports.daily"].si()
    signature.stamp(region="eu")
    signature.apply_async()
    assert app.outbox.last.queue == "eu"


def test_tiers_from_the_header_or_from_the_arguments(make_app: MakeApp) -> None:
    """A paying tenant's calls would queue with the free ones."""
    app = make_app(TaskRouter([Rule(tier=("gold", "silver"), queue="paid")], tier_of=plan_of))
    assert send(app, "proj.export", "acme").queue == "paid"
    assert send(app, "proj.export", "small").queue == "celery"
    assert send(app, "proj.export", "small", headers={"cp-tier": "silver"}).queue == "paid"
    assert send(app, "proj.reports.daily").queue == "celery", "it has no tenant"


def test_conditions_combine(make_app: MakeApp) -> None:
    """A rule with two conditions would match when one holds."""
    app = make_app(TaskRouter([Rule("proj.charge", urgent=True, when=is_large, queue="both")]))
    assert send(app, "proj.charge", {"total": 2000}, urgent=True).queue == "both"
    assert send(app, "proj.charge", {"total": 2000}).queue == "celery"
    assert send(app, "proj.charge", {"total": 1}, urgent=True).queue == "celery"


def test_what_is_mapped_over_is_routed_by_name_only(make_app: MakeApp, events: list[Event]) -> None:
    """The arguments of celery.starmap would be taken for those of the task that it maps."""
    app = make_app(
        TaskRouter([Rule(when=lambda order: True, queue="wrong"), Rule("proj.charge", queue="right")])
    )
    xstarmap(app.tasks["proj.charge"].s(), [(1, 2)], app=app).apply_async()
    assert (app.outbox.last.task, app.outbox.last.queue) == ("celery.starmap", "right")
    assert events == []


# --- what the answer is -----------------------------------------------------------------------------------


def test_priorities_are_translated_for_the_app_s_broker(make_app: MakeApp) -> None:
    """CRITICAL would be served last on one of two brokers. One router serves apps on both."""
    router = TaskRouter([Rule("proj.charge", priority=CRITICAL), Rule("proj.export", priority=BULK)])
    on_redis, on_rabbitmq = make_app(router, broker=REDIS), make_app(router, broker=RABBITMQ)
    for _ in range(2):
        assert send(on_redis, "proj.charge", {}).priority == 0
        assert send(on_rabbitmq, "proj.charge", {}).priority == 9
        assert send(on_redis, "proj.export", "t").priority == 9
        assert send(on_rabbitmq, "proj.export", "t").priority == 0


def test_calls_by_name_alone_find_their_app(make_app: MakeApp) -> None:
    """send_task for another service's task would get the numbers of another app's broker."""
    rules = [Rule("elsewhere.*", priority=CRITICAL)]
    on_redis, on_rabbitmq = (make_app(TaskRouter(rules), broker=broker) for broker in (REDIS, RABBITMQ))
    for app, number in ((on_redis, 0), (on_rabbitmq, 9), (on_redis, 0)):
        app.send_task("elsewhere.task")
        assert app.outbox.last.priority == number
    on_rabbitmq.set_current()
    on_redis.send_task("elsewhere.task")
    assert on_redis.outbox.last.priority == 0


@pytest.mark.parametrize("router_class", [TaskRouter, "classic"])
def test_a_router_that_two_apps_share_knows_who_asks(make_app: MakeApp, router_class: Any) -> None:
    """A call by name does not tell its app: the number would be that of the wrong broker."""
    router = (ClassicRouter if router_class == "classic" else TaskRouter)(
        [Rule("elsewhere.*", priority=CRITICAL)]
    )
    on_redis, on_rabbitmq = make_app(router, broker=REDIS), make_app(router, broker=RABBITMQ)
    for app, number in ((on_redis, 0), (on_rabbitmq, 9)) * 2:
        app.send_task("elsewhere.task")
        assert app.outbox.last.priority == number


def test_who_says_nothing_is_normal(make_app: MakeApp, broker_url: str) -> None:
    """A message without a priority is among the first on Redis, and the last on RabbitMQ."""
    app = make_app(
        TaskRouter([Rule("proj.charge", priority=HIGH), Rule("proj.export", queue="x")]), broker=broker_url
    )
    normal = 6 if broker_url == REDIS else 4
    assert send(app, "proj.export", "t").priority == normal
    assert send(app, "proj.reports.daily").priority == normal
    assert send(app, "proj.pinned").priority == normal
    assert send(app, "proj.pinned").queue == "pinned"


def test_who_never_speaks_of_priorities_gets_none(make_app: MakeApp, broker_url: str) -> None:
    """Messages would move to lists that a monitor of an existing deployment does not count."""
    app = make_app(
        TaskRouter([Rule("proj.charge", queue="q", priority=5), Rule("proj.export", queue="x")]),
        broker=broker_url,
    )
    assert send(app, "proj.charge", {}).priority == 5
    assert send(app, "proj.export", "t").priority is None
    assert send(app, "proj.reports.daily").priority is None


@pytest.mark.parametrize("default", ["rest", {"queue": "rest"}, Rule(queue="rest", priority=LOW)])
def test_the_default(make_app: MakeApp, default: Any) -> None:
    """Calls that match no rule would not go where the operator said."""
    app = make_app(TaskRouter([Rule("proj.charge", queue="q")], default=default))
    assert send(app, "proj.export", "t").queue == "rest"
    assert send(app, "proj.export", "t").priority == (6 if isinstance(default, Rule) else None)


def test_without_a_default_the_next_router_is_asked(make_app: MakeApp) -> None:
    """A router that only knows some tasks would take all others from the routers after it."""
    others = {"proj.export": "next"}
    silent = make_app(TaskRouter([Rule("proj.charge", queue="q", priority=HIGH)], default=None), others)
    assert send(silent, "proj.export", "t").queue == "next"
    without_priorities = make_app(TaskRouter([Rule("proj.charge", queue="q")]), others)
    assert send(without_priorities, "proj.export", "t").queue == "next"


def test_explicit_options_and_attributes_win(make_app: MakeApp) -> None:
    """A caller who knows better would be overruled."""
    app = make_app(TaskRouter([Rule("*", queue="rule", priority=HIGH, options={"compression": "zlib"})]))
    assert send(app, "proj.pinned").queue == "pinned"
    sent = send(app, "proj.charge", {}, queue="mine", priority=4, compression="bz2")
    assert (sent.queue, sent.priority, sent.options["compression"]) == ("mine", 4, "bz2")
    sent = send(app, "proj.charge", {})
    assert (sent.queue, sent.priority, sent.options["compression"]) == ("rule", 3, "zlib")


def test_an_explicit_queue_does_not_get_the_rule_s_routing_key(make_app: MakeApp) -> None:
    """Celery merges one by one: the message would go to the rule's exchange, not to the caller's queue."""
    rule = Rule("*", queue="rule", options={"exchange": "rules", "routing_key": "rule.key"})
    app = make_app(TaskRouter([rule]))
    sent = send(app, "proj.charge", {}, queue="mine")
    assert sent.queue == "mine"
    assert sent.options.get("exchange") is None
    assert sent.options.get("routing_key") is None
    sent = send(app, "proj.charge", {}, routing_key="caller.key")
    assert (sent.queue, sent.options["exchange"], sent.options["routing_key"]) == (
        "rule",
        "rules",
        "caller.key",
    )


def test_meanings_work_wherever_celery_takes_a_priority(make_app: MakeApp, broker_url: str) -> None:
    """An explicit TaskPriority would reach the broker as something that is no number."""
    app = make_app(TaskRouter(), broker=broker_url, task_default_priority=LOW)

    @app.task(shared=False, name="proj.vip", priority=CRITICAL)
    def vip() -> None: ...

    expected = (
        {CRITICAL: 0, HIGH: 3, LOW: 6, BULK: 9}
        if broker_url == REDIS
        else {CRITICAL: 9, HIGH: 7, LOW: 2, BULK: 0}
    )
    assert send(app, "proj.vip").priority == expected[CRITICAL]
    assert send(app, "proj.vip", priority=BULK).priority == expected[BULK]
    assert send(app, "proj.reports.daily").priority == expected[LOW]
    app.tasks["proj.reports.daily"].s().set(priority=HIGH).apply_async()
    assert app.outbox.last.priority == expected[HIGH]


def test_a_header_can_carry_the_meaning(
    make_app: MakeApp, broker_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A producer without this library knows no number that is right on all brokers."""
    app = make_app(TaskRouter([Rule("*", priority=LOW)]), broker=broker_url)
    critical, low = (0, 6) if broker_url == REDIS else (9, 2)
    assert send(app, "proj.charge", {}, headers={"cp-priority": "CRITICAL"}).priority == critical
    assert send(app, "proj.charge", {}, headers={"cp-priority": 5}).priority == 5
    assert send(app, "proj.charge", {}, headers={"cp-priority": "CRITICAL"}, priority=1).priority == 1
    for nonsense in ("critical!", None, 4.5, ["HIGH"]):
        assert send(app, "proj.charge", {}, headers={"cp-priority": nonsense}).priority == low
    assert "cp-priority='critical!' is no priority" in caplog.text


def test_what_is_remembered_is_forgotten_with_the_broker(make_app: MakeApp) -> None:
    """A number that was right for the first broker would be sent to the second."""
    app = make_app(TaskRouter([Rule("*", priority=CRITICAL)]), broker=REDIS)
    for _ in range(2):
        assert send(app, "proj.charge", {}).priority == 0
    app.conf.broker_url = RABBITMQ
    app._pool = app.amqp._producer_pool = None
    for _ in range(2):
        assert send(app, "proj.charge", {}).priority == 9


def test_what_is_remembered_does_not_hide_what_a_call_says(make_app: MakeApp) -> None:
    """The second call of a task would be answered as the first, whatever it says."""
    app = make_app(TaskRouter([Rule("*", queue="rule", priority=CRITICAL)]))
    for _ in range(2):
        assert (send(app, "proj.charge", {}).queue, app.outbox.last.priority) == ("rule", 0)
        assert send(app, "proj.charge", {}, queue="mine").queue == "mine"
        assert send(app, "proj.charge", {}, priority=HIGH).priority == 3
        assert send(app, "proj.charge", {}, headers={"cp-priority": "BULK"}).priority == 9
        assert send(app, "proj.charge", {}, urgent=True).headers == {"cp-urgent": True}
        assert send(app, "proj.charge", {}, exchange="e", routing_key="k").queue == "celery"
        assert send(app, "proj.charge", {}, routing_key="k").options["routing_key"] == "k"


# --- nothing leaks ----------------------------------------------------------------------------------------


def test_each_call_gets_a_dict_of_its_own(make_app: MakeApp) -> None:
    """Celery takes routes apart: the second call would find the first one's leavings."""
    policy = {"max_retries": 1}
    router = TaskRouter([Rule("*", queue="q", options={"retry_policy": policy})])
    app = make_app(router)
    for _ in range(3):
        assert send(app, "proj.charge", {}).queue == "q"
    route = router.route("proj.charge", (), {}, {}, app.tasks["proj.charge"])
    route["retry_policy"]["max_retries"] = 100
    route.clear()
    again = router.route("proj.charge", (), {}, {}, app.tasks["proj.charge"])
    assert again == {"queue": "q", "retry_policy": {"max_retries": 1}}
    assert policy == {"max_retries": 1}


def test_a_caller_s_own_dicts_stay_as_they_are(make_app: MakeApp) -> None:
    """A headers dict that is used for two calls would make the second one urgent too."""
    app = make_app(TaskRouter([Rule(urgent=True, queue="fast")]))
    headers = {"mine": 1}
    options = {"headers": headers, "urgent": True}
    assert send(app, "proj.charge", {}, **options).queue == "fast"
    assert headers == {"mine": 1}
    assert send(app, "proj.charge", {}, headers=headers).queue == "celery"


@pytest.mark.parametrize("nothing", [None, {}])
def test_an_override_that_says_nothing_leaves_it_to_the_table(make_app: MakeApp, nothing: Any) -> None:
    """`{}` stops Celery's search: the task would silently go to the default queue."""

    class Router(TaskRouter):
        def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> Any:
            return nothing

    app = make_app(Router([Rule("proj.charge", queue="table")], default="rest"))
    assert send(app, "proj.charge", {}).queue == "table"
    assert send(app, "proj.export", "t").queue == "rest"


# --- the classic style ------------------------------------------------------------------------------------

SHARED = {"queue": "shared", "priority": HIGH}


class ClassicRouter(TaskRouter):
    """As people write them."""

    ROUTES: ClassVar[Any] = {
        "proj.reports.*": {"queue": "reports", "priority": BULK},
        "proj.reports.daily": "daily",
        "proj.export": {"queue": "exports"},
    }

    def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> Any:
        """Treat urgent charges apart."""
        if task == "proj.charge" and kwargs.get("urgent"):
            return SHARED
        return super().route_for_task(task, args, kwargs)


router_instance = ClassicRouter([Rule("proj.method", header={"fast": "1"}, queue="fast")])


@pytest.mark.parametrize(
    "entry",
    [
        ClassicRouter(),
        f"{__name__}.router_instance",
        f"{__name__}:router_instance",
        f"{__name__}.ClassicRouter",
    ],
)
def test_a_subclass_with_routes_and_an_override(make_app: MakeApp, entry: Any) -> None:
    """A router in the classic style could not be moved over."""
    app = make_app(entry)
    for _ in range(2):
        sent = send(app, "proj.charge", {}, kwargs={"urgent": True})
        assert (sent.queue, sent.priority) == ("shared", 3)
        assert (send(app, "proj.reports.daily").queue, app.outbox.last.priority) == ("daily", 6)
        app.send_task("proj.reports.weekly")
        assert (app.outbox.last.queue, app.outbox.last.priority) == ("reports", 9)
        assert (send(app, "proj.export", "t").queue, app.outbox.last.priority) == ("exports", 6)
        assert (send(app, "proj.charge", {}).queue, app.outbox.last.priority) == ("celery", 6)
    assert {"queue": "shared", "priority": HIGH} == SHARED


@pytest.mark.parametrize("entry", [router_instance, f"{__name__}.router_instance"])
def test_super_sees_the_options_of_the_call(make_app: MakeApp, entry: Any) -> None:
    """Rules by header, and explicit queues, would not hold below an override."""
    app = make_app(entry)
    assert send(app, "proj.method", {}, headers={"fast": "1"}).queue == "fast"
    assert send(app, "proj.method", {}).queue == "celery"
    assert send(app, "proj.export", "t", queue="mine").queue == "mine"


def test_the_classic_call_answers_in_a_test_without_celery() -> None:
    """People test their routers by calling them."""
    assert ClassicRouter().route_for_task("proj.export", (), {})["queue"] == "exports"
    assert ClassicRouter()("proj.export", (), {}, {})["queue"] == "exports"


@pytest.mark.parametrize(
    "answer", [["q"], {"countdown": 3}, {"queue": "q", "headers": {}}, {"priority": "high"}]
)
def test_an_override_s_bad_answer_does_not_lose_the_task(
    make_app: MakeApp, events: list[Event], answer: Any
) -> None:
    """Celery would raise a TypeError at whoever publishes."""

    class Router(TaskRouter):
        def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> Any:
            return answer

    app = make_app(Router(default="rest"))
    assert send(app, "proj.charge", {}).queue == "rest"
    assert events[0].key == "Router.route_for_task"


def test_an_override_may_answer_with_a_queue_s_name(make_app: MakeApp) -> None:
    """Celery's own routers may."""

    class Router(TaskRouter):
        def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> Any:
            return "named"

    assert send(make_app(Router()), "proj.charge", {}).queue == "named"


# --- what goes wrong --------------------------------------------------------------------------------------


def test_a_rule_that_raises_is_told_of_and_the_default_decides(
    make_app: MakeApp, events: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    """A task would be lost to a router."""
    router = TaskRouter(
        [Rule(when=is_large, queue="large", name="large orders"), Rule("*", queue="never")], default="rest"
    )
    app = make_app(router)
    with caplog.at_level(logging.ERROR, "celery_patterns"):
        for _ in range(5):
            assert send(app, "proj.charge", {"no": "total"}).queue == "rest"
    assert router.failures == {"large orders": 5}
    assert {(event.kind, event.policy, event.task, event.key) for event in events} == {
        ("rule_failed", "router", "proj.charge", "large orders")
    }
    assert len(events) == 5
    assert "KeyError" in events[0].detail["error"]
    told = [record for record in caplog.records if "large orders" in record.getMessage()]
    assert len(told) == 3, "the 1st, 2nd and 4th time: a broken rule must not fill the disk"
    assert told[0].exc_info


def test_the_tier_function_may_raise_too(make_app: MakeApp) -> None:
    """An unknown tenant would stop the call."""
    router = TaskRouter([Rule(tier="gold", queue="paid")], tier_of=lambda tenant: {}[tenant])
    assert send(make_app(router), "proj.export", "t").queue == "celery"
    assert sum(router.failures.values()) == 1


def test_the_time_limit_of_the_publishing_task_is_not_swallowed(make_app: MakeApp) -> None:
    """A task that publishes when its soft time limit strikes would go on for ever."""

    def strikes(order: Any) -> bool:
        raise SoftTimeLimitExceeded

    app = make_app(TaskRouter([Rule(when=strikes, queue="q")]))
    with pytest.raises(SoftTimeLimitExceeded):
        send(app, "proj.charge", {})


def test_an_undeclared_queue_fails_by_the_rule_s_name(make_app: MakeApp) -> None:
    """A typing error in a rule would fill a queue that nobody reads, or fail without saying where it is."""
    queues = [Queue("declared"), Queue("celery"), Queue("long", alias="short")]
    rules = [Rule("proj.charge", queue="delcared", name="charges"), Rule("proj.export", queue="short")]
    app = make_app(TaskRouter(rules), task_queues=queues, task_create_missing_queues=False)
    with pytest.raises(UnroutableQueue, match=r"'charges' sends proj.charge to queue 'delcared'") as raised:
        send(app, "proj.charge", {})
    assert isinstance(raised.value, QueueNotFound)
    assert send(app, "proj.export", "t").queue == "long"
    assert send(app, "proj.charge", {}, queue="declared").queue == "declared"


def test_the_same_holds_below_an_override(make_app: MakeApp) -> None:
    """The wrong queue would be taken for a fault of the override, and the task would go elsewhere."""

    class Router(TaskRouter):
        def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> Any:
            return super().route_for_task(task, args, kwargs)

    app = make_app(Router([Rule("*", queue="typo", name="all")]), task_create_missing_queues=False)
    with pytest.raises(UnroutableQueue, match="'all'"):
        send(app, "proj.charge", {})


def test_a_kombu_queue_needs_no_declaration(make_app: MakeApp) -> None:
    """Celery declares it with the message."""
    queue = Queue("objects", Exchange("e"), routing_key="k")
    app = make_app(TaskRouter([Rule("*", queue=queue)]), task_create_missing_queues=False)
    assert send(app, "proj.charge", {}).options["queue"] == queue


# --- retries ----------------------------------------------------------------------------------------------


def retried(app: Celery, task: str, delivery_info: dict[str, Any], headers: Any = None) -> Any:
    """Publish a task again from inside its run, as `self.retry` does."""
    found = app.tasks[task]
    found.push_request(
        id="1", args=({},), kwargs={}, headers=headers, delivery_info=delivery_info, called_directly=False,
        origin="gen1@host", retries=0,
    )  # fmt: skip
    try:
        found.signature_from_request(retries=1, countdown=3).apply_async()
    finally:
        found.pop_request()
    return app.outbox.last


def test_a_retry_goes_where_the_first_attempt_went(make_app: MakeApp) -> None:
    """A retry would move to another queue because a header, an option or the rules are not what they were."""
    rules = [Rule(urgent=True, queue="fast", priority=CRITICAL), Rule("*", queue="slow", priority=BULK)]
    app = make_app(TaskRouter(rules))
    sent = retried(app, "proj.method", {"exchange": "", "routing_key": "fast", "priority": 3})
    assert (sent.queue, sent.priority) == ("fast", 3)
    sent = retried(app, "proj.method", {"exchange": "", "routing_key": "slow", "priority": None})
    assert (sent.queue, sent.priority) == ("slow", None)


def test_a_retry_through_an_exchange_keeps_its_queue(make_app: MakeApp) -> None:
    """With quorum queues Celery would compute the delay for the default queue: the retry would move there."""
    topic = Exchange("topic", type="topic")
    queues = [
        Queue(name, topic, name, queue_arguments={"x-queue-type": "quorum"}) for name in ("celery", "slow")
    ]
    app = make_app(TaskRouter([Rule("*", queue="celery")]), broker=RABBITMQ, task_queues=queues)
    sent = retried(app, "proj.method", {"exchange": "topic", "routing_key": "slow", "priority": None})
    assert sent.options["exchange"].name == "celery_delayed_27"
    assert re.fullmatch(r"(0\.){26}1\.1\.slow", sent.options["routing_key"])
    delayed = {"exchange": "celery_delayed_27", "routing_key": sent.options["routing_key"], "priority": None}
    again = retried(app, "proj.method", delayed)
    assert re.fullmatch(r"(0\.){26}1\.1\.slow", again.options["routing_key"])


def test_an_explicit_exchange_and_key_find_their_queue(make_app: MakeApp) -> None:
    """The default queue would be declared for a message that goes elsewhere."""
    queues = [Queue("celery"), Queue("orders", Exchange("topic", type="topic"), "orders.eu")]
    app = make_app(TaskRouter([Rule("*", queue="celery")]), task_queues=queues)
    sent = send(app, "proj.charge", {}, exchange="topic", routing_key="orders.eu")
    assert sent.queue == "orders"
    assert send(app, "proj.charge", {}, exchange="unknown", routing_key="x").queue == "celery"


# --- being a value ----------------------------------------------------------------------------------------


def test_a_router_is_itself_in_settings(make_app: MakeApp) -> None:
    """Being `lazy` for Celery, it would be compared, printed and copied as what it evaluates to."""
    router = TaskRouter([Rule("*", queue="q")])
    assert router == [router][0]
    assert router != TaskRouter([Rule("*", queue="q")])
    assert {router: 1}[router] == 1
    assert repr(router) == str(router) == "<TaskRouter of 1 rules>"
    copied = pickle.loads(pickle.dumps(router))
    assert copied("proj.charge", (), {}, {}) == {"queue": "q"}
    app = make_app(router)
    assert "TaskRouter" in app.conf.humanize(with_defaults=False)
    single = make_app()
    single.conf.update(task_routes=router)
    assert send(single, "proj.charge", {}).queue == "q"


def test_made_up_names_do_not_fill_the_memory() -> None:
    """A producer that makes up task names would grow for ever."""
    router = TaskRouter([Rule("proj.*", queue="q")])
    for number in range(25_000):
        assert router.table.plan(f"proj.task{number}").candidates
    assert len(router.table._plans) <= 10_000


def test_each_app_s_task_has_an_answer_of_its_own(make_app: MakeApp) -> None:
    """Two tasks of one name, in two apps, would be answered as one."""
    router = TaskRouter([Rule("*", priority=CRITICAL)])
    on_redis, on_rabbitmq = make_app(router, broker=REDIS), make_app(router, broker=RABBITMQ)
    for _ in range(3):
        assert send(on_redis, "proj.charge", {}).priority == 0
        assert send(on_redis, "proj.charge", {}).priority == 0
        assert send(on_rabbitmq, "proj.charge", {}).priority == 9
