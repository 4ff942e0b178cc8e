"""A process that stands still between its policies and its body."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any, ClassVar

import pytest
from celery import Celery

from celery_patterns import ConcurrencyLimit, Idempotency, Policy, PolicyTask, Singleton
from celery_patterns.core import entering, lease, script
from celery_patterns.core.lease import Lease
from celery_patterns.core.policy import Call, Run
from celery_patterns.core.store import Store
from celery_patterns.errors import StoreUnavailable
from celery_patterns.testing import CapturedEvents, MovableClock, memory_store
from tests.ground.inline import InlineWorker, inline_app

POLICIES = [
    Idempotency(key="order"),
    Singleton(key="order", on_conflict="defer"),
    ConcurrencyLimit(1),
]


@dataclass(frozen=True)
class Inside(Policy):
    """Does something between all other policies and the body, once."""

    do: Callable[[Call], None]

    kind: ClassVar[str] = "inside"
    order: ClassVar[int] = 99

    def run(self, call: Call, proceed: Run) -> Any:
        if not call.headers.get("cp-deferrals"):
            self.do(call)
        return proceed(call)


@pytest.fixture
def store() -> Iterator[Store]:
    with memory_store() as store:
        yield store


@pytest.fixture
def app(store: Store) -> Celery:
    return inline_app(task_acks_late=True)


def declared(app: Celery, policy: Policy, do: Callable[[Call], None], body: Callable[..., Any]) -> Any:
    return app.task(base=PolicyTask, name="guarded", inside=Inside(do), of_leases=policy)(body)


def lease_of(call: Call) -> Lease:
    found: Lease = call.request.lease
    return found


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.kind)
def test_a_body_does_not_begin_when_another_has_the_lease(
    app: Celery, store: Store, policy: Policy, patterns_events: CapturedEvents
) -> None:
    """Two bodies would be at work, though the late one could have known before it began."""
    clock = MovableClock(store)
    log: list[str] = []

    def stand_still(call: Call) -> None:
        log.append(f"{call.id} stands still")
        lease_of(call)._until = 0.0
        clock.advance(lease_of(call).length + 1)
        task.apply_async(("A",), task_id="second")
        worker.run()

    def body(order: str) -> str:
        log.append(f"{task.request.id} runs")
        return order

    once = iter([stand_still])

    def at_first(call: Call) -> None:
        for do in once:
            do(call)
            break

    task = declared(app, policy, at_first, body)
    with clock.waits_in_place():
        worker = InlineWorker(app, clock)
        first = task.apply_async(("A",), task_id="first")
        worker.take()
        _, message = worker.waiting.pop(0)
        worker.deliver(message)
        worker.run()
    assert log[:2] == ["first stands still", "second runs"]
    assert log[2:] == ([] if isinstance(policy, Idempotency) else ["first runs"])
    assert first.get() == "A"
    assert "first" in {event.task_id for event in patterns_events.of("deferred", task)}


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.kind)
def test_a_lease_that_nobody_took_is_renewed(app: Celery, store: Store, policy: Policy) -> None:
    """A machine that was suspended would put all its tasks off, though nobody came in between."""
    clock = MovableClock(store)
    seen: list[bool] = []

    def stand_still(call: Call) -> None:
        lease_of(call)._until = 0.0
        clock.advance(lease_of(call).length + 1)

    def body(order: str) -> None:
        seen.append(task.request.lease.lost)

    task = declared(app, policy, stand_still, body)
    with clock.waits_in_place():
        worker = InlineWorker(app, clock)
        task.delay("A")
        assert worker.run() == 1
    assert seen == [False]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.kind)
def test_a_body_does_not_begin_when_nobody_knows(app: Celery, store: Store, policy: Policy) -> None:
    """It would begin unguarded, on a machine that was cut off for as long as its lease."""
    clock = MovableClock(store)
    log: list[str] = []
    server = store.client.connection_pool.connection_kwargs["server"]

    def stand_still(call: Call) -> None:
        lease_of(call)._until = 0.0
        server.connected = False

    def body(order: str) -> None:
        log.append("runs")

    task = declared(app, policy, stand_still, body)
    with clock.waits_in_place():
        worker = InlineWorker(app, clock)
        task.delay("A")
        worker.take()
        _, message = worker.waiting.pop(0)
        worker.deliver(message)
        assert log == []
        server.connected = True
        clock.advance(100)
        worker.run()
    assert log == ["runs"]


def test_a_store_that_is_away_is_told_of_as_the_policy_says(
    app: Celery, store: Store, patterns_events: CapturedEvents
) -> None:
    """Who chose to hear of it would find a task that waits, and operators would see nothing."""
    server = store.client.connection_pool.connection_kwargs["server"]

    def stand_still(call: Call) -> None:
        lease_of(call)._until = 0.0
        server.connected = False

    def body(order: str) -> None:
        raise AssertionError

    task = declared(app, Idempotency(key="order", on_store_error="raise"), stand_still, body)
    clock = MovableClock(store)
    with clock.waits_in_place():
        worker = InlineWorker(app, clock)
        result = task.delay("A")
        worker.take()
        _, message = worker.waiting.pop(0)
        worker.deliver(message)
    server.connected = True
    assert isinstance(result.result, StoreUnavailable)
    assert "begin" in {event.detail["at"] for event in patterns_events.of("store_error", task)}


def test_a_call_that_is_put_off_at_the_last_moment_keeps_its_place_in_line(app: Celery, store: Store) -> None:
    """It would wait for its limit anew, and its max_wait would begin anew."""
    clock = MovableClock(store)
    seen: list[dict[str, Any]] = []

    def stand_still(call: Call) -> None:
        lease_of(call)._until = 0.0
        store.client.delete(lease_of(call).key)

    def body(order: str) -> None:
        pass

    task = declared(app, Idempotency(key="order"), stand_still, body)
    with clock.waits_in_place():
        worker = InlineWorker(app, clock)
        task.apply_async(("A",), headers={"cp-throttles": 3, "cp-throttled-since": 1.0})
        worker.take()
        _, message = worker.waiting.pop(0)
        worker.deliver(message)
        seen += [one.headers for one in worker.take()]
    assert [headers.get("cp-throttles") for headers in seen] == [3]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.kind)
def test_a_process_that_stood_still_before_it_read_the_answer_knows_how_old_it_is(
    app: Celery, store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease would seem to begin when it goes on, and its body would begin beside its successor's."""
    clock = MovableClock(store)
    log: list[str] = []
    exchange, stood = script.exchange, [0.0]

    def stand_still(client: Any, commands: Any) -> Any:
        answers = exchange(client, commands)
        if commands[0][0] == "EVALSHA" and not isinstance(answers[0], Exception) and not stood[0]:
            stood[0] = 61.0
            clock.advance(61.0)
            task.apply_async(("A",), task_id="second")
            worker.run()
        return answers

    def body(order: str) -> str:
        log.append(task.request.id)
        return order

    for module in (entering, lease):
        monkeypatch.setattr(module, "monotonic", lambda: monotonic() + stood[0])
    task = declared(app, policy, lambda _: None, body)
    with clock.waits_in_place():
        worker = InlineWorker(app, clock)
        task.apply_async(("warm",))
        worker.run()
        task.apply_async(("A",), task_id="first")
        worker.take()
        _, message = worker.waiting.pop(0)
        monkeypatch.setattr(script, "exchange", stand_still)
        worker.deliver(message)
    assert log[1:] == ["second"]
