"""The settings that `task_queues_for` makes."""

from typing import Any

import pytest
from celery import Celery
from kombu import Queue

from celery_patterns import Rule, TaskPriority, TaskRouter, task_queues_for
from celery_patterns.errors import RuleError, UnroutableQueue
from tests.flows.routing.conftest import RABBITMQ, REDIS, MakeApp

ROUTER = TaskRouter(
    [Rule("proj.charge", queue="orders", priority=TaskPriority.HIGH), Rule("proj.export", queue="exports")]
)


def test_what_the_router_names_exists(make_app: MakeApp, broker_url: str) -> None:
    """A router would send tasks to queues that nobody declares."""
    app = make_app(ROUTER, broker=broker_url)
    app.conf.update(task_queues_for(ROUTER, "extra"))
    assert list(app.amqp.queues) == ["orders", "exports", "extra", "celery"]
    app.tasks["proj.charge"].delay({})
    assert app.outbox.last.queue == "orders"
    app.tasks["proj.reports.daily"].delay()
    assert app.outbox.last.options.get("queue", app.amqp.default_queue).name == "celery"


def test_a_typing_error_fails_at_publish(make_app: MakeApp) -> None:
    """The message would lie in a queue that was made for it, and that no worker reads."""
    app = make_app(TaskRouter([Rule("proj.charge", queue="odrers")]))
    app.conf.update(task_queues_for(ROUTER))
    with pytest.raises(UnroutableQueue, match="odrers"):
        app.tasks["proj.charge"].delay({})


def test_meanings_have_lists_of_their_own_on_redis(make_app: MakeApp) -> None:
    """LOW and NORMAL would share a list, as they do on kombu's own steps."""
    app = make_app(ROUTER, broker=REDIS)
    app.conf.update(task_queues_for(ROUTER))
    sent = {}
    for level in TaskPriority:
        app.tasks["proj.export"].apply_async(("t",), priority=level)
        sent[level.name] = app.outbox.last.priority
    assert sent == {"BULK": 9, "LOW": 7, "NORMAL": 6, "HIGH": 3, "CRITICAL": 0}


def test_classic_queues_sort(make_app: MakeApp) -> None:
    """RabbitMQ would ignore priorities."""
    settings = task_queues_for(ROUTER, max_priority=4)
    assert {queue.queue_arguments["x-max-priority"] for queue in settings["task_queues"]} == {4}
    app = make_app(ROUTER, broker=RABBITMQ)
    app.conf.update(settings)
    app.tasks["proj.charge"].delay({})
    assert app.outbox.last.priority == 3, "the number follows from the declaration"
    unsorted = task_queues_for(ROUTER, max_priority=None)
    assert all(not queue.queue_arguments for queue in unsorted["task_queues"])


def test_quorum_queues_have_a_topic_exchange(make_app: MakeApp) -> None:
    """With a direct exchange Celery keeps delayed tasks in the worker, which they block."""
    settings = task_queues_for(ROUTER, queue_type="quorum", exchange="work", default="rest")
    for queue in settings["task_queues"]:
        assert queue.queue_arguments == {"x-queue-type": "quorum"}
        assert (queue.exchange.name, queue.exchange.type, queue.routing_key) == ("work", "topic", queue.name)
    app = make_app(ROUTER, broker=RABBITMQ)
    app.conf.update(settings)
    for task, args in (("proj.charge", ({},)), ("proj.reports.daily", ())):
        app.tasks[task].apply_async(args, countdown=3)
        queue = "orders" if args else "rest"
        assert app.outbox.last.options["exchange"].name == "celery_delayed_27"
        assert app.outbox.last.options["routing_key"].endswith(f".1.1.{queue}")


def test_own_transport_options_and_queues_are_kept() -> None:
    """A visibility timeout, or a queue with arguments of its own, would be lost."""
    own = Queue("orders", queue_arguments={"x-max-priority": 3})
    router = TaskRouter([Rule("a", queue=own)], default="rest")
    settings = task_queues_for(router, transport_options={"visibility_timeout": 60, "priority_steps": [0, 9]})
    assert settings["broker_transport_options"] == {"visibility_timeout": 60, "priority_steps": [0, 9]}
    assert [queue.name for queue in settings["task_queues"]] == ["orders", "rest", "celery"]
    assert settings["task_queues"][0] is own


def test_two_calls_share_nothing() -> None:
    """Celery completes queues in place: a second app would find the first one's exchange in them."""
    first, second = task_queues_for(ROUTER), task_queues_for(ROUTER)
    first["broker_transport_options"]["priority_steps"].clear()
    first["task_queues"][0].queue_arguments.clear()
    assert second["broker_transport_options"]["priority_steps"] == [0, 3, 6, 7, 9]
    assert second["task_queues"][0].queue_arguments == {"x-max-priority": 9}


@pytest.mark.parametrize(
    "wrong", [{"queue_type": "stream"}, {"max_priority": 0}, {"max_priority": 256}, {"default": ""}]
)
def test_what_cannot_be_declared_is_refused(wrong: dict[str, Any]) -> None:
    """RabbitMQ would refuse the queue when the first worker starts."""
    with pytest.raises(RuleError):
        task_queues_for(ROUTER, **wrong)


def test_settings_are_read_by_a_new_app() -> None:
    """The settings would only work on an app that was used before."""
    app = Celery("fresh", broker=REDIS, set_as_current=False)
    app.conf.update(task_queues_for(ROUTER, default="mine"))
    assert app.amqp.default_queue.name == "mine"
    assert app.conf.task_default_exchange == "mine"
    with pytest.raises(KeyError):
        app.amqp.queues["nobody"]
    app.close()
