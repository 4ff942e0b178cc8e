"""What a priority means, as a number of each broker."""

import json
import pickle
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Queue
from kombu.utils.json import dumps

from celery_patterns import TaskPriority
from celery_patterns.errors import PriorityNotTranslated
from celery_patterns.flows.routing.priority import amqp_number, broker_number, redis_number
from celery_patterns.flows.routing.queues import PRIORITY_STEPS
from tests.flows.routing.conftest import RABBITMQ, REDIS, MakeApp

LEVELS = list(TaskPriority)
KOMBU_STEPS = [0, 3, 6, 9]


def test_meanings_compare_by_urgency() -> None:
    """Code that takes the more urgent of two would take the other."""
    assert sorted({*LEVELS}) == LEVELS
    assert max(TaskPriority.BULK, TaskPriority.CRITICAL) is TaskPriority.CRITICAL
    with pytest.raises(TypeError):
        assert TaskPriority.BULK < 3


def test_numbers_on_kombu_s_defaults() -> None:
    """A deployment that changes nothing would get numbers that its workers do not read."""
    assert [redis_number(level, KOMBU_STEPS) for level in LEVELS] == [9, 6, 6, 3, 0]
    assert [amqp_number(level) for level in LEVELS] == [0, 2, 4, 7, 9]


def test_our_own_steps_tell_all_meanings_apart_and_keep_the_old_ones() -> None:
    """Two meanings would share a list, or messages published before a deploy would not be read."""
    assert [redis_number(level, PRIORITY_STEPS) for level in LEVELS] == [9, 7, 6, 3, 0]
    assert set(KOMBU_STEPS) <= set(PRIORITY_STEPS)


def test_quorum_queues_put_urgent_messages_in_the_upper_level() -> None:
    """RabbitMQ's quorum queues begin their upper level at 5: NORMAL would overtake with the urgent ones."""
    assert [amqp_number(level) >= 5 for level in LEVELS] == [False, False, False, True, True]


@given(steps=st.sets(st.integers(0, 9), min_size=1).map(sorted))
def test_redis_keeps_the_order_with_any_steps(steps: list[int]) -> None:
    """With few steps an urgent message would be served after a less urgent one."""
    numbers = [redis_number(level, steps) for level in LEVELS]
    assert numbers == sorted(numbers, reverse=True)
    assert set(numbers) <= set(steps), "a list that no worker reads"
    assert numbers[-1] == steps[0]
    assert len(set(numbers)) == min(len(steps), len(LEVELS))


@given(top=st.integers(1, 255))
def test_rabbitmq_keeps_the_order_with_any_maximum(top: int) -> None:
    """With a small x-max-priority an urgent message would be cut down to a less urgent one."""
    numbers = [amqp_number(level, top) for level in LEVELS]
    assert numbers == sorted(numbers)
    assert (numbers[0], numbers[-1]) == (0, top)
    assert len(set(numbers)) == min(top + 1, len(LEVELS))


def test_the_declaration_of_the_queue_decides(make_app: MakeApp) -> None:
    """On a queue with x-max-priority 3 everything from NORMAL up would be cut to the same number."""
    queues = [
        Queue("three", queue_arguments={"x-max-priority": 3}),
        Queue("ten", max_priority=10),
        Queue("none"),
    ]
    app = make_app(broker=RABBITMQ, task_queues=queues)
    numbers = {queue.name: broker_number(TaskPriority.CRITICAL, app, queue=queue.name) for queue in queues}
    assert numbers == {"three": 3, "ten": 10, "none": 9}
    assert broker_number(TaskPriority.CRITICAL, app, queue=queues[0]) == 3


def test_queues_made_on_the_fly_have_the_app_s_maximum(make_app: MakeApp) -> None:
    """Celery declares them with task_queue_max_priority, and a number above it is cut."""
    app = make_app(broker=RABBITMQ, task_queue_max_priority=4)
    assert broker_number(TaskPriority.HIGH, app, queue="new") == 3
    assert "new" not in app.amqp.queues, "asking for a number made a queue"


def test_the_connection_of_one_call_decides(make_app: MakeApp) -> None:
    """A call on a connection to another broker would get the app's own numbers, turned upside down."""
    app = make_app(broker=REDIS)
    assert broker_number(TaskPriority.CRITICAL, app) == 0
    with app.connection_for_write(RABBITMQ) as elsewhere:
        assert broker_number(TaskPriority.CRITICAL, app, connection=elsewhere) == 9


def test_a_meaning_is_never_taken_for_a_number() -> None:
    """Without a router, CRITICAL would arrive as some number and be served in the wrong order, silently."""
    with pytest.raises(PriorityNotTranslated, match="TaskRouter"):
        struct.pack(">B", TaskPriority.CRITICAL)  # what py-amqp does
    with pytest.raises(PriorityNotTranslated, match="TaskRouter"):
        int(TaskPriority.CRITICAL)  # what kombu's Redis transport does
    with pytest.raises(PriorityNotTranslated, match="route_canvas"):
        dumps({"priority": TaskPriority.CRITICAL})
    with pytest.raises(TypeError):
        json.dumps(TaskPriority.CRITICAL)
    assert pickle.loads(pickle.dumps(TaskPriority.CRITICAL)) is TaskPriority.CRITICAL
