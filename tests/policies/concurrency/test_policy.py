"""Concurrency limits: who runs, who waits, who is next, and that no place is lost."""

from types import SimpleNamespace
from typing import Any

import pytest
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import chain

from celery_patterns import ConcurrencyLimit, Idempotency, PolicyError, Singleton, concurrency_limit, disabled
from celery_patterns.core.install import install
from celery_patterns.core.lease import KILL_GRACE
from celery_patterns.core.store import Store
from celery_patterns.errors import ConcurrencyLimitReached, StoreUnavailable, StoreVersionError
from celery_patterns.policies.concurrency import operate
from celery_patterns.policies.concurrency.places import Full, Places, limit_key
from celery_patterns.testing import CapturedEvents, MovableClock
from tests.ground.inline import InlineWorker, replay_of, revoked
from tests.policies.concurrency.conftest import Make

Runs = list[Any]
LIMIT = "cp:concurrency_limit:{shop.export}"


def take_places(store: Store, names: str, *, seconds: float = 60, key: str = LIMIT) -> None:
    """Have deliveries in other processes hold places."""
    until = round((store.now() + seconds) * 1000)
    for name in names:
        lease = {"owner": f"{name}/x", "fence": 1, "until": until}
        store.client.zadd(f"{key}:held", {name: until})
        store.client.hset(f"{key}:held:{name}", mapping=lease)
        store.client.expire(f"{key}:held:{name}", 10_000)
    store.client.expire(f"{key}:held", 10_000)


def leave(store: Store, name: str, key: str = LIMIT) -> None:
    """Have one of them end."""
    store.client.zrem(f"{key}:held", name)
    store.client.delete(f"{key}:held:{name}")


def holders(store: Store) -> set[str]:
    return {one.decode() for one in store.client.zrange(f"{LIMIT}:held", 0, -1)}


def line(store: Store) -> list[str]:
    return [one.decode() for one in store.client.zrange(f"{LIMIT}:line", 0, -1)]


def deliver_next(work: InlineWorker) -> Any:
    work.take()
    message = work.waiting.pop(0)[1]
    work.deliver(message)
    return message


def test_no_more_than_the_limit_run(make: Make, work: InlineWorker, runs: Runs, store: Store) -> None:
    """A partner that stands two connections would get three."""
    most = []

    def body(task: Any, tenant: str, number: int) -> int:
        most.append(len(holders(store)))
        if len(most) < 4:  # the next one is delivered while this one runs
            deliver_next(work)
        return number

    export = make(2, body)
    calls = [export.delay("t", number) for number in range(5)]
    work.run(most=100)
    assert [call.get() for call in calls] == list(range(5))
    assert max(most) == 2
    assert holders(store) == set()
    assert line(store) == []


def test_a_free_place_is_for_the_longest_waiter(
    make: Make, work: InlineWorker, runs: Runs, store: Store
) -> None:
    """Under load old calls would wait for ever while new ones are let in."""
    export = make(2)
    take_places(store, "xy")
    waiting = [export.delay("t", number).id for number in (1, 2, 3)]
    for _ in waiting:
        deliver_next(work)
    assert line(store) == waiting
    held_back = sorted(work.take(), key=lambda message: waiting.index(message.headers["id"]))
    work.waiting.clear()
    leave(store, "x")
    fresh = export.delay("t", 4)
    deliver_next(work)
    assert runs == [], "a newcomer took the place of one who has waited"
    work.deliver(held_back[1])
    assert runs == [], "the second in line took the place of the first"
    work.deliver(held_back[0])
    assert runs == [("t", 1)]
    work.waiting.append((0, held_back[2]))
    work.run(most=100)
    assert fresh.get() == "t4"
    assert len(runs) == 4


def test_a_waiter_that_is_gone_gives_up_its_place_in_the_line(
    make: Make, work: InlineWorker, runs: Runs, store: Store, clock: MovableClock
) -> None:
    """A place would be kept for ever for a call whose worker was killed."""
    export = make(1)
    take_places(store, "x", seconds=3)
    export.delay("t", 1)
    deliver_next(work)
    work.take()
    work.waiting.clear()  # it never comes again
    clock.advance(3.1)
    export.delay("t", 2)
    deliver_next(work)
    assert runs == []
    clock.advance(6)
    work.run()
    assert runs == [("t", 2)]


def test_a_waiter_that_looks_soon_does_not_cost_another_its_place(store: Store, clock: MovableClock) -> None:
    """The line would be forgotten with the next look of the one who came last."""
    key = limit_key(store, "shop.export", None)
    places = Places(store=store, key=key, limit=1, lease=600, remember=600)
    places.acquire("holder/1")
    assert places.acquire("first/1", near=1, far=15) == Full(1, 0)
    assert places.acquire("second/1", near=1, far=15) == Full(1.5, 1)
    assert places.acquire("third/1", near=0.2, far=0.2) == Full(0.2, 2)
    clock.advance(5.5)
    assert places.acquire("first/2", near=1, far=1) == Full(1, 0)
    assert places.acquire("fourth/1", near=1, far=1) == Full(1, 2)


@pytest.mark.parametrize(("choice", "outcome"), [("skip", None), ("raise", ConcurrencyLimitReached)])
def test_what_a_call_does_that_finds_no_place_is_a_choice(
    make: Make, work: InlineWorker, runs: Runs, store: Store, choice: Any, outcome: Any
) -> None:
    """on_conflict would be ignored."""
    export = make(1, on_conflict=choice)
    take_places(store, "x")
    call = export.delay("t")
    work.run()
    if outcome is None:
        assert (call.state, call.get()) == ("SUCCESS", None)
    else:
        with pytest.raises(outcome, match=r"limit shop\.export of 1"):
            call.get()
    assert runs == []
    assert line(store) == []


def test_a_skip_in_a_canvas_waits(make: Make, work: InlineWorker, runs: Runs, store: Store) -> None:
    """A chain would go on without the result that it is there for."""
    export = make(1, on_conflict="skip")
    take_places(store, "x", seconds=5)
    result = chain(export.si("t", 1), export.si("t", 2)).delay()
    work.run()
    assert result.get() == "t2"
    assert runs == [("t", 1), ("t", 2)]


def test_each_key_has_its_own_limit(make: Make, work: InlineWorker, runs: Runs, store: Store) -> None:
    """One tenant would block another."""
    export = make(1, key="tenant")
    take_places(store, "x", key='cp:concurrency_limit:{shop.export:"t"}')
    export.delay("t")
    export.delay("u")
    deliver_next(work)
    deliver_next(work)
    assert runs == [("u", 1)]


def test_tasks_with_one_name_share_a_limit(make: Make, work: InlineWorker, store: Store) -> None:
    """Two tasks that use one connection would use two."""
    export = make(1, name="partner")
    take_places(store, "x", key="cp:concurrency_limit:{partner}")
    call = export.delay("t")
    deliver_next(work)
    assert call.state == "RETRY"


@pytest.mark.parametrize("error", [None, ValueError("no"), SystemExit()], ids=repr)
def test_a_place_is_given_back_however_the_body_ends(
    make: Make, work: InlineWorker, store: Store, error: BaseException | None
) -> None:
    """A place would be lost with each failure, until none is left."""

    def body(*_: Any) -> None:
        if error:
            raise error

    make(1, body).delay("t")
    try:
        work.run()
    except SystemExit:
        assert isinstance(error, SystemExit)
    assert holders(store) == set()


def test_a_retry_gives_its_place_back_meanwhile(
    make: Make, work: InlineWorker, runs: Runs, store: Store
) -> None:
    """A task that waits for its retry does not run: it would take up a place for nothing."""

    def body(task: Any, tenant: str, number: int) -> int:
        if number == 1 and task.request.retries == 0:
            raise task.retry(countdown=600)
        return number

    export = make(1, body)
    first, second = export.delay("t", 1), export.delay("t", 2)
    deliver_next(work)
    assert holders(store) == set()
    work.run()
    assert (first.get(), second.get()) == (1, 2)
    assert runs == [("t", 1), ("t", 2), ("t", 1)]


def test_a_revoked_waiter_leaves_the_line(make: Make, work: InlineWorker, runs: Runs, store: Store) -> None:
    """A place would be kept for a call that was taken back."""
    export = make(1)
    take_places(store, "x")
    call = export.delay("t")
    deliver_next(work)
    assert line(store) == [call.id]
    with revoked(call.id):
        work.run()
    assert line(store) == []


def test_a_killed_process_gives_its_place_back(make: Make, work: InlineWorker, store: Store) -> None:
    """Each kill would cost a place for the length of a lease."""
    export = make(1)
    export.delay("t")
    request = work.request(work.take()[0])
    begin(export, request)
    assert len(holders(store)) == 1
    request.on_failure(SimpleNamespace(exception=WorkerLostError("gone"), traceback="", exc_info=None))
    assert holders(store) == set()


def test_the_hard_limit_gives_a_place_back_when_the_process_is_gone(
    make: Make, work: InlineWorker, runs: Runs, store: Store, clock: MovableClock
) -> None:
    """The next call would run beside one that still dies, or wait for a minute."""
    export = make(1)
    export.delay("t")
    request = work.request(work.take()[0])
    work.waiting.clear()
    begin(export, request)
    request.on_failure(SimpleNamespace(exception=TimeLimitExceeded(1), traceback="", exc_info=None))
    request.on_timeout(soft=False, timeout=1)
    export.delay("t", 2)
    deliver_next(work)
    assert runs == []
    clock.advance(1.1)
    work.run()
    assert runs == [("t", 2)]


def begin(task: Any, request: Any) -> None:
    """Have a delivery take its place in a process that then says nothing any more."""
    task.__trace__ = None
    call = task.__patterns__.rebuilt(request._context)
    task.concurrency_limit._delivery(call).places.acquire(call.owner)


def test_a_lapsed_place_is_given_away(
    make: Make, work: InlineWorker, runs: Runs, store: Store, patterns_events: CapturedEvents
) -> None:
    """A place whose worker is gone would be lost for ever."""
    export = make(1)
    take_places(store, "x", seconds=5)
    export.delay("t")
    work.run()
    assert runs == [("t", 1)]
    assert [event.detail["holder"] for event in patterns_events.of("lapsed", export)] == ["x"]


def test_a_holder_that_lost_its_place_says_so(
    make: Make,
    work: InlineWorker,
    runs: Runs,
    store: Store,
    clock: MovableClock,
    patterns_events: CapturedEvents,
) -> None:
    """A holder that overslept would give away its successor's place."""

    def body(task: Any, tenant: str, number: int) -> bool:
        if number == 1:
            clock.advance(61)
            deliver_next(work)
            assert not task.request.lease.renew()
        return task.request.lease.lost

    export = make(1, body)
    first, second = export.delay("t", 1), export.delay("t", 2)
    work.run()
    assert (first.get(), second.get()) == (True, False)
    assert [event.detail["by"] for event in patterns_events.of("superseded", export)] == [None]


@pytest.mark.parametrize("by_an_operator", [True, False])
def test_a_late_copy_of_a_run_that_lost_its_place_does_not_run(
    make: Make, work: InlineWorker, runs: Runs, store: Store, clock: MovableClock, by_an_operator: bool
) -> None:
    """A run that ended well, though it had lost its place, would be repeated when its message comes again."""

    def body(task: Any, tenant: str, number: int) -> None:
        if number == 1 and by_an_operator:
            (holder,) = operate.holders(task.app)
            assert operate.release(task.app, holder)
        elif number == 1:
            clock.advance(61)
            deliver_next(work)

    export = make(1, body)
    export.delay("t", 1)
    export.delay("t", 2)
    work.take()
    message = work.waiting.pop(0)[1]
    work.deliver(message)
    work.run()
    assert sorted(runs) == [("t", 1), ("t", 2)]
    work.deliver(message)
    assert sorted(runs) == [("t", 1), ("t", 2)]


def test_a_copy_waits_and_is_acknowledged_when_its_task_has_ended(
    make: Make, work: InlineWorker, runs: Runs, patterns_events: CapturedEvents
) -> None:
    """A message that the broker delivers again would take a second place."""
    copies = []

    def body(task: Any, tenant: str, number: int) -> int:
        if not copies:
            copies.append(message)
            work.deliver(message)
        return number

    call = make(3, body).delay("t")
    (message,) = work.take()
    work.waiting.clear()
    work.deliver(message)
    work.run()
    work.deliver(message)
    assert (call.get(), runs) == (1, [("t", 1)])
    assert [event.detail["copy"] for event in patterns_events.of("deferred")] == [True]


def test_a_replay_of_a_dead_letter_is_no_late_copy(make: Make, work: InlineWorker, runs: Runs) -> None:
    """A task that is run again after its cause was mended would be taken for a late copy and dropped."""
    fails = [True]

    def body(*_: Any) -> str:
        if fails:
            raise ValueError("declined")
        return "done"

    export = make(1, body)
    call = export.delay("t")
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
    export.apply_async(("t",), task_id=call.id)  # what somebody sends again is no copy either
    work.run()
    assert len(runs) == 3


def test_a_replay_after_the_hard_limit(make: Make, work: InlineWorker, runs: Runs, store: Store) -> None:
    """The same, for an end that only the worker's parent has seen."""
    export = make(1)
    call = export.delay("t")
    (message,) = work.take()
    work.waiting.clear()
    begin(export, request := work.request(message))
    request.on_timeout(soft=False, timeout=1)
    work.deliver(message)
    assert runs == []
    work.clock.advance(KILL_GRACE)
    work.deliver(replay_of(message))
    assert (call.get(), len(runs), holders(store)) == ("t1", 1, set())


def test_a_duplicate_that_idempotency_answers_leaves_the_line(
    make: Make, work: InlineWorker, runs: Runs, store: Store
) -> None:
    """Those behind a call that needs no place any more would wait until it does not look again."""
    export = make(1)
    install(export, Idempotency("number"))
    take_places(store, "x")
    call = export.delay("t")
    deliver_next(work)
    assert line(store) == [call.id]
    leave(store, "x")
    with disabled("concurrency_limit"):
        export.apply(("t",))
    assert line(store) == [call.id]
    work.run()
    assert (call.get(), runs, line(store)) == ("t1", [("t", 1)], [])


def test_the_lease_of_a_singleton_is_what_the_body_sees(make: Make, work: InlineWorker, store: Store) -> None:
    """A fence of a limit, which many hold, would be taken for that of the key, which one holds."""
    seen = []

    def body(task: Any, tenant: str, number: int) -> None:
        seen.append(task.request.lease.key)

    export = make(2, body)
    export.delay("t")
    work.run()
    export.__trace__ = None
    install(export, Singleton(name="one"), Idempotency("number"))
    export.delay("u")
    work.run()
    assert seen[0].startswith(LIMIT)
    assert seen[1].startswith("cp:singleton:{one:")


def test_a_limit_of_a_newer_version_is_refused(make: Make, work: InlineWorker, store: Store) -> None:
    """Old code would misread what new code has written."""
    store.client.set(LIMIT, "2 1 1")
    call = make(1).delay("t")
    work.run()
    with pytest.raises(StoreVersionError, match="newer version"):
        call.get()


def test_eager_calls_are_limited(make: Make, runs: Runs, store: Store, clock: MovableClock) -> None:
    """A test of a user's own would not see what the pattern does."""
    take_places(store, "x", seconds=3)
    assert make(1).apply(("t",)).get() == "t1"
    assert holders(store) == set()


@pytest.mark.parametrize("store_url", ["fakeredis"], indirect=True)
@pytest.mark.parametrize("choice", ["defer", "raise"])
def test_a_store_that_is_away(
    make: Make, work: InlineWorker, runs: Runs, store: Store, choice: Any, patterns_events: CapturedEvents
) -> None:
    """A call would run unguarded while nobody knows how many do."""
    export = make(1, on_store_error=choice)
    call = export.delay("t")
    server = store.client.connection_pool.connection_kwargs["server"]
    server.connected = False
    deliver_next(work)
    assert runs == []
    assert patterns_events.of("store_error", export)
    server.connected = True
    work.run()
    if choice == "defer":
        assert call.get() == "t1"
    else:
        with pytest.raises(StoreUnavailable):
            call.get()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "limit"),
        ({"limit": 0}, "limit=0"),
        ({"limit": True}, "limit=True"),
        ({"limit": "3"}, "limit='3'"),
        ({"limit": 1, "key": ""}, "name an argument"),
        ({"limit": 1, "name": ""}, "name=''"),
        ({"limit": 1, "lease": 0}, "lease=0"),
        ({"limit": 1, "on_conflict": "replace"}, "'defer', 'skip', 'raise'"),
        ({"limit": 1, "on_store_error": "run"}, "'defer', 'raise'"),
    ],
)
def test_a_wrong_option_fails_when_declared(options: dict[str, Any], message: str) -> None:
    """A typo would be found by the customers."""
    with pytest.raises(TypeError, match=message):
        ConcurrencyLimit(**options)


def test_a_key_that_the_task_does_not_have_fails_when_declared(make: Make) -> None:
    """A misspelt key would fail at the first call, in production."""
    with pytest.raises(PolicyError, match="'customer'"):
        make(1, key="customer")


def test_the_decorator_is_called(work: InlineWorker) -> None:
    """A decorator that was forgotten to be called would make a task that is no task."""
    with pytest.raises(PolicyError, match=r"how many.*write @concurrency_limit\(2\)"):
        concurrency_limit(work.app.task(take_places, name="shop.x", shared=False))
