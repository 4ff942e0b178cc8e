"""The life of a lock: from the message to the end of its task, whatever becomes of either."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery import chord
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from kombu.exceptions import OperationalError
from tenacity import stop_after_attempt, wait_fixed

from celery_patterns import Call, ConcurrencyLimit, DeadLetter, Idempotency, Policy, RetryPolicy, Singleton
from celery_patterns.core import request as request_module
from celery_patterns.core.install import install
from celery_patterns.core.lease import KILL_GRACE
from celery_patterns.core.policy import Run
from celery_patterns.core.postpone import postpone
from celery_patterns.core.store import Store
from celery_patterns.core.waits import deferrals
from celery_patterns.errors import KeyArgumentError, Refused, StoreVersionError
from celery_patterns.policies.singleton import delivery as delivery_module
from celery_patterns.testing import CapturedEvents, MovableClock
from tests.ground.inline import InlineWorker, replay_of, revoked
from tests.policies.singleton.conftest import Make

Runs = list[Any]
LOCK = 'cp:singleton:{shop.sync:"a"}'


@pytest.fixture
def owner(store: Store) -> Callable[[], str | None]:
    """`owner()`: who has the lock of document a."""

    def owner() -> str | None:
        found = store.client.hget(LOCK, "owner")
        return found and found.decode()

    return owner


def left(store: Store) -> float:
    """Seconds that the lock of document a lasts without another sign of life."""
    return int(store.client.hget(LOCK, "until")) / 1000 - store.now()


def keys_left(store: Store) -> set[str]:
    """What is left in the store, apart from what is remembered of ended tasks."""
    found = {key.decode() for key in store.client.keys("cp:*")} - {store.clock_key}
    assert all(store.client.pttl(key) > 0 for key in found), "a key without an end"
    return {key for key in found if ":ended:" not in key}


def report(request: Any, error: BaseException) -> None:
    """Have the worker's parent find out that the process of a delivery is gone."""
    request.on_failure(SimpleNamespace(exception=error, traceback="", exc_info=None))


# --- the end -----------------------------------------------------------------------------------------------


def test_an_end_leaves_nothing_but_the_memory_of_it(make: Make, work: InlineWorker, store: Store) -> None:
    """A lock would stay for its whole time, or for ever."""
    sync = make(queued_ttl=7_200)
    call = sync.delay("a")
    work.run()
    assert keys_left(store) == set()
    assert 7_190 < store.client.pttl(f"{LOCK}:ended:{call.id}") / 1000 <= 7_200


@pytest.mark.parametrize("scope", ["until_executed", "while_executing"])
@pytest.mark.parametrize(
    "error", [ValueError("no"), Ignore("no"), Reject("no", requeue=False), SoftTimeLimitExceeded()], ids=repr
)
def test_a_body_that_fails_lets_go(
    make: Make, work: InlineWorker, store: Store, error: Exception, scope: Any
) -> None:
    """A document whose synchronisation failed once could not be synchronised for an hour."""

    def body(*_: Any) -> None:
        raise error

    sync = make(body, scope=scope)
    sync.delay("a")
    work.run()
    assert keys_left(store) == set()


def test_an_error_that_is_no_exception_lets_go(make: Make, work: InlineWorker, store: Store) -> None:
    """A body that calls sys.exit in a thread would keep its key."""

    def body(*_: Any) -> None:
        raise SystemExit

    sync = make(body, scope="while_executing")
    sync.delay("a")
    with pytest.raises(SystemExit):
        work.run()
    assert keys_left(store) == set()


def test_a_failed_publish_lets_go(
    make: Make, work: InlineWorker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that never reached the broker would block all that come after it."""
    sync = make()

    def unreachable(*_: Any, **__: Any) -> None:
        raise OperationalError("no broker")

    monkeypatch.setattr(work.app.amqp, "send_task_message", unreachable)
    with pytest.raises(OperationalError):
        sync.delay("a")
    with pytest.raises(TypeError):
        sync.apply_async(("a",), {"typo": 1})
    assert keys_left(store) == set()


def test_a_failed_publish_gives_up_the_turn(
    make: Make, work: InlineWorker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key would be handed to a call that nobody has ever sent."""
    sync = make(on_conflict="keep_latest")
    sync.delay("a")
    with monkeypatch.context() as broken:
        broken.setattr(work.app.amqp, "send_task_message", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sync.delay("a", 2)
    work.run()
    assert keys_left(store) == set()


def test_a_call_without_a_key_holds_nothing(make: Make, work: InlineWorker, store: Store) -> None:
    """A call that cannot be told from others would be published, or its failure would raise another."""
    sync = make()
    with pytest.raises(KeyArgumentError, match="'doc'"):
        sync.delay(object())
    call = work.app.send_task("shop.sync", (), {"version": 2})
    work.run()
    assert call.state == "FAILURE"
    assert keys_left(store) == set()


# --- retries and deferrals ---------------------------------------------------------------------------------


def test_a_retry_keeps_the_lock_past_its_own_time(
    make: Make, work: InlineWorker, runs: Runs, store: Store, owner: Any, clock: MovableClock
) -> None:
    """A task that waits for its retry would lose its key to another, or be taken for a duplicate and lost."""

    def body(task: Any, doc: str, version: int) -> str:
        if task.request.retries == 0:
            raise task.retry(countdown=600)
        return "done"

    sync = make(body, queued_ttl=60)
    call = sync.delay("a")
    work.take()
    work.deliver(work.waiting.pop(0)[1])
    assert owner() == f"{call.id}/"
    assert 655 < left(store) <= 660
    clock.advance(300)
    assert sync.delay("a").id == call.id
    work.run()
    assert call.get() == "done"
    assert runs == [("a", 1), ("a", 1)]
    assert keys_left(store) == set()


def test_autoretry_is_no_conflict(make: Make, work: InlineWorker, runs: Runs, store: Store) -> None:
    """The same, for retries that Celery makes by itself."""

    def body(task: Any, doc: str, version: int) -> int:
        if task.request.retries < 2:
            raise ConnectionError("not yet")
        return task.request.retries

    sync = make(body, autoretry_for=(ConnectionError,), retry_backoff=False, default_retry_delay=30)
    call = sync.delay("a")
    work.run()
    assert call.get() == 2
    assert len(runs) == 3
    assert keys_left(store) == set()


def test_a_retry_that_another_policy_decides_keeps_the_lock(
    make: Make, work: InlineWorker, runs: Runs, store: Store, owner: Any
) -> None:
    """The lock would not know when the task is due again, and end before."""

    def body(task: Any, doc: str, version: int) -> str:
        if task.request.retries == 0:
            raise ConnectionError("not yet")
        return "done"

    sync = make(body, queued_ttl=60)
    install(sync, RetryPolicy(ConnectionError, wait=wait_fixed(600)))
    call = sync.delay("a")
    work.take()
    work.deliver(work.waiting.pop(0)[1])
    assert owner() == f"{call.id}/"
    assert 655 < left(store) <= 660
    work.run()
    assert call.get() == "done"
    assert len(runs) == 2
    assert keys_left(store) == set()


def test_a_failure_that_another_policy_mends_lets_go(
    make: Make, work: InlineWorker, runs: Runs, store: Store
) -> None:
    """A policy that gives something else instead of a failure would leave the key held for an hour."""

    @dataclass(frozen=True)
    class Mending(Policy):
        kind: ClassVar[str] = "mending"
        order: ClassVar[int] = 1

        def run(self, call: Call, proceed: Run) -> Any:
            try:
                return proceed(call)
            except ValueError:
                return "mended"

    def body(*_: Any) -> None:
        raise ValueError("no such document")

    sync = make(body)
    install(sync, Mending())
    call = sync.delay("a")
    work.run()
    assert call.get() == "mended"
    assert keys_left(store) == set()


def test_a_retry_that_comes_before_its_delivery_has_ended_waits(
    make: Make, work: InlineWorker, runs: Runs
) -> None:
    """A retry without a delay would be taken for a stranger while the delivery before it ends."""

    def body(task: Any, doc: str, version: int) -> str:
        if task.request.retries == 0:
            try:
                task.retry(countdown=0)
            finally:
                for message in work.take():
                    work.deliver(message)
                work.waiting.clear()
                assert len(runs) == 1
        return "done"

    call = make(body).delay("a")
    work.run()
    assert call.get() == "done"
    assert len(runs) == 2


def test_a_deferral_by_another_policy_keeps_the_lock(
    make: Make, work: InlineWorker, runs: Runs, store: Store, owner: Any
) -> None:
    """A call that waits for a place under a limit would lose its key, or conflict with itself."""
    sync = make()
    install(sync, ConcurrencyLimit(1, name="link"))
    _take_the_place(store, "cp:concurrency_limit:{link}")
    call = sync.delay("a")
    work.take()
    work.deliver(work.waiting.pop(0)[1])
    assert owner() == f"{call.id}/"
    assert sync.delay("a").id == call.id
    work.run(most=100)
    assert call.get() == "a1"
    assert runs == [("a", 1)]
    assert {key for key in keys_left(store) if "singleton" in key} == set()


def _take_the_place(store: Store, key: str) -> None:
    until = round((store.now() + 20) * 1000)
    store.client.zadd(f"{key}:held", {"another": until})
    store.client.hset(f"{key}:held:another", mapping={"owner": "another/x", "fence": 1, "until": until})
    for name in (f"{key}:held", f"{key}:held:another"):
        store.client.expire(name, 1_000)


def test_a_task_may_replace_itself(make: Make, work: InlineWorker, runs: Runs, store: Store) -> None:
    """A task that replaces itself has the same id: it would be taken for a late copy and dropped."""

    def body(task: Any, doc: str, version: int) -> Any:
        return task.replace(task.si(doc, version + 1)) if version < 3 else version

    call = make(body).delay("a")
    work.run()
    assert call.get() == 3
    assert runs == [("a", 1), ("a", 2), ("a", 3)]
    assert keys_left(store) == set()


@pytest.mark.parametrize("scope", ["until_executed", "until_executing", "while_executing"])
def test_a_task_may_be_sent_again_under_its_id(
    make: Make, work: InlineWorker, runs: Runs, scope: Any
) -> None:
    """A failed task that an operator sends again would be taken for a late copy of itself."""
    fails = [True]
    sync = make(until_mended(fails), scope=scope)
    sync.apply_async(("a",), task_id="mine")
    work.run()
    fails.clear()
    call = sync.apply_async(("a",), task_id="mine")
    work.run()
    assert call.get() == "done"
    assert len(runs) == 2


@pytest.mark.parametrize("scope", ["until_executed", "while_executing"])
def test_a_replay_of_a_dead_letter_is_no_late_copy(
    make: Make, work: InlineWorker, runs: Runs, scope: Any
) -> None:
    """A task that is run again after its cause was mended would be taken for a late copy and dropped."""
    fails = [True]
    call = make(until_mended(fails), scope=scope).delay("a")
    (message,) = work.take()
    work.waiting.clear()
    work.deliver(message)
    work.deliver(message)
    assert len(runs) == 1, "a copy ran as well"
    fails.clear()
    again = replay_of(message)
    work.deliver(again)
    assert call.get() == "done"
    work.deliver(again)
    work.deliver(message)
    assert len(runs) == 2, "a copy ran as well"


def test_a_replay_after_the_hard_limit(make: Make, work: InlineWorker, runs: Runs, store: Store) -> None:
    """The same, for an end that only the worker's parent has seen."""
    sync = make()
    call = sync.delay("a")
    (message,) = work.take()
    work.waiting.clear()
    _begin(sync, request := work.request(message))
    request.on_timeout(soft=False, timeout=1)
    work.deliver(message)
    assert runs == []
    work.clock.advance(KILL_GRACE)
    work.deliver(replay_of(message))
    assert (call.get(), len(runs)) == ("a1", 1)
    assert keys_left(store) == set()


def test_a_replay_of_a_follower_runs_itself(make: Make, work: InlineWorker, runs: Runs) -> None:
    """A duplicate that shared a failure would share it for ever, however often it is run again."""
    fails = [True]
    sync = make(until_mended(fails))
    sync.delay("a")
    call = sync.apply_async(("a",), task_id="mine")
    first, second = work.take()
    work.waiting.clear()
    work.deliver(first)
    work.deliver(second)
    with pytest.raises(ValueError, match="declined"):
        call.get()
    fails.clear()
    work.deliver(replay_of(second))
    assert work.app.AsyncResult("mine").get() == "done"
    assert len(runs) == 2


def until_mended(fails: list[bool]) -> Callable[..., str]:
    """Return a body that fails until `fails` is cleared."""

    def body(*_: Any) -> str:
        if fails:
            raise ValueError("declined")
        return "done"

    return body


def test_a_retry_is_dropped_if_a_copy_of_its_delivery_has_succeeded(
    make: Make, work: InlineWorker, runs: Runs
) -> None:
    """A worker that is killed after it has published a retry would have the task succeed twice."""
    fails = [True]

    def body(task: Any, doc: str, version: int) -> str:
        if fails:
            raise task.retry(countdown=60)
        return "done"

    call = make(body).delay("a")
    (message,) = work.take()
    work.waiting.clear()
    work.deliver(message)
    fails.clear()
    work.deliver(message)
    assert (call.get(), len(runs)) == ("done", 2)
    work.run()
    assert (call.get(), len(runs)) == ("done", 2)


# --- what other policies make of a run ---------------------------------------------------------------------


def test_a_duplicate_that_idempotency_answers_lets_go(
    make: Make, work: InlineWorker, runs: Runs, store: Store
) -> None:
    """A call that never reached its lock would keep it for an hour, and later ones would join it."""
    sync = make()
    install(sync, Idempotency(("doc", "version")))
    for version in (1, 1, 2, 1):
        call = sync.delay("a", version)
        work.run()
        assert call.get() == f"a{version}"
        assert {key for key in keys_left(store) if "singleton" in key} == set()
    assert runs == [("a", 1), ("a", 2)]


def test_a_call_that_another_policy_puts_off_keeps_its_lock(
    make: Make, work: InlineWorker, runs: Runs, store: Store, owner: Any
) -> None:
    """A call that waits before it comes to its lock would lose it to time, or to another."""
    sync = make(queued_ttl=60)
    install(sync, PuttingOff())
    call = sync.delay("a")
    work.take()
    work.deliver(work.waiting.pop(0)[1])
    assert owner() == f"{call.id}/"
    assert 655 < left(store) <= 660
    work.run()
    assert (call.get(), runs, keys_left(store)) == ("a1", [("a", 1)], set())


@dataclass(frozen=True)
class PuttingOff(Policy):
    """Puts each call off once, for ten minutes."""

    kind: ClassVar[str] = "putting_off"
    order: ClassVar[int] = 1

    def run(self, call: Call, proceed: Run) -> Any:
        if not deferrals(call):
            postpone(call, 600, Refused("busy", 600), policy=self.kind)
        return proceed(call)


@pytest.mark.parametrize("scope", ["until_executed", "while_executing"])
def test_a_success_that_another_policy_takes_back_is_no_end(
    make: Make, work: InlineWorker, runs: Runs, store: Store, scope: Any
) -> None:
    """Its retry would be taken for a late copy of what has ended, and dropped."""

    @dataclass(frozen=True)
    class Storing(Policy):
        kind: ClassVar[str] = "storing"
        order: ClassVar[int] = 30

        def run(self, call: Call, proceed: Run) -> Any:
            result = proceed(call)
            if len(runs) == 1:
                raise ConnectionError("cannot store the result")
            return result

    sync = make(scope=scope)
    install(sync, Storing(), RetryPolicy(ConnectionError, wait=wait_fixed(60)))
    call = sync.delay("a")
    work.run()
    assert call.get() == "a1"
    assert len(runs) == 2
    assert keys_left(store) == set()


def test_a_failure_that_a_copy_hands_on_is_neither_retried_nor_a_death(
    make: Make,
    work: InlineWorker,
    runs: Runs,
    monkeypatch: pytest.MonkeyPatch,
    patterns_events: CapturedEvents,
) -> None:
    """A part of a chord that the broker delivers again would be tried again though it has failed for good."""
    monkeypatch.setattr(
        "celery_patterns.core.guard.is_counted", lambda _: None
    )  # as with Celery's Redis backend
    sync = make(until_mended([True]))
    install(sync, RetryPolicy(ValueError, wait=wait_fixed(1), stop=stop_after_attempt(2)), DeadLetter())
    chord([sync.s("a"), sync.s("b")])(sync.si("c"))
    first, _ = work.take()
    work.run()
    assert len(runs) == 4
    deaths = len(patterns_events.of("dead_lettered"))
    work.deliver(first)
    assert work.take() == []
    assert len(runs) == 4
    assert len(patterns_events.of("dead_lettered")) == deaths


def test_a_follower_that_is_tried_again_runs_itself(make: Make, work: InlineWorker, runs: Runs) -> None:
    """A duplicate that shared a failure would share it with each of its own attempts."""
    sync = make(lambda *_: 1 / 0 if len(runs) < 3 else "done")
    install(sync, RetryPolicy(ZeroDivisionError, wait=wait_fixed(1), stop=stop_after_attempt(2)))
    first = sync.delay("a")
    call = sync.apply_async(("a",), task_id="mine")
    work.run()
    with pytest.raises(ZeroDivisionError):
        first.get()
    assert (call.get(), len(runs)) == ("done", 3)


# --- the queue ---------------------------------------------------------------------------------------------


def test_a_countdown_longer_than_the_queued_ttl(
    make: Make, work: InlineWorker, runs: Runs, store: Store, clock: MovableClock
) -> None:
    """A call for tomorrow would lose its key today."""
    sync = make(queued_ttl=60)
    call = sync.apply_async(("a",), countdown=86_400)
    assert 86_400 < left(store) <= 86_460
    clock.advance(86_000)
    assert sync.delay("a").id == call.id


def test_a_backlog_longer_than_the_queued_ttl(
    make: Make, work: InlineWorker, runs: Runs, store: Store, clock: MovableClock
) -> None:
    """Two calls that both lost their lock to time would run at once, or one be lost."""
    sync = make(queued_ttl=60)
    first = sync.delay("a", 1)
    clock.advance(61)
    second = sync.delay("a", 2)
    assert second.id != first.id
    work.run()
    assert first.get() == second.get() == "a2"
    assert runs == [("a", 2)]


def test_a_backlog_does_not_bring_an_old_version_last(
    make: Make, work: InlineWorker, runs: Runs, clock: MovableClock
) -> None:
    """With keep_latest, a message that lost its lock to time would replace a newer one."""
    sync = make(queued_ttl=60, on_conflict="keep_latest")
    first = sync.delay("a", 1)
    clock.advance(61)
    second = sync.delay("a", 2)
    work.run()
    assert (first.get(), second.get(), runs) == (None, "a2", [("a", 2)])


def test_a_message_without_its_lock_takes_it(
    make: Make, work: InlineWorker, runs: Runs, clock: MovableClock
) -> None:
    """A message that was in the queue for too long would be dropped."""
    sync = make(queued_ttl=60)
    call = sync.delay("a")
    clock.advance(1_000)
    work.run()
    assert call.get() == "a1"


def test_a_revoked_call_lets_go(make: Make, work: InlineWorker, runs: Runs, store: Store) -> None:
    """A key would be stuck behind a call that was taken back."""
    sync = make()
    call = sync.delay("a")
    with revoked(call.id):
        work.run()
    assert (call.state, runs, keys_left(store)) == ("REVOKED", [], set())


def test_an_expired_call_lets_go(make: Make, work: InlineWorker, runs: Runs, store: Store) -> None:
    """A key would be stuck behind a call that came too late."""
    sync = make()
    call = sync.apply_async(("a",), expires=-1)
    work.run()
    assert (call.state, runs, keys_left(store)) == ("REVOKED", [], set())


def test_a_call_that_expires_in_the_broker_has_no_lock_for_longer(make: Make, store: Store) -> None:
    """RabbitMQ drops an expired message without a word, and the key would be stuck for queued_ttl."""
    sync = make()
    sync.apply_async(("a",), expires=30)
    assert 30 < left(store) <= 31


# --- redelivery --------------------------------------------------------------------------------------------


def test_a_copy_waits_while_its_task_runs(
    make: Make, work: InlineWorker, runs: Runs, patterns_events: CapturedEvents
) -> None:
    """A message that the broker delivers again would run beside itself, or be acknowledged and lost."""
    copies = []

    def body(task: Any, doc: str, version: int) -> str:
        if not copies:
            copies.append(message)
            work.deliver(message)
            assert len(work.take()) == 1, "the copy is gone; if this run dies, nothing is left"
            assert task.AsyncResult(task.request.id).state == "PENDING", "the copy wrote a state"
        return "done"

    call = make(body).delay("a")
    (message,) = work.take()
    work.waiting.clear()
    work.deliver(message)
    assert call.get() == "done"
    work.run()
    assert runs == [("a", 1)]
    assert [event.detail["copy"] for event in patterns_events.of("deferred")] == [True]


def test_a_late_copy_is_only_acknowledged(make: Make, work: InlineWorker, runs: Runs) -> None:
    """A message that comes again after its task has ended would run the task, and its links, again."""
    linked = []

    @work.app.task(name="shop.note", shared=False)
    def note(value: str) -> None:
        linked.append(value)

    make().apply_async(("a",), link=note.s())
    (message,) = work.take()
    work.run()
    work.deliver(message)
    work.run()
    assert (runs, linked) == ([("a", 1)], ["a1"])


def test_a_late_copy_in_a_chord_counts_once(make: Make, work: InlineWorker, runs: Runs) -> None:
    """A part would be counted for another one, or not at all if its worker was killed before it was."""
    sync = make()

    @work.app.task(name="shop.join", shared=False)
    def join(values: list[str]) -> list[str]:
        return values

    body = chord([sync.s("a"), sync.s("b")])(join.s())
    first, second = work.take()
    work.waiting.clear()
    for message in (first, first, second, second):
        work.deliver(message)
    work.run()
    assert sorted(body.get()) == ["a1", "b1"]
    assert runs == [("a", 1), ("b", 1)]


def test_a_copy_runs_if_the_end_was_never_stored(make: Make, work: InlineWorker, runs: Runs) -> None:
    """A kill between the end of the body and the stored result would lose the result and the links."""
    call = make().delay("a")
    (message,) = work.take()
    work.run()
    work.app.backend.forget(call.id)
    work.deliver(message)
    assert len(runs) == 1, "it ran although the result may still be on its way"
    work.run()
    assert call.get() == "a1"
    assert len(runs) == 2


def test_a_copy_of_a_task_without_results_is_only_acknowledged(
    make: Make, work: InlineWorker, runs: Runs
) -> None:
    """A task longer than the visibility timeout whose result nobody reads would run for ever."""
    make(ignore_result=True).delay("a")
    (message,) = work.take()
    work.run()
    work.deliver(message)
    assert runs == [("a", 1)]


# --- kills -------------------------------------------------------------------------------------------------


def test_a_killed_process_hands_the_lock_back(
    make: Make, work: InlineWorker, runs: Runs, store: Store, owner: Any
) -> None:
    """A task that is delivered again after a kill would find its own lock, or another call in its place."""
    sync = make(acks_late=True, reject_on_worker_lost=True)
    call = sync.delay("a")
    (message,) = work.take()
    request = work.request(message)
    _begin(sync, request)
    request.on_reject = lambda *_: None
    report(request, WorkerLostError("gone"))
    assert owner() == f"{call.id}/"
    assert sync.delay("a").id == call.id
    work.deliver(message)
    assert call.get() == "a1"


def test_a_killed_process_of_a_task_that_is_not_redelivered_lets_go(
    make: Make, work: InlineWorker, store: Store
) -> None:
    """The key would be stuck behind a task that has failed."""
    sync = make()
    call = sync.delay("a")
    (message,) = work.take()
    request = work.request(message)
    _begin(sync, request)
    report(request, WorkerLostError("gone"))
    assert call.state == "FAILURE"
    assert keys_left(store) == set()


def test_the_hard_limit_lets_go_when_the_process_is_gone(
    make: Make, work: InlineWorker, store: Store, clock: MovableClock
) -> None:
    """A key would be stuck for an hour, or be given away while the old process still dies."""
    sync = make()
    call = sync.delay("a")
    request = work.request(work.take()[0])
    _begin(sync, request)
    report(request, TimeLimitExceeded(1))
    request.on_timeout(soft=False, timeout=1)
    assert call.state == "FAILURE"
    assert 0 < left(store) <= 1
    clock.advance(1.1)
    assert keys_left(store) == set()


@pytest.mark.parametrize("on_conflict", ["use_existing", "skip", "raise"])
def test_a_call_does_not_join_one_that_has_ended(
    make: Make,
    work: InlineWorker,
    runs: Runs,
    clock: MovableClock,
    patterns_events: CapturedEvents,
    monkeypatch: pytest.MonkeyPatch,
    on_conflict: str,
) -> None:
    """While a killed process dies, a new call would get the failure of the old one, and never run."""
    for module in (request_module, delivery_module):
        monkeypatch.setattr(module, "KILL_GRACE", 50.0)  # however slow this machine is
    sync = make(on_conflict=on_conflict)
    call = sync.delay("a")
    request = work.request(work.take()[0])
    work.waiting.clear()
    _begin(sync, request)
    report(request, TimeLimitExceeded(1))
    request.on_timeout(soft=False, timeout=1)
    by_name = work.app.send_task("shop.sync", ("a", 2))  # without the library
    _deliver(work, by_name.id)
    new = sync.delay("a", 3)
    assert new.id != call.id
    _deliver(work, new.id)
    assert (runs, by_name.state, new.state) == ([], "RETRY", "RETRY"), "the old process may live still"
    if on_conflict == "use_existing":
        assert sync.delay("a", 4).id in {new.id, by_name.id}
    work.run()
    assert new.get() in {"a3", "a2"}
    assert not patterns_events.of("lapsed", sync)


def test_a_terminated_task_lets_go_when_its_process_is_gone(
    make: Make, work: InlineWorker, store: Store
) -> None:
    """A task that was revoked while it ran would keep its key, or give it away while it dies."""
    sync = make()
    call = sync.delay("a")
    request = work.request(work.take()[0])
    _begin(sync, request)
    request._announce_revoked("terminated", True, "15", False)
    assert call.state == "REVOKED"
    assert 0 < left(store) <= 1
    report(request, Terminated(15))
    assert keys_left(store) == set()


def _deliver(work: InlineWorker, task_id: str) -> None:
    """Deliver the message of one task, whichever is due first."""
    (message,) = (one for one in work.take() if one.headers["id"] == task_id)
    work.waiting = [pair for pair in work.waiting if pair[1] is not message]
    work.deliver(message)


def _begin(task: Any, request: Any) -> None:
    """Have a delivery take its lock in a process that then says nothing any more."""
    task.__trace__ = None
    singleton: Singleton = task.singleton
    call = task.__patterns__.rebuilt(request._context)
    lock, _ = singleton._lock(call)
    lock.begin(call.owner)


def test_a_lapsed_lease_is_taken_over_with_a_higher_fence(
    make: Make, work: InlineWorker, runs: Runs, clock: MovableClock, patterns_events: CapturedEvents
) -> None:
    """A key whose worker is gone would be blocked for ever."""
    fences = []

    def body(task: Any, doc: str, version: int) -> None:
        fences.append(task.request.fence)

    sync = make(body, lease=10)
    first = sync.delay("a")
    request = work.request(work.take()[0])
    work.waiting.clear()
    _begin(sync, request)
    clock.advance(11)
    second = sync.delay("a")
    work.run()
    assert second.id != first.id
    assert len(fences) == 1
    (told,) = patterns_events.of("lapsed", sync)
    assert (told.task_id, told.detail["holder"]) == (second.id, first.id)


def test_a_waiter_that_takes_a_lapsed_lock_over_says_so(
    make: Make, work: InlineWorker, clock: MovableClock, patterns_events: CapturedEvents
) -> None:
    """That a worker has vanished would go unnoticed where somebody waits for its key."""
    sync = make(on_conflict="defer", lease=10)
    first = sync.delay("a")
    _begin(sync, work.request(work.take()[0]))
    work.waiting.clear()
    waiters = [sync.delay("a", version).id for version in (2, 3)]
    work.run()
    (told,) = patterns_events.of("lapsed", sync)
    assert (told.task_id, told.detail["holder"]) == (waiters[0], first.id)


@pytest.mark.parametrize("by_an_operator", [True, False])
def test_a_holder_whose_successor_is_gone_as_well_says_that_it_was_superseded(
    make: Make,
    work: InlineWorker,
    runs: Runs,
    store: Store,
    clock: MovableClock,
    patterns_events: CapturedEvents,
    by_an_operator: bool,
) -> None:
    """Two bodies may have overlapped, and nobody would know; and its late copy would run once more."""

    def body(task: Any, doc: str, version: int) -> None:
        if version == 1 and by_an_operator:
            store.client.delete('cp:singleton:{shop.sync:"a"}')
        elif version == 1:
            clock.advance(61)
            task.apply_async((doc, 2))
            work.take()
            work.deliver(work.waiting.pop()[1])

    sync = make(body)
    first = sync.delay("a")
    (message,) = work.take()
    work.waiting.clear()
    work.deliver(message)
    assert [event.detail["by"] for event in patterns_events.of("superseded", sync)] == [None]
    ran = len(runs)
    work.deliver(message)
    assert len(runs) == ran
    assert first.state == "SUCCESS"


def test_a_superseded_holder_says_so_and_touches_nothing(
    make: Make,
    work: InlineWorker,
    store: Store,
    owner: Any,
    clock: MovableClock,
    patterns_events: CapturedEvents,
) -> None:
    """A holder that overslept would free its successor's lock."""
    after = []

    def body(task: Any, doc: str, version: int) -> bool:
        if version == 1:
            clock.advance(61)
            task.delay(doc, 2)
            after.append(owner())
            assert not task.request.lease.renew()
        return task.request.lease.lost

    sync = make(body)
    first = sync.delay("a")
    work.take()
    work.deliver(work.waiting.pop(0)[1])
    assert first.get() is True
    assert owner() == after[0]
    assert patterns_events.of("superseded", sync)


# --- scopes ------------------------------------------------------------------------------------------------


def test_until_executing_lets_the_next_be_queued_when_the_body_begins(
    make: Make, work: InlineWorker, runs: Runs, store: Store
) -> None:
    """What happens while the body runs would never be looked at."""
    later = []

    def body(task: Any, doc: str, version: int) -> int:
        if version == 1:
            later.extend([task.delay(doc, 2), task.delay(doc, 3)])
        return version

    sync = make(body, scope="until_executing")
    first = sync.delay("a")
    assert sync.delay("a").id == first.id
    work.run()
    assert later[0].id == later[1].id != first.id
    assert runs == [("a", 1), ("a", 2)]
    assert keys_left(store) == set()


def test_until_executing_a_retry_is_no_new_call(make: Make, work: InlineWorker, runs: Runs) -> None:
    """A retry would be dropped in favour of a call that is queued meanwhile."""

    def body(task: Any, doc: str, version: int) -> int:
        if version == 1 and task.request.retries == 0:
            task.apply_async((doc, 2), countdown=60)
            raise task.retry(countdown=1)
        return version

    first = make(body, scope="until_executing", on_conflict="skip").delay("a")
    work.run()
    assert first.get() == 1
    assert runs == [("a", 1), ("a", 1), ("a", 2)]


def test_until_executing_waits_for_other_policies(
    make: Make, work: InlineWorker, runs: Runs, store: Store, owner: Any
) -> None:
    """A call that waits for a place has not begun: its key would be free too early."""
    sync = make(scope="until_executing")
    install(sync, ConcurrencyLimit(1, name="link"))
    _take_the_place(store, "cp:concurrency_limit:{link}")
    call = sync.delay("a")
    work.take()
    work.deliver(work.waiting.pop(0)[1])
    assert owner() == f"{call.id}/"
    work.run(most=100)
    assert runs == [("a", 1)]


def test_while_executing_calls_may_be_queued(
    make: Make, work: InlineWorker, runs: Runs, store: Store
) -> None:
    """Calls would be dropped that were to run one after the other."""
    sync = make(scope="while_executing")
    calls = [sync.delay("a", version) for version in (1, 2)]
    assert keys_left(store) == set()
    work.run()
    assert [call.get() for call in calls] == ["a1", "a2"]


# --- the store ---------------------------------------------------------------------------------------------


def test_a_lock_of_a_newer_version_is_refused(make: Make, work: InlineWorker, store: Store) -> None:
    """Old code would misread what new code has written."""
    store.client.hset(LOCK, mapping={"of": "2 x", "owner": "x/", "until": "1"})
    sync = make()
    with pytest.raises(StoreVersionError, match="newer version"):
        sync.delay("a")


def test_a_call_in_eager_mode_is_guarded(make: Make, runs: Runs, store: Store, clock: MovableClock) -> None:
    """A test of a user's own would not see what the pattern does."""

    def body(task: Any, doc: str, version: int) -> int:
        if task.request.retries == 0:
            raise task.retry(countdown=5)
        return task.request.retries

    sync = make(body)
    assert sync.apply(("a",)).get() == 1
    assert len(runs) == 2
    assert keys_left(store) == set()


def test_always_eager_calls_are_guarded(make: Make, work: InlineWorker, runs: Runs, store: Store) -> None:
    """The same, for apps that run everything in place."""
    work.app.conf.task_always_eager = True
    sync = make()
    assert [sync.delay("a").get(), sync.delay("a").get()] == ["a1", "a1"]
    assert keys_left(store) == set()
