"""Rate limits on real workers, Redis and RabbitMQ: waiting, changes, 429s, canvas, stalls."""

import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from celery import chain, chord, group

from celery_patterns import Rate, RateLimitManager
from celery_patterns.policies.rate_limits.status import survey
from celery_patterns.policies.rate_limits.steering import steering_of
from tests.ground.stage import Stage
from tests.ground.waiting import wait_for
from tests.ground.workers import Worker
from tests.policies.rate_limits.windows import excess, micros

LIMITED = "tests.apps.limited"
StartWorker = Callable[..., Worker]


@pytest.fixture
def limited(broker: Any, stage: Stage) -> ModuleType:
    return stage.load(LIMITED)


@pytest.fixture
def counting_down(broker: Any, stage: Stage) -> ModuleType:
    """The same, where what waits is a countdown."""
    stage.conf["patterns_waiting_room"] = False
    return stage.load(LIMITED)


def grants(stage: Stage) -> list[int]:
    """When tasks were let in, by the server's clock."""
    return [micros(entry["granted"]) for entry in stage.history.entries("started")]


def deferred(stage: Stage, task_id: str | None = None) -> int:
    """How often tasks were put off."""
    wanted = {} if task_id is None else {"id": task_id}
    return stage.history.count("event", what="deferred", **wanted)


def results(calls: list[Any]) -> list[Any]:
    """What calls return. Not by `get`: Celery 5.5's sleeps a second before each result that came early."""
    for call in calls:
        wait_for(call.ready, timeout=60)
    return [call.result for call in calls]


def test_many_tasks_run_at_the_limit_and_each_once(
    limited: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """Tasks would be lost, run twice, exceed the limit, or keep others from their turn."""
    for _ in range(2):
        worker(LIMITED)
    calls = [limited.busy.delay(number) for number in range(150)]
    wait_for(lambda: stage.history.count("started") > 20, timeout=20)
    assert limited.free.delay(time.time()).get(timeout=20) < 5
    assert results(calls) == list(range(150))
    assert sorted(entry["number"] for entry in stage.history.entries("started")) == list(range(150))
    assert excess(grants(stage), Rate.of("50/s"), 5) <= 0


def test_being_throttled_costs_no_retry(
    counting_down: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """A task that is throttled often would have used up its retries when it fails for the first time."""
    stage.conf["short_pauses"] = True
    RateLimitManager(counting_down.app).penalize("slow", 3_600)
    worker(LIMITED)
    call = counting_down.flaky.delay()
    wait_for(lambda: deferred(stage, call.id) >= 50, timeout=40)
    assert call.state == "RETRY"
    RateLimitManager(counting_down.app).restore_defaults("slow")
    RateLimitManager(counting_down.app).adjust_rate("slow", "1000/s", burst=10)
    assert call.get(timeout=20) == 1
    assert [entry["retries"] for entry in stage.history.entries("started")] == [0, 1]


def test_a_line_does_not_end_after_a_day(
    counting_down: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """A crowded limit would lose whoever has waited for a day."""
    RateLimitManager(counting_down.app).penalize("slow", 3_600)
    worker(LIMITED)
    two_days_ago = time.time() - 2 * 86_400
    call = counting_down.slow.apply_async(
        headers={"cp-throttled-since": two_days_ago, "cp-throttles": 170_000}
    )
    wait_for(lambda: deferred(stage, call.id) >= 2, timeout=20)
    assert stage.history.last("event", what="deferred")["deferrals"] > 170_000  # type: ignore[index]
    RateLimitManager(counting_down.app).restore_defaults("slow")
    assert call.get(timeout=20) == 0


def test_a_raised_rate_reaches_those_who_wait(
    counting_down: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """Tasks that wait for an hour would wait for it although the limit was raised."""
    worker(LIMITED)
    calls = [counting_down.slow.delay(number) for number in range(20)]
    wait_for(lambda: deferred(stage) >= 25, timeout=20)
    wait_for(lambda: 10 <= survey(counting_down.app, "slow")[0].waiting <= 19, timeout=20)
    RateLimitManager(counting_down.app).adjust_rate("slow", "1000/s", burst=100)
    raised = time.time()
    assert results(calls) == list(range(20))
    last = max(entry["body"] for entry in stage.history.entries("started"))
    assert last - raised < 4, "what waits asks once a second"


def test_a_penalty_stops_everybody_and_ends(
    limited: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """A limit that was closed would let tasks pass that were waiting already, or never open again."""
    for _ in range(2):
        worker(LIMITED)
    calls = [limited.busy.delay(number) for number in range(120)]
    wait_for(lambda: stage.history.count("started") > 20, timeout=20)
    manager = RateLimitManager(limited.app)
    manager.penalize("busy", 2)
    closed = micros(manager._store.now())
    opens = micros(steering_of(manager._store)[1]["busy"].closed)
    assert results(calls) == list(range(120))
    slept = 50_000  # whoever had his token by then sleeps so long for it, at most
    during = [at for at in grants(stage) if closed + slept < at < opens]
    assert during == []
    assert excess(grants(stage), Rate.of("50/s"), 5) <= 0


def test_a_429_is_heard_by_all_and_costs_nothing(
    limited: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """Each task would have to hear its own 429, and pay for it with a retry."""
    for _ in range(2):
        worker(LIMITED)
    call = limited.throttled.delay(1.5)
    wait_for(lambda: deferred(stage, call.id), timeout=20)
    others = [limited.other.delay() for _ in range(10)]
    assert call.get(timeout=20) == 0
    assert results(others) == [None] * 10
    first, *rest = sorted(grants(stage))
    assert len(rest) == 11
    assert min(rest) - first >= 1_500_000
    assert stage.history.count("event", what="throttled") == 1


def test_canvas_behind_limits_completes(limited: ModuleType, stage: Stage, worker: StartWorker) -> None:
    """A chain or chord with a limited or skipped part would hang, or go on with None."""
    worker(LIMITED)
    body = chord(group(limited.of_tenant.s("a") for _ in range(4)))(limited.gather.s())
    parts = [limited.of_tenant.si("b"), limited.of_tenant.si("b"), limited.of_tenant.si("b")]
    chained = chain(*parts, limited.gather.s()).delay()
    assert body.get(timeout=30) == ["a"] * 4
    assert chained.get(timeout=30) == "b"
    times = [micros(entry["granted"]) for entry in stage.history.entries("started", tenant="a")]
    assert excess(times, Rate.of("2/s"), 1) <= 0
    bare = [limited.of_tenant.delay("c") for _ in range(3)]
    assert sorted(result or "" for result in results(bare)) == ["", "", "c"]


def test_a_limited_task_that_waits_can_be_revoked(
    limited: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """A task that waits for its limit could not be called back, or would outlive its expiry."""
    RateLimitManager(limited.app).penalize("slow", 3_600)
    worker(LIMITED, concurrency=1)
    call, late = limited.slow.delay(1), limited.slow.apply_async((2,), expires=2)
    wait_for(lambda: deferred(stage, call.id) and deferred(stage, late.id), timeout=20)
    call.revoke()
    wait_for(lambda: call.state == late.state == "REVOKED", timeout=20)
    assert stage.history.count("started") == 0


def test_duplicates_spend_nothing(limited: ModuleType, stage: Stage, worker: StartWorker) -> None:
    """A replayed call would use up the limit of those who do something."""
    worker(LIMITED)
    calls = [limited.charge.delay(order) for order in "AABBAABBCC" * 3]
    assert results(calls) == list("AABBAABBCC" * 3)
    assert sorted(entry["order"] for entry in stage.history.entries("started")) == ["A", "B", "C"]


@pytest.mark.chaos
def test_a_stalled_worker_makes_no_burst(
    limited: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """A worker that was stopped would start all at once what it had been let in for."""
    stalled = worker(LIMITED)
    worker(LIMITED)
    calls = [limited.busy.delay(number) for number in range(300)]
    wait_for(lambda: stage.history.count("started") > 30, timeout=20)
    stalled.suspend()
    resume_at = time.monotonic() + 3
    wait_for(lambda: time.monotonic() > resume_at, timeout=10)
    stalled.resume()
    assert sorted(results(calls)) == list(range(300))
    assert excess(grants(stage), Rate.of("50/s"), 5) <= 0
    late = sorted(entry["body"] - entry["granted"] for entry in stage.history.entries("started"))
    assert late[-6] < 1.2, "a stale grant was used"


@pytest.mark.chaos
def test_a_killed_worker_loses_no_task(
    broker: Any, limited: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any
) -> None:
    """What waited in a worker, or had been let in there, would be gone with it, or come back as a burst.

    Of Redis only the pool processes are killed: what a parent has popped and not yet noted down is lost.
    """
    stage.conf |= {"task_acks_late": True, "task_reject_on_worker_lost": True}
    stage.redeliver_after(4)
    limited = stage.load(LIMITED)
    killed = worker(LIMITED)
    worker(LIMITED)
    calls = [limited.busy.delay(number) for number in range(150)]
    wait_for(lambda: stage.history.count("started") > 30, timeout=20)
    if broker.kind == "rabbitmq":
        killed.kill()
    else:
        for child in killed.children():
            killed.kill_child(child)
    assert results(calls) == list(range(150))
    assert excess(grants(stage), Rate.of("50/s"), 5) <= 0


@pytest.mark.chaos
def test_the_store_is_away_for_a_while(
    limited: ModuleType, stage: Stage, worker: StartWorker, wait_for: Any, start_valkey: Any
) -> None:
    """Tasks would be lost, or run without a limit, while nobody can count."""
    server = start_valkey(durable=True)
    stage.conf["patterns_url"] = server.url()
    limited = stage.load(LIMITED)
    worker(LIMITED)
    calls = [limited.busy.delay(number) for number in range(100)]
    wait_for(lambda: stage.history.count("started") > 20, timeout=20)
    server.kill()
    calls += [limited.busy.delay(number) for number in range(100, 105)]  # what waits is out of reach for now
    wait_for(lambda: stage.history.count("event", what="store_error") > 3, timeout=20)
    before = stage.history.count("started")
    server.start()
    assert sorted(results(calls)) == list(range(105))
    assert before < 100
    assert excess(grants(stage), Rate.of("50/s"), 5) <= 0
