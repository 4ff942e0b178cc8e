"""What policies ask the store when a call comes to them: in one round trip, and as if each asked alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any, ClassVar

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from redis.exceptions import ClusterCrossSlotError, ResponseError

from celery_patterns import (
    ConcurrencyLimit,
    DeadLetter,
    Idempotency,
    Policy,
    PolicyTask,
    RetryPolicy,
    Singleton,
    TokenBucket,
)
from celery_patterns.core import policy, script
from celery_patterns.core.entering import enter
from celery_patterns.core.policy import Call, Run
from celery_patterns.core.script import Ask, Script
from celery_patterns.core.store import Store, store_of
from celery_patterns.errors import StoreVersionError
from celery_patterns.policies.rate_limits import start
from celery_patterns.testing import CapturedEvents, MovableClock, memory_store
from tests.ground.inline import InlineWorker, inline_app
from tests.ground.proxy import Proxy
from tests.ground.servers import ValkeyServer

lapse = Script("lease_lapse")
POLICIES: dict[str, Policy] = {
    "dead_letter": DeadLetter(),
    "idempotency": Idempotency(key="order"),
    "singleton": Singleton(key="order", scope="while_executing", on_conflict="defer"),
    "limit": ConcurrencyLimit(3),
    "rate": TokenBucket("1/s", burst=2),
}


@pytest.fixture(params=["together", "one by one"])
def manner(request: pytest.FixtureRequest) -> str:
    """How the store is asked; what comes of it is the same."""
    return str(request.param)


@pytest.fixture
def store(valkey: ValkeyServer) -> Iterator[Store]:
    with memory_store(valkey.url()) as store:
        yield store


@pytest.fixture
def app(store: Store) -> Celery:
    return inline_app(task_acks_late=True, patterns_waiting_room=False)


@pytest.fixture
def clock(store: Store) -> Iterator[MovableClock]:
    clock = MovableClock(store)
    with clock.waits_in_place():
        yield clock


@pytest.fixture
def worker(app: Celery, clock: MovableClock) -> InlineWorker:
    return InlineWorker(app, clock)


def guarded(app: Celery, runs: list[Any], look: Callable[[], Any] | None = None, **policies: Policy) -> Any:
    """A task that writes down what it runs with, or what it sees."""

    def body(order: Any) -> Any:
        runs.append(order if look is None else look())
        return order

    return app.task(base=PolicyTask, name="guarded", **{**POLICIES, **policies})(body)


def reads(store: Store) -> int:
    return int(store.client.info("stats")["total_reads_processed"])


def deliver_all(worker: InlineWorker, before: Callable[[], int] = lambda: 0) -> int:
    """Run once what is in the queue now; what ``before`` says just before that."""
    worker.take()
    there, worker.waiting = worker.waiting, []
    looked = before()
    for _, message in there:
        worker.deliver(message)
    return looked


def left(store: Store) -> list[str]:
    """What is held, or counted as living."""
    keys = sorted(key.decode() for key in store.client.keys("cp:*"))
    return [key for key in keys if "deliveries" in key or ":held" in key or key == lock_of(key)]


def lock_of(key: str) -> str | None:
    return key if key.startswith("cp:singleton:") and ":ended:" not in key and ":line" not in key else None


def test_five_policies_are_entered_in_one_round_trip(app: Celery, store: Store, worker: InlineWorker) -> None:
    """Each policy would add a round trip of its own before the body of each task."""
    seen: list[int] = []
    task = guarded(app, seen, lambda: reads(store), rate=TokenBucket("100/s", burst=100))
    for order in range(3):
        task.delay(order)
        before = deliver_all(worker, lambda: reads(store))
    assert seen[-1] - before == 3  # the others are the sign of life, and the look itself


def test_who_refuses_keeps_those_behind_from_being_asked(
    app: Celery, store: Store, worker: InlineWorker, manner: str
) -> None:
    """A duplicate would take a lock, a place and a token for a body that it does not run."""
    store.is_split = manner == "one by one"
    runs: list[str] = []
    task = guarded(app, runs)
    results = [task.delay("A"), task.delay("A"), task.delay("B")]
    assert worker.run() == 3  # with two tokens, none of which the duplicate took
    assert runs == ["A", "B"]
    assert [result.get() for result in results] == ["A", "A", "B"]
    assert left(store) == []
    assert store.is_split is (manner == "one by one")


def test_who_is_put_off_further_in_gives_back_what_is_further_out(
    app: Celery, store: Store, worker: InlineWorker, clock: MovableClock, manner: str
) -> None:
    """A call that waits for its token would hold its key, its lock and its place meanwhile."""
    store.is_split = manner == "one by one"
    runs: list[int] = []
    task = guarded(app, runs)
    for order in range(4):
        task.delay(order)
    deliver_all(worker)
    assert len(runs) == 2
    assert left(store) == []
    worker.run()
    assert sorted(runs) == [0, 1, 2, 3]


@dataclass(frozen=True)
class Border(Policy):
    """Ends calls before those behind it are reached."""

    kind: ClassVar[str] = "border"
    order: ClassVar[int] = 50

    def run(self, call: Call, proceed: Run) -> Any:
        return "ended" if call.args[0] == "A" else proceed(call)


def test_nothing_is_asked_behind_a_policy_that_may_end_the_call(
    app: Celery, store: Store, worker: InlineWorker
) -> None:
    """Locks would be taken, and tokens spent, for calls that a policy of somebody's own answers."""
    task = guarded(app, [], border=Border(), rate=TokenBucket("1/s"))
    ended, runs = task.delay("A"), task.delay("B")
    worker.run()
    assert (ended.get(), runs.get()) == ("ended", "B")
    assert left(store) == []
    spent = store.client.keys("cp:limit:*")
    assert len(spent) == 1


def test_a_name_for_an_operation_that_was_not_asked_is_free_again(
    app: Celery, store: Store, worker: InlineWorker
) -> None:
    """Each duplicate would cost the store a key for some seconds."""
    task = guarded(app, [], rate=TokenBucket("100/s", burst=100))
    for order in range(3):
        task.delay(order)
        task.delay(order)
        worker.run()
    assert len(store.client.keys("cp:limit-op:*")) == 1


@dataclass(frozen=True)
class Unsure(Policy):
    """Cannot say what it will ask."""

    kind: ClassVar[str] = "unsure"
    order: ClassVar[int] = 50

    def entering(self, call: Call) -> Any:
        raise KeyError(call.args)


def test_a_policy_that_cannot_say_what_it_will_ask_harms_no_other(
    app: Celery, store: Store, worker: InlineWorker
) -> None:
    """A key that cannot be made any more would fail duplicates, which need none of it."""
    task = guarded(app, [], unsure=Unsure())
    results = [task.delay("A"), task.delay("A")]
    worker.run()
    assert [result.get() for result in results] == ["A", "A"]


def test_a_script_that_fails_fails_its_own_policy(app: Celery, store: Store, worker: InlineWorker) -> None:
    """What one policy's keys have come to would fail the policy that asked for it."""
    task = guarded(app, [])
    store.client.set("cp:limit:{cp}:guarded:", "no bucket")
    result = task.delay("A")
    worker.run()
    with pytest.raises(StoreVersionError):
        result.get()
    assert store.client.keys("cp:idempotency:*") == []
    store.client.delete("cp:limit:{cp}:guarded:")
    (places,) = store.client.keys("cp:concurrency_limit:*}")
    store.client.delete(places)
    store.client.rpush(places, "no places")
    result = task.delay("B")
    worker.run()
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        result.get()
    assert left(store) == []


def test_the_first_script_that_fails_is_heard(app: Celery, store: Store, worker: InlineWorker) -> None:
    """Its error would be taken for an answer."""
    task = guarded(app, [])
    task.delay("A")
    worker.run()
    (record,) = store.client.keys("cp:idempotency:*")
    store.client.delete(record)
    store.client.set(record, "no hash")
    result = task.delay("A")
    worker.run()
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        result.get()


def test_a_policy_that_is_not_reached_lets_go_of_what_it_was_given(
    app: Celery, store: Store, worker: InlineWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time limit that strikes between two policies would leave a lock for as long as its lease."""
    enter = policy._enter

    def struck(policy: Policy, call: Call, proceed: Run) -> Any:
        if policy.kind == "singleton":
            raise SoftTimeLimitExceeded
        return enter(policy, call, proceed)

    monkeypatch.setattr(policy, "_enter", struck)
    task = guarded(app, [])
    task.delay("A")
    worker.run()
    assert left(store) == []


def test_a_sign_of_life_is_taken_back_though_the_body_did_not_begin(
    app: Celery, store: Store, worker: InlineWorker, clock: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that stands still now and then would count as one that its task has killed."""
    runs: list[str] = []
    stood_still = iter([2.0, 2.0])
    task = guarded(app, runs, rate=TokenBucket("1/s"))
    monkeypatch.setattr(start, "monotonic", lambda: monotonic() + next(stood_still, 0.0))
    task.delay("A")
    deliver_all(worker)
    assert runs == []  # the token was too old, and there was no other
    assert left(store) == []
    worker.run()
    assert runs == ["A"]


def test_a_grant_that_came_late_is_no_death(
    app: Celery, store: Store, worker: InlineWorker, monkeypatch: Any
) -> None:
    """A process that stood still for a moment would count as one that the task has killed."""
    runs: list[str] = []
    stood_still = iter([2.0, 2.0])
    task = guarded(
        app, runs, dead_letter=DeadLetter(max_deliveries=1), rate=TokenBucket("100/s", burst=100), last=Last()
    )
    monkeypatch.setattr(start, "monotonic", lambda: monotonic() + next(stood_still, 0.0))
    task.delay("A")
    worker.run()
    assert runs == ["A"]
    assert left(store) == []
    assert Last.asked == 1


@dataclass(frozen=True)
class Last(Policy):
    """Asks when it is entered, and counts how often."""

    kind: ClassVar[str] = "last"
    order: ClassVar[int] = 80
    asked: ClassVar[int] = 0

    def entering(self, call: Call) -> Any:
        Last.asked += 1
        store = store_of(call.app)
        return Ask(lapse, store, (store.key("last"),), ("nobody", 0), bytes)

    def run(self, call: Call, proceed: Run) -> Any:
        assert enter(call, self.kind, lambda: self.entering(call)) == b"lost"
        return proceed(call)


@dataclass(frozen=True)
class NotForSome(TokenBucket):
    """A limit that is not for all."""

    def run(self, call: Call, proceed: Run) -> Any:
        return proceed(call) if call.args[0] == "A" else super().run(call, proceed)


def test_what_a_subclass_decides_by_itself_is_not_asked_ahead(
    app: Celery, store: Store, worker: InlineWorker
) -> None:
    """A token would be spent on a call that needs none."""
    runs: list[str] = []
    task = guarded(app, runs, rate=NotForSome("1/h"))
    task.delay("A")
    task.delay("B")
    assert worker.run() == 2
    assert runs == ["A", "B"]
    assert left(store) == []


@dataclass(frozen=True)
class Known(ConcurrencyLimit):
    """A limit with something around it, that is asked as any other."""

    def run(self, call: Call, proceed: Run) -> Any:
        return super().run(call, proceed)

    def entering(self, call: Call) -> Any:
        return super().entering(call)


def test_a_subclass_may_say_that_it_asks_the_same(app: Celery, store: Store, worker: InlineWorker) -> None:
    """Whoever adds a line to a policy of ours would pay a round trip for it."""
    seen: list[int] = []
    task = guarded(app, seen, lambda: reads(store), limit=Known(3), rate=TokenBucket("100/s", burst=100))
    for order in range(3):
        task.delay(order)
        before = deliver_all(worker, lambda: reads(store))
    assert seen[-1] - before == 3


def test_a_policy_that_is_struck_before_it_asks_lets_go_of_what_it_was_given(
    app: Celery, store: Store, worker: InlineWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry would wait for its own place, for as long as that one's lease."""
    runs: list[str] = []
    strikes = iter([SoftTimeLimitExceeded])
    run = ConcurrencyLimit.run

    def struck(limit: ConcurrencyLimit, call: Call, proceed: Run) -> Any:
        for strike in strikes:
            raise strike
        return run(limit, call, proceed)

    monkeypatch.setattr(ConcurrencyLimit, "run", struck)
    task = guarded(app, runs, retry_policy=RetryPolicy(on=Exception), limit=ConcurrencyLimit(1))
    task.delay("A")
    assert worker.run() == 2
    assert runs == ["A"]


def test_a_time_limit_that_strikes_while_it_is_asked_ahead_is_heard(
    app: Celery, store: Store, worker: InlineWorker
) -> None:
    """The body would begin, and nothing would stop it any more."""
    runs: list[str] = []
    strikes = iter([SoftTimeLimitExceeded])

    def key(order: str) -> str:
        if task.request.id:
            for strike in strikes:
                raise strike
        return order

    task = guarded(app, runs, rate=TokenBucket("100/s", burst=100, key=key))
    result = task.delay("A")
    worker.run()
    assert runs == []
    assert result.state == "FAILURE"


def test_a_store_that_spreads_its_keys_is_asked_one_by_one(
    app: Celery, store: Store, worker: InlineWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers that look like one, and are many, would refuse every task."""
    real, refused = script.exchange, []

    def exchange(client: Any, commands: Any) -> list[Any]:
        keys = commands[0][3 : 3 + commands[0][2]] if commands[0][0] == "EVALSHA" else ()
        if len({key[key.index("{") : key.index("}")] for key in keys}) > 1:
            refused.append(keys)
            return [ClusterCrossSlotError("Keys in request don't hash to the same slot")]
        return real(client, commands)

    monkeypatch.setattr(script, "exchange", exchange)
    task = guarded(app, [])
    results = [task.delay(order) for order in range(2)]
    worker.run()
    assert [result.get() for result in results] == [0, 1]
    assert len(refused) == 1
    assert left(store) == []


def test_an_answer_that_is_lost_takes_nothing_twice(proxy: Proxy, valkey: ValkeyServer) -> None:
    """A connection that breaks after the script has run would cost two tokens, or two places."""
    with memory_store(proxy.through(valkey.url())) as store:
        app = inline_app(task_acks_late=True, patterns_waiting_room=False)
        clock = MovableClock(store)
        with clock.waits_in_place():
            worker = InlineWorker(app, clock)
            runs: list[int] = []
            task = guarded(app, runs)
            task.delay(0)
            worker.run()
            task.delay(1)
            proxy.lose_reply(to=b"EVALSHA")
            worker.run()
            assert proxy.lost == 1
            assert runs == [0, 1]
            assert left(store) == []


def test_a_task_that_is_throttled_again_and_again_is_no_poison(
    app: Celery, store: Store, worker: InlineWorker, patterns_events: CapturedEvents
) -> None:
    """It would be taken for one that kills its process, though its body has never begun."""
    runs: list[int] = []
    task = guarded(app, runs, dead_letter=DeadLetter(max_deliveries=1))
    for order in range(4):
        task.delay(order)
    worker.run()
    assert sorted(runs) == list(range(4))
    assert not patterns_events.of("buried", task)
