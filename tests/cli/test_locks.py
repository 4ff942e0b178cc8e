"""`celery -A proj patterns locks`, `locks release KEY`, `locks explain KEY`, as operators type them."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from click.testing import CliRunner, Result

from celery_patterns import ConcurrencyLimit, ConcurrencyLimitedTask, Singleton, SingletonTask, schedule_lock
from celery_patterns.cli import patterns
from celery_patterns.core.lease import Lease
from celery_patterns.core.store import Store, store_of
from celery_patterns.policies.concurrency.places import Places, limit_key
from celery_patterns.policies.singleton.lock import Lock, Started, lock_key
from celery_patterns.testing import MovableClock


@pytest.fixture
def app(every_store_url: str) -> Iterator[Celery]:
    """A project's app with a singleton and a limited task, its store on each kind of server."""
    app = Celery("shop", set_as_current=False)
    app.conf.update(patterns_url=every_store_url, result_backend="cache+memory://")

    def sync(doc: str) -> None:
        """Do nothing."""

    app.task(
        base=SingletonTask, singleton=Singleton("doc", on_conflict="defer"), name="shop.sync", shared=False
    )(sync)
    app.task(
        base=ConcurrencyLimitedTask,
        concurrency_limit=ConcurrencyLimit(2),
        name="shop.export",
        shared=False,
    )(sync)
    yield app
    store_of(app).close()


@pytest.fixture
def store(app: Celery) -> Store:
    return store_of(app)


def typed(app: Celery, *words: str, answer: str = "") -> Result:
    """What comes of `celery -A shop patterns locks ...`."""
    return CliRunner().invoke(patterns, ["locks", *words], obj=SimpleNamespace(app=app), input=answer)


def lock(store: Store, doc: str = "a", **options: Any) -> Lock:
    options = {"on_conflict": "defer", "lease": 60.0, "remember": 600.0, "host": "w1@h", **options}
    return Lock(store=store, key=lock_key(store, "shop.sync", json.dumps(doc)), **options)


def places(store: Store) -> Places:
    return Places(
        store=store, key=limit_key(store, "shop.export", None), limit=2, lease=60, remember=60, host="w2@h"
    )


def listed(app: Celery, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(typed(app, "--json", *words).output)
    return sorted(found, key=lambda one: (one["kind"], one["key"], one["task_id"]))


def test_the_list_says_who_holds_what(app: Celery, store: Store) -> None:
    """An operator would have to read Redis to learn why a call does not run."""
    assert typed(app).output == "nothing is held\n"
    begun = lock(store).begin("t-1/n")
    assert isinstance(begun, Started)
    lock(store).begin("t-2/n", turn=60)
    lock(store, "b", host="shop-web").queue("t-3", 600)
    places(store).acquire("t-4/n")
    with schedule_lock("nightly", 600, app=app):
        place, night, run, queued = listed(app)
        table = typed(app).output.splitlines()
    assert (place["kind"], place["key"], place["task_id"], place["waiters"]) == (
        "concurrency_limit",
        "shop.export",
        "t-4",
        0,
    )
    assert (night["kind"], night["key"], night["state"]) == ("schedule_lock", "nightly", "running")
    assert (run["key"], run["state"], run["task_id"], run["host"], run["fence"], run["waiters"]) == (
        'shop.sync:"a"',
        "running",
        "t-1",
        "w1@h",
        begun.fence,
        1,
    )
    assert 50 < run["left"] <= 60
    assert 0 <= run["age"] < 10
    assert (queued["state"], queued["task_id"], queued["host"], queued["fence"]) == (
        "queued",
        "t-3",
        "shop-web",
        None,
    )
    assert table[0].split()[:4] == ["key", "kind", "state", "task"]
    assert len(table) == 5


def test_the_list_of_one_task(app: Celery, store: Store) -> None:
    """What an operator looks for would be lost among what others hold."""
    lock(store).begin("t-1/n")
    places(store).acquire("t-4/n")
    assert [one["task_id"] for one in listed(app, "--task", "shop.sync")] == ["t-1"]
    assert [one["task_id"] for one in listed(app, "--task", "shop.export")] == ["t-4"]
    refused = typed(app, "--task", "shop.other")
    assert (refused.exit_code, refused.output) == (1, "Error: no task is called shop.other\n")


@pytest.mark.parametrize("key", ['shop.sync:"a"', "shop.sync:a"])
def test_a_released_holder_is_fenced_off(app: Celery, store: Store, key: str) -> None:
    """A holder whose lock was taken from it would free its successor's."""
    mine = lock(store)
    begun = mine.begin("t-1/n")
    assert isinstance(begun, Started)
    lease = Lease(store=store, key=mine.key, owner="t-1/n", fence=begun.fence, length=60, keep=660)
    refused = typed(app, "release", key, answer="n\n")
    assert refused.exit_code == 1
    assert "t-1 is running" in refused.output
    assert 'Take shop.sync:"a" (singleton, running) from t-1?' in refused.output
    assert lease.renew()
    assert "released" in typed(app, "release", key, answer="y\n").output
    assert not lease.renew()
    successor = mine.begin("t-2/n")
    assert isinstance(successor, Started)
    assert successor.fence > begun.fence
    assert mine.release("t-1/n", begun.fence, ended=True) == "t-2/n"


def test_a_place_is_released_by_the_task_that_has_it(app: Celery, store: Store) -> None:
    """To free one place an operator would have to free them all."""
    for number in (1, 2):
        places(store).acquire(f"t-{number}/n")
    assert (
        "released shop.export, t-1"
        in typed(app, "release", "shop.export", "--task-id", "t-1", "--yes").output
    )
    assert [one["task_id"] for one in listed(app)] == ["t-2"]
    typed(app, "release", "shop.export", "--yes")
    assert listed(app) == []


def test_a_key_that_nobody_holds_cannot_be_released(app: Celery) -> None:
    """A misspelt key would pass for a released one."""
    refused = typed(app, "release", "shop.sync:x", "--yes")
    assert (refused.exit_code, refused.output) == (1, "Error: nobody holds shop.sync:x\n")


def test_why_a_call_would_not_run(app: Celery, store: Store) -> None:
    """Someone who is asked why a task does not run would have to guess."""
    assert "would run now: nobody holds it" in typed(app, "explain", "shop.sync:a").output
    lock(store).begin("t-1/n")
    said = typed(app, "explain", "shop.sync:a").output
    assert said.startswith(
        'A call of shop.sync with the key shop.sync:"a" would wait for t-1 on w1@h, which has run for'
    )
    lock(store, "b").queue("t-2", 600)
    assert "t-2 on w1@h, which has been in the queue for 0 s" in typed(app, "explain", "shop.sync:b").output
    places(store).acquire("t-3/n")
    assert "would run: 1 of 2 places are taken, by t-3" in typed(app, "explain", "shop.export").output
    places(store).acquire("t-4/n")
    places(store).acquire("t-5/n", near=1, far=1)
    said = typed(app, "explain", "shop.export").output
    assert "shop.export under the limit shop.export would wait: 2 of 2 places are taken" in said
    assert "1 wait in line" in said
    with schedule_lock("nightly", 600, app=app):
        assert "would raise ScheduleLockError" in typed(app, "explain", "nightly").output


def test_a_name_that_no_task_has_is_no_free_key(app: Celery, store: Store) -> None:
    """A misspelt name would look like a key that nobody holds."""
    refused = typed(app, "explain", "shop.snyc:a")
    assert refused.exit_code == 1
    assert "nobody holds shop.snyc:a, and no task has a singleton or a limit of that name" in refused.output
    said = typed(app, "explain", "shop.export").output
    assert said == "A call of shop.export under the limit shop.export would run: 0 of 2 places are taken.\n"


@pytest.mark.parametrize("every_store_url", ["fakeredis"], indirect=True)
def test_a_lapsed_lease_is_shown_as_such(app: Celery, store: Store) -> None:
    """A holder that is gone would look as if it were at work."""
    clock = MovableClock(store)
    lock(store).begin("t-1/n")
    clock.advance(61)
    assert [one["state"] for one in listed(app)] == ["lapsed"]
    assert "would run and take over: t-1" in typed(app, "explain", "shop.sync:a").output


@pytest.mark.parametrize("every_store_url", ["fakeredis"], indirect=True)
def test_a_store_that_is_away_is_told_in_one_line(app: Celery, store: Store) -> None:
    """An operator would read a traceback."""
    store.client.connection_pool.connection_kwargs["server"].connected = False
    for words in ([], ["release", "x", "--yes"], ["explain", "x"]):
        refused = typed(app, *words)
        assert refused.exit_code == 1
        assert refused.output.startswith("Error: ")
