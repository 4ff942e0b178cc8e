"""Publishing by tier and urgency."""

import logging

import pytest
from celery import Celery
from kombu import Queue

from celery_patterns import Rule, TaskPriority, TaskRouter, submit_with_priority
from celery_patterns.flows.routing.submit import TIERS
from tests.flows.routing.conftest import RABBITMQ, REDIS, MakeApp

RULES = [Rule(urgent=True, queue="fast"), Rule(tier="gold", queue="gold")]
GOLD = {"gold": TaskPriority.HIGH, "stone": TaskPriority.BULK}


def test_tier_and_urgency_give_the_priority(make_app: MakeApp, broker_url: str) -> None:
    """A paying or an urgent call would wait behind the others."""
    app = make_app(TaskRouter(RULES, tiers=GOLD), broker=broker_url)
    charge = app.tasks["proj.charge"]
    high, critical, normal, bulk = (3, 0, 6, 9) if broker_url == REDIS else (7, 9, 4, 0)

    def sent(**options: object) -> tuple[str, int | None]:
        submit_with_priority(charge, ({},), **options)
        return app.outbox.last.queue, app.outbox.last.priority

    assert sent(user_tier="gold") == ("gold", high)
    assert sent(user_tier="stone") == ("celery", bulk)
    assert sent(user_tier="stone", is_urgent=True) == ("fast", critical)
    assert sent() == ("celery", normal)
    assert sent(user_tier="stone", priority=TaskPriority.HIGH) == ("celery", high)
    assert sent(user_tier="stone", priority=5) == ("celery", 5)
    assert sent(user_tier="stone", queue="mine") == ("mine", bulk)


def test_tier_and_urgency_travel_with_the_call(make_app: MakeApp) -> None:
    """A retry, or a rule in another process, would not know them; the caller's headers would be lost."""
    app = make_app(TaskRouter(RULES))
    headers = {"mine": 1}
    submit_with_priority(
        app.tasks["proj.charge"], kwargs={"order": {}}, user_tier="gold", is_urgent=True, headers=headers
    )
    assert app.outbox.last.headers == {"mine": 1, "cp-tier": "gold", "cp-urgent": True}
    assert headers == {"mine": 1}
    submit_with_priority(app.tasks["proj.charge"], ({},))
    assert app.outbox.last.headers == {}


def test_without_a_router_the_number_is_right_all_the_same(make_app: MakeApp, broker_url: str) -> None:
    """The call would fail, or be served last, in an app that has no TaskRouter yet."""
    app = make_app(broker=broker_url)
    submit_with_priority(app.tasks["proj.charge"], ({},), user_tier="enterprise")
    assert app.outbox.last.priority == (3 if broker_url == REDIS else 7)
    assert TIERS["free"] < TIERS["standard"] < TIERS["premium"]


def test_the_queue_that_a_rule_chooses_gives_the_scale(make_app: MakeApp) -> None:
    """On a queue with a small x-max-priority the number would be cut."""
    queues = [Queue("celery", max_priority=9), Queue("gold", max_priority=4), Queue("pinned", max_priority=2)]
    app = make_app(TaskRouter(RULES, tiers=GOLD), broker=RABBITMQ, task_queues=queues)
    submit_with_priority(app.tasks["proj.charge"], ({},), user_tier="gold")
    assert app.outbox.last.priority == 3
    submit_with_priority(app.tasks["proj.pinned"], user_tier="gold")
    assert app.outbox.last.priority == 2
    submit_with_priority(app.tasks["proj.charge"], ({},), user_tier="gold", queue="celery")
    assert app.outbox.last.priority == 7


def test_a_connection_to_another_broker_gives_the_scale(make_app: MakeApp) -> None:
    """On that broker the call would be served last instead of first."""
    app = make_app(TaskRouter(RULES), broker=REDIS)
    with app.connection_for_write(RABBITMQ) as elsewhere:
        submit_with_priority(app.tasks["proj.charge"], ({},), is_urgent=True, connection=elsewhere)
    assert app.outbox.last.priority == 9


def test_an_unknown_tier_is_normal_and_told_of_once(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """A new tier would stop its calls, or fill the log."""
    app = make_app(TaskRouter(RULES, tiers=GOLD))
    with caplog.at_level(logging.WARNING, "celery_patterns"):
        for _ in range(3):
            submit_with_priority(app.tasks["proj.charge"], ({},), user_tier="diamond")
            assert app.outbox.last.priority == 6
    assert [record.getMessage() for record in caplog.records if "diamond" in record.getMessage()] == [
        "user_tier='diamond' is none of gold, stone: its calls are published as NORMAL"
    ]


def test_a_failing_rule_is_told_of_once(make_app: MakeApp) -> None:
    """Asking for the queue beforehand would count each failure twice."""

    def fails(order: object) -> bool:
        raise ValueError

    router = TaskRouter([Rule(when=fails, queue="q", name="broken")])
    app = make_app(router)
    submit_with_priority(app.tasks["proj.charge"], ({},))
    assert router.failures == {"broken": 1}


def test_eager_apps_run_the_task() -> None:
    """Test suites with task_always_eager would fail at the translation."""
    app = Celery("eager", broker="memory://", set_as_current=False)
    app.conf.update(task_always_eager=True, task_routes=[TaskRouter(RULES)])

    @app.task(shared=False)
    def double(number: int) -> int:
        return number * 2

    assert submit_with_priority(double, (3,), user_tier="free").get() == 6
    app.close()
