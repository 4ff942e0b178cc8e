"""What becomes of a second call while the first is there: each choice, bare and in a canvas."""

from typing import Any

import pytest
from celery import chain, chord, group
from redis.exceptions import ConnectionError as RedisConnectionError

from celery_patterns import Idempotency
from celery_patterns.core.store import Store
from celery_patterns.errors import SingletonConflict
from celery_patterns.policies.idempotency.record import Record, record_key
from celery_patterns.testing import CapturedEvents, MovableClock
from tests.ground.inline import InlineWorker, revoked
from tests.policies.singleton.conftest import Make

Runs = list[Any]


def meanwhile(work: InlineWorker) -> Any:
    """A body during whose first run all that waits is delivered."""

    def body(task: Any, doc: str, version: int) -> int:
        if version == 1:
            for _, message in [*work.waiting]:
                work.deliver(message)
            work.waiting.clear()
        return version

    return body


def test_a_duplicate_is_the_first_call(
    make: Make, work: InlineWorker, runs: Runs, patterns_events: CapturedEvents
) -> None:
    """A report asked for three times would be made three times, or the callers would get no result."""
    sync = make()
    first = sync.delay("a")
    again = [sync.delay("a"), sync.apply_async(("a",), {"version": 2}, countdown=5)]
    other = sync.delay("b")
    assert [one.id for one in again] == [first.id, first.id]
    assert len(work.take()) == 2
    work.run()
    assert [one.get() for one in [first, *again, other]] == ["a1", "a1", "a1", "b1"]
    assert runs == [("a", 1), ("b", 1)]
    assert [event.detail["holder"] for event in patterns_events.of("joined", sync)] == [first.id] * 2
    assert sync.delay("a").id != first.id


@pytest.mark.parametrize("on_conflict", ["use_existing", "skip"])
def test_a_duplicate_in_a_canvas_completes_its_place(
    make: Make, work: InlineWorker, runs: Runs, on_conflict: str
) -> None:
    """A chain, chord or link behind a duplicate would hang, or the work would be done again."""
    sync = make(on_conflict=on_conflict)

    @work.app.task(name="shop.join", shared=False)
    def join(values: Any, *more: Any) -> Any:
        return values

    first = sync.delay("a")
    chained = chain(sync.s("a", 2), join.s()).delay()
    linked = sync.apply_async(("a", 3), link=join.s())
    grouped = group(sync.s("a", 4), sync.s("b"))()
    body = chord([sync.s("a", 5), sync.s("a", 6)])(join.s())
    work.run()
    assert {chained.get(), linked.get(), first.get()} == {"a1"}
    assert grouped.get() == ["a1", "b1"]
    assert body.get() == ["a1", "a1"]
    assert runs == [("a", 1), ("b", 1)]


def test_a_chain_of_one_key_runs_each_step(make: Make, work: InlineWorker, runs: Runs) -> None:
    """A task would be taken for a duplicate of the step before, whose lock is still there."""
    sync = make()
    result = chain(sync.si("a", 1), sync.si("a", 2), sync.si("a", 3)).delay()
    work.run()
    assert result.get() == "a3"
    assert runs == [("a", 1), ("a", 2), ("a", 3)]


def test_a_skipped_call_ends_with_none(
    make: Make, work: InlineWorker, runs: Runs, patterns_events: CapturedEvents
) -> None:
    """A call that came while the first was there would run after it, though it was to be skipped."""
    sync = make(on_conflict="skip")
    first, second = sync.delay("a"), sync.delay("a")
    work.run()
    assert (first.get(), second.get(), second.state) == ("a1", None, "SUCCESS")
    assert runs == [("a", 1)]
    assert [event.detail for event in patterns_events.of("skipped", sync)] == [{"holder": first.id}]


def test_a_refused_call_raises_where_it_is_made(
    make: Make, work: InlineWorker, patterns_events: CapturedEvents
) -> None:
    """The caller would not learn that the call is superfluous, or not from whom."""
    sync = make(on_conflict="raise")
    first = sync.delay("a")
    with pytest.raises(SingletonConflict, match=f'shop.sync:"a" is held by {first.id}') as refused:
        sync.delay("a")
    assert 3500 < refused.value.retry_after <= 3600
    assert patterns_events.of("refused", sync)
    work.run()
    sync.delay("a")


def test_a_refused_call_in_a_canvas_fails_at_its_start(make: Make, work: InlineWorker) -> None:
    """Publishing half of a group would leave the other half behind."""
    sync = make(on_conflict="raise", queued_ttl=30)
    results = group(sync.s("a"), sync.s("a"))()
    _, second = work.take()
    work.deliver(second)
    with pytest.raises(SingletonConflict):
        results[1].get()
    work.run()
    assert results[0].get() == "a1"


def test_a_deferred_call_runs_afterwards(
    make: Make, work: InlineWorker, runs: Runs, clock: MovableClock
) -> None:
    """A call that must not be dropped would be, or would run beside the first."""
    waiting = []

    def body(task: Any, doc: str, version: int) -> int:
        if version == 1:
            work.take()
            waiting.append(work.waiting.pop(0)[1])
            work.deliver(waiting[0])  # the second call is delivered while the first one runs
            assert runs == [("a", 1)]
        return version

    sync = make(body, on_conflict="defer")
    first, second = sync.delay("a"), sync.delay("a", 2)
    assert first.id != second.id
    work.run()
    assert (first.get(), second.get()) == (1, 2)
    assert runs == [("a", 1), ("a", 2)]


def test_the_longest_waiter_has_the_next_turn(
    make: Make, work: InlineWorker, runs: Runs, store: Store
) -> None:
    """Under load old calls would wait for ever while new ones are let in."""
    sync = make(meanwhile(work), on_conflict="defer")
    for version in (1, 2, 3, 4):
        sync.delay("a", version)
    work.take()
    work.run()
    assert runs[:2] == [("a", 1), ("a", 2)]
    assert sorted(runs) == [("a", version) for version in (1, 2, 3, 4)]


def test_who_was_answered_elsewhere_lets_the_next_one_go(
    make: Make, work: InlineWorker, runs: Runs, store: Store
) -> None:
    """Its turn would come, and be kept for a minute for a call that has ended."""
    once = Idempotency(key="version", ttl=600)
    sync = make(meanwhile(work), on_conflict="defer", scope="while_executing", idempotency=once)
    calls = [sync.delay("a", version) for version in (1, 2, 2, 3)]
    work.take()
    work.deliver(work.waiting.pop(0)[1])
    messages = {message.headers["id"]: message for message in work.take()}
    for call in calls[1:3]:
        work.deliver(messages[call.id])
    assert [call.get() for call in calls[:3]] == [1, 2, 2]
    (lock,) = (key for key in store.client.keys("cp:singleton:*") if store.client.type(key) == b"hash")
    assert store.client.hget(lock, "owner") == f"{calls[3].id}/".encode()


def test_who_was_put_off_elsewhere_leaves_the_line(make: Make, work: InlineWorker, store: Store) -> None:
    """Its turn would come while it waits for something else, and nobody could use the key."""
    lines = []

    def body(task: Any, doc: str, version: int) -> int:
        if version == 1:
            work.deliver(work.waiting.pop(0)[1])
            lines.append(len(store.client.keys("*:line")))
            maker = task.__patterns__.keys("version")
            Record(
                store=store,
                key=record_key(store, task.name, "2"),
                owner="other/delivery",
                fingerprint=maker.fingerprint(maker.bind((doc, 2), {}), serialised=True),
                attempt=0,
            ).begin(lease=60.0, ttl=600.0, on_lapsed="rerun", claim=60.0)
            work.take()
            work.deliver(work.waiting.pop(0)[1])
            lines.append(len(store.client.keys("*:line")))
        return version

    once = Idempotency(key="version", ttl=600)
    sync = make(body, on_conflict="defer", scope="while_executing", idempotency=once)
    sync.delay("a", 1)
    sync.delay("a", 2)
    work.take()
    work.deliver(work.waiting.pop(0)[1])
    assert lines == [1, 0]


def test_a_store_that_is_away_is_asked_once(
    make: Make, work: InlineWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each policy further in would wait for it as well, in a slot of the worker, only to tidy up."""
    asked = []

    def away(*_: Any) -> Any:
        asked.append(1)
        raise RedisConnectionError("away")

    def body(task: Any, doc: str, version: int) -> int:
        if version == 1:
            work.deliver(work.waiting.pop(0)[1])
        return version

    once = Idempotency(key="version", ttl=600)
    sync = make(body, on_conflict="defer", scope="while_executing", idempotency=once)
    sync.delay("a", 1)
    sync.delay("a", 2)
    work.take()
    work.deliver(work.waiting.pop(0)[1])
    (deferred,) = work.take()
    monkeypatch.setattr("celery_patterns.core.script.exchange", away)
    work.deliver(deferred)
    assert len(asked) == 1


def test_the_newest_replaces_what_has_not_begun(
    make: Make, work: InlineWorker, runs: Runs, patterns_events: CapturedEvents
) -> None:
    """A document saved five times would be synchronised five times, or not with its last version."""
    sync = make(on_conflict="replace")
    calls = [sync.delay("a", version) for version in range(1, 6)]
    work.run()
    assert runs == [("a", 5)]
    assert [call.get() for call in calls] == [None, None, None, None, "a5"]
    assert [event.detail["by"] for event in patterns_events.of("replaced", sync)] == [
        call.id for call in calls[1:]
    ]


def test_the_newest_waits_for_one_that_has_begun(make: Make, work: InlineWorker, runs: Runs) -> None:
    """Two bodies of one key would run at once; or the last version would be dropped."""

    def body(task: Any, doc: str, version: int) -> int:
        if version == 1:
            for later in (2, 3):
                task.delay(doc, later)
            for message in work.take():
                work.deliver(message)
            work.waiting.clear()
            assert runs == [("a", 1)]
        return version

    sync = make(body, on_conflict="replace")
    sync.delay("a")
    work.run()
    assert runs == [("a", 1), ("a", 3)]


def test_the_first_and_the_latest_run(make: Make, work: InlineWorker, runs: Runs) -> None:
    """With keep_latest a call that is there would be pushed back for ever, or the last one dropped."""
    sync = make(on_conflict="keep_latest")
    calls = [sync.delay("a", version) for version in range(1, 6)]
    work.run()
    assert runs == [("a", 1), ("a", 5)]
    assert [call.get() for call in calls] == ["a1", None, None, None, "a5"]


@pytest.mark.parametrize(
    ("on_conflict", "results"),
    [("replace", ["a4", "a4", "a4", "a4"]), ("keep_latest", ["a1", "a4", "a4", "a4"])],
)
def test_those_that_were_replaced_in_a_group_have_the_result_of_the_newest(
    make: Make, work: InlineWorker, runs: Runs, on_conflict: str, results: list[str]
) -> None:
    """They would have that of a version which they were newer than."""
    deliver_meanwhile = []

    def body(task: Any, doc: str, version: int) -> str:
        for message in deliver_meanwhile:
            work.deliver(message)
        deliver_meanwhile.clear()
        return f"{doc}{version}"

    sync = make(body, on_conflict=on_conflict)
    result = group(sync.s("a", version) for version in (1, 2, 3, 4))()
    if on_conflict == "keep_latest":
        work.take()
        deliver_meanwhile += [work.waiting.pop()[1] for _ in range(3)]
    work.run()
    assert result.get() == results
    assert len(runs) == len(set(results))


@pytest.mark.parametrize("on_conflict", ["replace", "keep_latest"])
def test_the_latest_is_the_latest_in_whatever_order_they_start(
    make: Make, work: InlineWorker, runs: Runs, on_conflict: str
) -> None:
    """A call that was overtaken in the queue would put an old version last."""
    sync = make(on_conflict=on_conflict)
    for version in (1, 2, 3):
        sync.delay("a", version)
    messages = work.take()
    work.waiting.clear()
    for message in reversed(messages):
        work.deliver(message)
    work.run()
    assert runs[-1] == ("a", 3)
    assert ("a", 2) not in runs


def test_a_replaced_call_in_a_canvas_gets_the_newer_ones_result(
    make: Make, work: InlineWorker, runs: Runs
) -> None:
    """A chord with a replaced part would never run its body."""
    sync = make(on_conflict="replace")

    @work.app.task(name="shop.join", shared=False)
    def join(values: list[str]) -> list[str]:
        return values

    body = chord([sync.s("a", 1), sync.s("a", 2), sync.s("b")])(join.s())
    last = sync.delay("a", 3)
    work.run()
    assert body.get() == ["a3", "a3", "b1"]
    assert last.get() == "a3"
    assert sorted(runs) == [("a", 3), ("b", 1)]


def test_a_follower_shares_the_failure(make: Make, work: InlineWorker, runs: Runs) -> None:
    """A duplicate in a chain would go on as if the work were done."""

    def body(task: Any, doc: str, version: int) -> None:
        raise ValueError("no such document")

    sync = make(body)
    first, second = sync.delay("a"), sync.apply_async(("a",), task_id="mine")
    work.run()
    for call in (first, second):
        with pytest.raises(ValueError, match="no such document"):
            call.get()
    assert len(runs) == 1


def test_a_follower_of_a_revoked_call_runs_itself(make: Make, work: InlineWorker, runs: Runs) -> None:
    """Revoking one call would lose the work that another one waits for."""
    sync = make()
    first, second = sync.delay("a"), sync.apply_async(("a", 2), task_id="mine")
    with revoked(first.id):
        work.run()
    assert (first.state, second.get(), runs) == ("REVOKED", "a2", [("a", 2)])


def test_a_follower_of_a_lost_call_runs_itself(
    make: Make, work: InlineWorker, runs: Runs, clock: MovableClock
) -> None:
    """A duplicate would wait for ever for a message that no broker has any more."""
    sync = make(queued_ttl=60)
    sync.delay("a")
    second = sync.apply_async(("a", 2), task_id="mine")
    work.take()
    work.waiting.pop(0)
    work.run(most=20)
    assert (second.get(), runs) == ("a2", [("a", 2)])


def test_producers_without_the_library_are_guarded_at_the_start(
    make: Make, work: InlineWorker, runs: Runs
) -> None:
    """A call by name would run beside the one that is there."""
    seen = []

    def body(task: Any, doc: str, version: int) -> int:
        if version == 1:
            for message in work.take():
                work.deliver(message)
            work.waiting.clear()
            seen.extend(runs)
        return version

    make(body)
    first = work.app.send_task("shop.sync", ("a", 1))
    second = work.app.send_task("shop.sync", ("a", 2))
    work.take()
    work.deliver(work.waiting.pop(0)[1])
    work.run()
    assert seen == [("a", 1)]
    assert (first.get(), second.get(), runs) == (1, 1, [("a", 1)])
