"""How singletons are declared, and what they do when the store is away."""

from datetime import timedelta
from typing import Any

import pytest
from celery import Celery

from celery_patterns import (
    ConcurrencyLimit,
    NonOverlappingTask,
    PolicyError,
    Singleton,
    SingletonTask,
    disabled,
    singleton,
    without_overlapping,
)
from celery_patterns.core.store import Store
from celery_patterns.errors import StoreUnavailable
from celery_patterns.testing import CapturedEvents, MovableClock
from tests.ground.inline import InlineWorker
from tests.policies.singleton.conftest import Make

Runs = list[Any]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": ""}, "name an argument"),
        ({"name": ""}, "name=''"),
        ({"scope": "for_ever"}, "'until_executing', 'until_executed', 'while_executing'"),
        ({"on_conflict": "ignore"}, "'use_existing', 'skip', 'raise', 'defer', 'replace', 'keep_latest'"),
        ({"queued_ttl": 0}, "queued_ttl=0"),
        ({"queued_ttl": "1h"}, "queued_ttl='1h'"),
        ({"lease": 0}, "lease=0"),
        ({"on_store_error": "run"}, "'defer', 'raise'"),
        ({"ttl": 60}, "ttl"),
    ],
)
def test_a_wrong_option_fails_when_declared(options: dict[str, Any], message: str) -> None:
    """A typo would be found by the customers."""
    with pytest.raises(TypeError, match=message):
        Singleton(**options)


def test_durations_may_be_timedeltas() -> None:
    """A user would have to count the seconds of a day."""
    value = Singleton(queued_ttl=timedelta(days=1), lease=timedelta(minutes=5))
    assert (value.queued_ttl, value.lease) == (86_400, 300)


def test_a_base_without_its_value_fails_when_declared(app: Celery) -> None:
    """A task that looks guarded would not be."""
    with pytest.raises(PolicyError, match="needs the attribute 'singleton'"):
        app.task(base=SingletonTask, name="shop.bare", shared=False)(sync)


@pytest.mark.parametrize("decorator", [singleton, without_overlapping])
def test_a_decorator_that_is_not_called_fails_when_declared(app: Celery, decorator: Any) -> None:
    """What was meant to be a task would be a function that makes one."""
    name = "singleton" if decorator is singleton else "without_overlapping"
    with pytest.raises(PolicyError, match=rf"write @{name}\(\)"):
        decorator(app.task(sync, name="shop.sync", shared=False))


def test_another_policy_in_its_place_fails_when_declared(app: Celery) -> None:
    """The task would be limited, and its author would take it for a singleton."""
    with pytest.raises(PolicyError, match="name the attribute concurrency_limit"):
        app.task(base=SingletonTask, singleton=ConcurrencyLimit(1), name="shop.sync", shared=False)(sync)


def test_another_singleton_on_a_task_that_must_not_overlap_fails_when_declared(app: Celery) -> None:
    """A second call would become the first one's, where each run of a schedule is to be one of its own."""
    with pytest.raises(PolicyError, match=r'write .*scope="while_executing", on_conflict="skip"'):
        app.task(base=NonOverlappingTask, singleton=Singleton("doc"), name="shop.sync", shared=False)(sync)
    mine = Singleton("doc", scope="while_executing", on_conflict="skip")
    app.task(base=NonOverlappingTask, singleton=mine, name="shop.fine", shared=False)(sync)


def sync(doc: str) -> str:
    return doc


def test_a_decorated_task_is_a_singleton(app: Celery, work: InlineWorker, store: Store) -> None:
    """The decorator and the base class would differ."""
    task = singleton(key="doc")(app.task(sync, name="shop.sync", shared=False))
    first = task.delay("a")
    assert task.delay("a").id == first.id
    assert task.delay("b").id != first.id
    work.run()
    assert first.get() == "a"


def test_tasks_with_one_name_share_keys(app: Celery, work: InlineWorker, store: Store) -> None:
    """Two tasks on one document would run at once although they were told not to."""
    one = singleton(key="doc", name="docs")(app.task(sync, name="shop.one", shared=False))
    two = singleton(key="doc", name="docs")(app.task(sync, name="shop.two", shared=False))
    assert one.delay("a").id == two.delay("a").id


@pytest.fixture(params=["base", "base with a value of its own", "decorator"])
def report(request: pytest.FixtureRequest, app: Celery, work: InlineWorker, runs: Runs) -> Any:
    """A task without overlaps, whose first run meets the second one's delivery."""

    def report(month: int = 1) -> str:
        runs.append(month)
        for message in work.take():
            work.waiting.clear()
            work.deliver(message)
        return f"report {month}"

    if request.param == "decorator":
        return without_overlapping()(app.task(report, name="shop.report", shared=False))
    options: dict[str, Any] = {"base": NonOverlappingTask}
    if request.param != "base":
        options["singleton"] = Singleton(scope="while_executing", on_conflict="skip", name="reports")
    return app.task(report, name="shop.report", shared=False, **options)


def test_a_run_that_would_overlap_is_skipped_and_told(
    report: Any, work: InlineWorker, runs: Runs, store: Store, patterns_events: CapturedEvents
) -> None:
    """A nightly job that takes longer than a night would be joined by the next, or vanish silently."""
    first, second = report.delay(), report.delay()
    first_message, second_message = work.take()
    work.waiting[:] = [(0, second_message)]
    work.deliver(first_message)
    assert (first.get(), second.get(), second.state) == ("report 1", None, "SUCCESS")
    (skipped,) = patterns_events.of("skipped", report)
    assert (skipped.task_id, skipped.detail["holder"]) == (second.id, first.id)
    third = report.delay()
    work.run()
    assert third.get() == "report 1"
    assert runs == [1, 1]


def test_a_disabled_singleton_asks_nobody(make: Make, work: InlineWorker, runs: Runs, store: Store) -> None:
    """The operator's kill switch would not work."""
    task = make()
    with disabled("singleton"):
        assert task.delay("a").id != task.delay("a").id
        work.run()
    assert len(runs) == 2
    assert store.client.keys("cp:singleton:*") == []


# --- the store is away: fakeredis can be switched off ------------------------------------------------------

away = pytest.mark.parametrize("store_url", ["fakeredis"], indirect=True)


def connected(store: Store, *, is_so: bool) -> None:
    store.client.connection_pool.connection_kwargs["server"].connected = is_so


@away
def test_a_call_is_published_without_its_lock_and_waits_at_its_start(
    make: Make, work: InlineWorker, runs: Runs, store: Store, patterns_events: CapturedEvents
) -> None:
    """A call made while the store is away would be lost, or run unguarded."""
    task = make()
    connected(store, is_so=False)
    calls = [task.delay("a", 1), task.delay("a", 2)]
    assert len({call.id for call in calls}) == 2
    for _ in calls:
        work.take()
        work.deliver(work.waiting.pop(0)[1])
    assert runs == []
    assert {event.detail["at"] for event in patterns_events.of("store_error")} == {"publish", "begin"}
    connected(store, is_so=True)
    work.run()
    assert {call.state for call in calls} == {"SUCCESS"}


@away
def test_a_call_may_be_refused_instead(make: Make, work: InlineWorker, runs: Runs, store: Store) -> None:
    """on_store_error would be ignored."""
    task = make(on_store_error="raise")
    connected(store, is_so=False)
    with pytest.raises(StoreUnavailable):
        task.delay("a")
    assert work.take() == []
    call = work.app.send_task("shop.sync", ("a",))
    work.run()
    with pytest.raises(StoreUnavailable):
        call.get()
    assert runs == []


@away
def test_an_end_that_meets_an_outage_is_reported_after_it(
    make: Make, work: InlineWorker, store: Store, wait_for: Any, patterns_events: CapturedEvents
) -> None:
    """A task that has succeeded would fail, or its key be stuck, because the store was away for a moment."""

    def body(*_: Any) -> str:
        connected(store, is_so=False)
        return "done"

    call = make(body, lease=2).delay("a")
    work.run()
    assert call.get() == "done"
    assert [event.detail["at"] for event in patterns_events.of("store_error")] == ["release"]
    connected(store, is_so=True)
    wait_for(lambda: not store.client.exists('cp:singleton:{shop.sync:"a"}'))


@away
def test_a_failure_that_meets_an_outage_changes_nothing(
    make: Make, work: InlineWorker, store: Store, clock: MovableClock
) -> None:
    """The error that a user sees would be the store's, and not the task's."""

    def body(*_: Any) -> None:
        connected(store, is_so=False)
        raise ValueError("no such document")

    call = make(body, lease=2).delay("a")
    work.run()
    connected(store, is_so=True)
    with pytest.raises(ValueError, match="no such document"):
        call.get()


@away
def test_a_publish_that_fails_while_the_store_is_away_fails_as_itself(
    make: Make, work: InlineWorker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller would be told of the store, when it is the broker that is away."""
    task = make()

    def unreachable(*_: Any, **__: Any) -> None:
        connected(store, is_so=False)
        raise OSError("no broker")

    monkeypatch.setattr(work.app.amqp, "send_task_message", unreachable)
    with pytest.raises(OSError, match="no broker"):
        task.delay("a")
