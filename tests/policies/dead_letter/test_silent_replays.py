"""Replays that cannot say at once how they ended: no entry stays in replaying for ever."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import states

from celery_patterns import DeadLetterMixin, DeadLetters, DeadLetterTask, Idempotency, IdempotentTask
from celery_patterns.core.store import Store
from celery_patterns.core.waits import WAIT_HEADERS
from celery_patterns.deadletters import Filter, Plan
from celery_patterns.deadletters.store import begin
from celery_patterns.flows.routing.routed_call import PRIORITY_HEADER, TIER_HEADER, URGENT_HEADER
from celery_patterns.policies.dead_letter.life import Life
from celery_patterns.policies.singleton import headers as singletons
from celery_patterns.testing import MovableClock, memory_store
from tests.deadletters.letters import die
from tests.ground.inline import InlineWorker, inline_app
from tests.ground.proxy import Proxy
from tests.ground.servers import ValkeyServer
from tests.ground.stage import Stage
from tests.ground.workers import Worker

LETTERS = "tests.apps.letters"
NOW = Plan(canary=False)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with memory_store(store_url) as store:
        yield store


@pytest.fixture
def inline(store: Store) -> InlineWorker:
    return InlineWorker(inline_app(), MovableClock(store))


@pytest.mark.integration
def test_a_replay_that_ends_with_ignore_is_open_again(
    broker: Any, stage: Stage, worker: Callable[..., Worker], wait_for: Any, tmp_path: Path
) -> None:
    """Nobody would ever hear of the entry again, since a task that is ignored reports nothing."""
    letters = stage.load(LETTERS)
    desk = DeadLetters(letters.app)
    gate = tmp_path / "gate"
    worker(LETTERS, concurrency=1)
    sent = letters.doubtful.delay(str(gate))
    wait_for(lambda: desk.counts()["open"], timeout=20)
    gate.write_text("ignore")
    report = desk.replay(plan=Plan(patience=20))
    assert (report.failed, report.stopped) == (1, "1 of 1 died again")
    entry = desk.get(sent.id)
    assert (entry.state, entry.history[-1].words) == ("open", "replay 1 ended with Ignore")
    gate.write_text("")
    assert desk.replay(plan=Plan(patience=20)).resolved == 1


@pytest.mark.integration
def test_a_replay_that_succeeds_without_a_store_is_resolved_when_it_is_back(
    stage: Stage,
    worker: Callable[..., Worker],
    wait_for: Any,
    proxy: Proxy,
    valkey: ValkeyServer,
    tmp_path: Path,
) -> None:
    """Somebody would run a task again that has succeeded, since its entry says that it has not."""
    stage.conf["patterns_url"] = proxy.through(valkey.url(2))
    letters = stage.load(LETTERS)
    desk = DeadLetters(letters.app)
    gate = tmp_path / "gate"
    worker(LETTERS, concurrency=1)
    sent = letters.doubtful.delay(str(gate))
    wait_for(lambda: desk.counts()["open"], timeout=20)
    desk.replay(plan=NOW)
    wait_for(lambda: stage.history.count("replayed"), timeout=20)
    proxy.refuse()
    gate.write_text("")
    wait_for(lambda: stage.history.count("event", what="store_error", at="resolved"), timeout=20)
    assert sent.get(timeout=20) == "done"
    proxy.accept()
    wait_for(lambda: desk.counts()["resolved"] == 1, timeout=20)


def test_what_never_reported_is_settled_when_its_lease_has_run_out(inline: InlineWorker) -> None:
    """An entry whose message was purged, or whose worker died after the success, would hang for ever."""
    desk = DeadLetters(inline.app)
    for entry in ("purged", "done", "alive"):
        die(inline.app, entry, routing_key=inline.app.conf.task_default_queue)
    desk.replay(plan=NOW)
    inline.app.backend.store_result("done", None, states.SUCCESS)
    inline.clock.advance(NOW.lease - 10)
    assert desk.recover() == 0
    desk.store.client.hset(f"{desk.query.root}:entry:alive", "lease_ms", 10**9)
    _deliver_without_an_end(inline, "alive")
    inline.clock.advance(20)
    assert desk.recover() == 1
    assert {one.id: one.state for one in desk.walk(Filter(state=None))} == {
        "purged": "open",
        "done": "resolved",
        "alive": "replaying",
    }
    assert desk.get("purged").history[-1].words == "replay 1 has not been heard of since"


def _deliver_without_an_end(inline: InlineWorker, task_id: str) -> None:
    """A delivery asks whether it may run, and says no more."""
    assert begin(inline.app, task_id, 1) is True


def test_a_result_backend_that_is_away_decides_nothing(
    inline: InlineWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that has succeeded would be run again, since nobody could be asked."""
    desk = DeadLetters(inline.app)
    die(inline.app, "a", routing_key=inline.app.conf.task_default_queue)
    desk.replay(plan=NOW)
    inline.clock.advance(NOW.lease + 1)

    def away(*_: Any) -> None:
        raise ConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(inline.app.backend, "get_state", away)
        assert desk.recover() == 0
    assert desk.get("a").state == "replaying"
    assert desk.recover() == 1


def test_a_success_that_an_earlier_delivery_could_not_report_is_reported_by_its_copy(
    inline: InlineWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker killed between the result and the report would leave the entry in replaying."""
    failures = [ConnectionError("at first")]

    class Careful(IdempotentTask, DeadLetterMixin):
        abstract = True
        idempotency = Idempotency(key="order")

    @inline.app.task(base=Careful, name="shop.charge")
    def charge(order: str) -> str:
        if failures:
            raise failures.pop()
        return order

    desk = DeadLetters(inline.app)
    sent = charge.delay("A")
    inline.run()
    desk.replay(plan=NOW)
    (message,) = inline.take()
    inline.waiting.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Life, "succeeded", lambda self: None)
        inline.deliver(message)
    assert desk.get(sent.id).state == "replaying"
    message.delivery_info["redelivered"] = True
    inline.deliver(message)
    entry = desk.get(sent.id)
    assert (entry.state, entry.history[-1].words) == (
        "resolved",
        "replay 1 succeeded in an earlier delivery",
    )


def test_a_copy_that_fails_after_the_task_has_succeeded_is_no_dead_letter(inline: InlineWorker) -> None:
    """A task that has succeeded would be offered for replay, or its errbacks called."""
    failures: list[Exception] = []

    @inline.app.task(base=DeadLetterTask, name="shop.charge")
    def charge() -> str:
        if failures:
            raise failures.pop()
        return "done"

    sent = charge.delay()
    (message,) = inline.take()
    inline.waiting.clear()
    inline.deliver(message)
    failures.append(ValueError("charged before"))
    message.delivery_info["redelivered"] = True
    inline.deliver(message)
    assert sent.get() == "done"
    assert not any(DeadLetters(inline.app).counts().values())


def test_a_replay_inherits_nothing_of_what_was_counted_on_the_way_to_the_death(inline: InlineWorker) -> None:
    """A replayed task would have waited too long already, or end as the duplicate that it was then."""
    ours = (*WAIT_HEADERS, singletons.FOLLOW_HEADER, singletons.SKIP_HEADER, singletons.AT_HEADER)
    counted = dict.fromkeys((*ours, "cp-first-attempt", "cp-slept", "cp-wake-at"), "1") | {
        "cp-attempts": "[]"
    }
    callers = {
        "cp-key": "k",
        TIER_HEADER: "gold",
        URGENT_HEADER: True,
        PRIORITY_HEADER: "HIGH",
        "tenant": "t",
    }
    die(
        inline.app,
        "a",
        routing_key=inline.app.conf.task_default_queue,
        headers={**counted, **callers},
    )
    DeadLetters(inline.app).replay(plan=NOW)
    (message,) = inline.take()
    assert not counted.keys() & message.headers.keys()
    assert callers.items() <= message.headers.items()
    assert message.headers["cp-replay"] == "a/1"
