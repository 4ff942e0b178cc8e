"""What policies tell the store when a run is over: in one round trip, in order, and all of it."""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery

from celery_patterns import ConcurrencyLimit, DeadLetter, Idempotency, PolicyTask, Singleton
from celery_patterns.core.script import Ask, Script, ask_together
from celery_patterns.core.store import Store
from celery_patterns.errors import StoreUnavailable
from celery_patterns.policies.idempotency.operate import forget
from celery_patterns.policies.idempotency.record import Record, record_key
from celery_patterns.testing import CapturedEvents, MovableClock, memory_store
from tests.ground.inline import InlineWorker, inline_app
from tests.ground.proxy import Proxy
from tests.ground.servers import ValkeyServer

ENDS = ["cp:idempotency:", "cp:deliveries:", "cp:concurrency_limit:", "cp:singleton:"]
lapse = Script("lease_lapse")


@pytest.fixture
def store(valkey: ValkeyServer) -> Iterator[Store]:
    with memory_store(valkey.url()) as store:
        yield store


@pytest.fixture
def app(store: Store) -> Celery:
    return inline_app(task_acks_late=True)


@pytest.fixture
def worker(app: Celery, store: Store) -> Iterator[InlineWorker]:
    clock = MovableClock(store)
    with clock.waits_in_place():
        yield InlineWorker(app, clock)


def guarded(app: Celery, body: Callable[..., Any]) -> Any:
    policies = {
        "dead_letter": DeadLetter(),
        "idempotency": Idempotency(key="order"),
        "singleton": Singleton(key="order"),
        "limit": ConcurrencyLimit(3),
    }
    return app.task(base=PolicyTask, name="guarded", **policies)(body)


def ends(store: Store, do: Callable[[], object]) -> list[str]:
    """Which keys the scripts wrote to that ran meanwhile after the mark, in order."""
    found = []
    with store.client.monitor() as monitor:
        do()
        store.client.echo("over")
        while (seen := monitor.next_command())["command"] != "ECHO over":
            words = seen["command"].split(" ")
            if words[0] == "ECHO":
                found.clear()
            elif words[0] in {"EVALSHA", "EVAL"} and seen["client_type"] != "lua":
                found.append(next(word for word in words if word.startswith("cp:")))
    return list(dict.fromkeys(found))  # a script that is not known is sent twice


def starts_of(keys: list[str]) -> list[str]:
    return [next(start for start in ENDS if key.startswith(start)) for key in keys]


def test_a_run_that_is_over_tells_the_store_in_one_round_trip(
    app: Celery, store: Store, worker: InlineWorker
) -> None:
    """Each policy would add a round trip of its own to the end of each task."""
    reads: list[int] = []

    def look() -> None:
        reads.append(int(store.client.info("stats")["total_reads_processed"]))

    def body(order: int) -> None:
        look()

    task = guarded(app, body)
    for order in range(3):
        task.delay(order)
        worker.run()
        look()
    assert reads[-1] - reads[-2] == 2  # one is the look itself


def test_an_id_that_a_policy_has_made_is_known_to_be_new(app: Celery, store: Store) -> None:
    """Each publication would ask whether a task of its id has ended before, which none can have."""

    def body(order: int) -> None:
        pass

    task = guarded(app, body)
    task.delay(0)

    def reads() -> int:
        return int(store.client.info("stats")["total_reads_processed"])

    before = reads()
    task.delay(1)
    assert reads() - before == 2  # the singleton's lock, and the look itself


def test_the_result_is_recorded_before_the_lock_is_given_up(
    app: Celery, store: Store, worker: InlineWorker
) -> None:
    """Whoever gets the lock next would run beside a call of which nobody knows that it has ended."""

    def body(order: int) -> None:
        store.client.echo("begins")

    task = guarded(app, body)
    for order in range(3):  # one by one at first, since nobody knows the scripts; then together
        task.delay(order)
        assert starts_of(ends(store, worker.run)) == ENDS
    store.client.script_flush()
    task.delay(3)
    assert starts_of(ends(store, worker.run)) == ENDS


def test_what_the_server_forgot_while_the_body_ran_is_told_all_the_same(
    app: Celery, store: Store, worker: InlineWorker
) -> None:
    """A restart of the store at the wrong moment would leave locks, and results that nobody recorded."""
    runs: list[int] = []

    def body(order: int) -> None:
        runs.append(order)
        store.client.script_flush()

    task = guarded(app, body)
    for order in (1, 2, 3, 3):
        task.delay(order)
        worker.run()
    assert runs == [1, 2, 3]
    assert not [key for key in store.client.keys("cp:*") if b"deliveries" in key or b":held" in key]
    assert not [key for key in store.client.keys("cp:singleton:*") if b":ended:" not in key]


def test_a_run_that_was_superseded_has_not_ended_for_its_lock(
    app: Celery, store: Store, patterns_events: CapturedEvents
) -> None:
    """The task would be taken for a copy of itself if its successor fails and it has to run after all."""
    clock = MovableClock(store)
    runs: list[str] = []

    def body(order: str) -> str:
        runs.append(order)
        if len(runs) == 1:  # an operator forgets the key while it runs, and another call takes it
            forget(app, f'guarded:"{order}"')
            theirs.begin(lease=60, ttl=1_000, on_lapsed="rerun", claim=60)
        return "mine"

    task = guarded(app, body)
    maker = task.__patterns__.keys("order")
    theirs = Record(
        store=store,
        key=record_key(store, "guarded", '"A"'),
        owner="other/nonce",
        fingerprint=maker.fingerprint(maker.bind(("A",), {}), serialised=True),
        attempt=0,
    )
    advance = clock.advance

    def advance_and_look(by: float) -> None:
        advance(by)
        markers = [key for key in store.client.keys("cp:*") if b":ended:" in key]
        seen.append(markers)
        theirs.complete(int(store.client.hget(theirs.key, "fence")), b'application/json utf-8\n"theirs"', 60)

    seen: list[list[bytes]] = []
    clock.advance = advance_and_look  # type: ignore[method-assign]
    with clock.waits_in_place():
        assert task.apply(("A",)).get() == "theirs"
    assert runs == ["A"]
    assert seen[0] == []
    assert [event.detail["by"] for event in patterns_events.of("superseded", task)] == ["other"]


def test_a_run_leaves_nothing_to_the_garbage_collector(
    app: Celery, store: Store, worker: InlineWorker
) -> None:
    """Each task would make the worker look through its whole memory a little sooner."""

    def body(order: int) -> None:
        pass

    task = guarded(app, body)
    for order in range(30):
        task.delay(order)
    requests = [worker.request(message) for message in worker.take()]

    def left_by(requests: list[Any]) -> int:
        gc.collect()
        for request in requests:
            request.execute()
            task.__trace__ = None
        return gc.collect()

    gc.disable()
    try:
        left_by(requests[:3])
        # The servers that other tests left running may leave something of their own meanwhile.
        assert min(left_by(requests[first : first + 9]) for first in (3, 12, 21)) < 9
    finally:
        gc.enable()


def test_scripts_are_asked_together_on_every_kind_of_store(every_store_url: str) -> None:
    """A cluster, which has no pipelines of scripts, would end no task."""
    store = Store(every_store_url)
    asks = [
        Ask(lapse, store, (f"cp:{{{name}}}",), ("owner", 0), lambda answer, name=name: (name, answer))
        for name in "abc"
    ]
    for _ in range(3):
        assert ask_together(asks) == [("a", b"lost"), ("b", b"lost"), ("c", b"lost")]
    store.close()


def test_one_script_that_fails_keeps_no_other_from_being_heard(valkey: ValkeyServer) -> None:
    """An end that the store refuses would take the ends of other policies with it."""
    store = Store(valkey.url())
    store.client.set("cp:{b}", "no hash")
    asks = [Ask(lapse, store, (f"cp:{{{name}}}",), ("owner", 0), bytes) for name in "abc"]
    for _ in range(2):
        answers = ask_together(asks)
        assert answers[0] == answers[2] == b"lost"
        assert "WRONGTYPE" in str(answers[1])
    store.close()


def test_a_store_that_is_away_answers_none_of_them(proxy: Proxy, redis_url: str) -> None:
    """What could not be told would be taken for told."""
    store = Store(proxy.through(redis_url))
    asks = [Ask(lapse, store, (f"cp:{{{name}}}",), ("owner", 0), bytes) for name in "ab"]
    assert ask_together(asks) == [b"lost", b"lost"]
    proxy.refuse()
    assert [type(answer) for answer in ask_together(asks)] == [StoreUnavailable] * 2
    store.close()
