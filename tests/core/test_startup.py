"""What a worker says when it starts: tasks that a kill loses, switches that switch nothing off."""

import threading
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.signals import celeryd_after_setup, worker_process_init

from celery_patterns import IdempotentTask, PolicyTask
from celery_patterns.core import startup
from celery_patterns.errors import PatternsWarning
from celery_patterns.policies.idempotency.policy import Idempotency
from celery_patterns.testing import memory_store
from tests.apps.witness import Witness, alone, new_app
from tests.ground.workers import Worker


@pytest.fixture
def app() -> Iterator[Celery]:
    with alone():
        yield new_app()


def said_at_start(app: Celery) -> list[str]:
    """What is said when a worker of the app starts."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        celeryd_after_setup.send(sender="w@h", instance=SimpleNamespace(app=app), conf=app.conf)
    return [str(one.message) for one in caught if one.category is PatternsWarning]


def same(n: int) -> int:
    return n


def declare(app: Celery, name: str = "watched", **options: Any) -> None:
    app.task(base=PolicyTask, witness=Witness(), name=name, **options)(same)


def test_tasks_that_a_kill_loses_are_named_once(app: Celery) -> None:
    """Whoever relies on a pattern would learn from a lost task that it was acknowledged early."""
    declare(app, "b")
    declare(app, "a")
    app.task(name="plain")(same)
    (said,) = said_at_start(app)
    assert said.startswith("a, b: ")
    assert "acks_late" in said


@pytest.mark.parametrize(
    ("options", "warns"),
    [
        ({"acks_late": True}, True),
        ({"acks_late": True, "reject_on_worker_lost": True}, False),
        ({"acks_late": True, "reject_on_worker_lost": False}, False),
        ({"acks_late": True, "retry_on_worker_lost": True}, False),
        ({"acks_late": False}, False),
        ({"reject_on_worker_lost": True}, True),
    ],
    ids=str,
)
def test_what_the_author_decided_is_not_questioned(
    app: Celery, options: dict[str, bool], warns: bool
) -> None:
    """A worker would complain at each start about what was meant, until nobody reads it."""
    declare(app, **options)
    assert bool(said_at_start(app)) is warns


def test_the_settings_of_the_app_count(app: Celery) -> None:
    """An app that acknowledges late throughout would be warned all the same."""
    app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True)
    declare(app)
    assert said_at_start(app) == []


def test_a_policy_that_sets_late_acknowledgement_has_no_need_to_warn(app: Celery) -> None:
    """The same, for idempotent tasks."""
    app.task(base=IdempotentTask, idempotency=Idempotency("n"), name="set")(same)
    assert said_at_start(app) == []


def test_a_worker_says_it_in_its_log(worker: Callable[..., Worker]) -> None:
    """Nobody would see it."""
    running = worker("tests.apps.early")
    assert running.log_text().count("PatternsWarning: tests.apps.early.guarded: ") == 1


@pytest.mark.parametrize(
    ("switched_off", "named"), [(["singelton", "witness"], "'singelton'"), ("idempotency", "'idempotency'")]
)
def test_a_switch_that_switches_nothing_off_is_named(app: Celery, switched_off: Any, named: str) -> None:
    """An operator would believe that a policy is off, and it is on under its right name."""
    declare(app, acks_late=False)
    app.conf.patterns_disabled = switched_off
    (said,) = said_at_start(app)
    assert said.startswith(f"patterns_disabled names {named}, which no task of this worker has")
    assert "'witness'" in said.partition(";")[2]


@pytest.mark.parametrize("switched_off", [None, False, True, "all", [], ["witness"]])
def test_a_switch_that_works_is_not_questioned(app: Celery, switched_off: Any) -> None:
    """A warning that is always there is read by nobody."""
    declare(app, acks_late=False)
    app.conf.patterns_disabled = switched_off
    assert said_at_start(app) == []


def test_a_pool_process_connects_before_its_first_task(app: Celery, redis_url: str, wait_for: Any) -> None:
    """Its first task would wait for that, and what it holds a token for with it."""
    app.set_current()
    with memory_store(redis_url) as store:
        worker_process_init.send(sender=None)
        assert not [one for one in threading.enumerate() if one.name == CONNECTING]
        declare(app)
        worker_process_init.send(sender=None)
        wait_for(lambda: store._client is not None)


def test_a_pool_process_does_not_wait_for_its_store(
    app: Celery, wait_for: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker whose store is away would not start, or complain of what no task has asked for yet."""
    app.set_current()
    declare(app)
    may_connect, connect = threading.Event(), startup._connect
    monkeypatch.setattr(startup, "_connect", lambda app: may_connect.wait() and connect(app))
    with memory_store("redis://127.0.0.1:1/0"):
        worker_process_init.send(sender=None)
        may_connect.set()
        wait_for(lambda: CONNECTING not in {one.name for one in threading.enumerate()})
    assert not [one for one in caplog.records if one.levelname != "DEBUG"]


CONNECTING = "celery-patterns-connect"
