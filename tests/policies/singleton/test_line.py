"""The line of a singleton whose conflicts are deferred: who has waited longest comes next."""

import pytest

from celery_patterns.core.store import Store
from celery_patterns.core.waits import PACE
from celery_patterns.policies.singleton.delivery import LONGEST_POLL, SHORTEST_POLL, TURN_POLL, TURN_SLACK
from celery_patterns.policies.singleton.lock import Held, Lock, Started, lock_key
from celery_patterns.testing import MovableClock
from tests.ground.frozen import frozen_time
from tests.ground.queueing import Served, serve


def run(arrivals: list[float], seconds: float) -> Served:
    store = Store("memory://line-of-a-singleton")
    lock = Lock(
        store=store,
        key=lock_key(store, "shop.sync", "1"),
        on_conflict="defer",
        lease=3_600,
        remember=60,
    )
    fences: dict[int, int] = {}

    def look(number: int, looked: int, waited: float) -> float | None:
        near, far = (min(most, SHORTEST_POLL * 2**looked) for most in (TURN_POLL, LONGEST_POLL))
        kept = {"turn": near + TURN_SLACK, "most": far + TURN_SLACK}
        answer = lock.begin(f"{number}/x", waited=waited, **kept)
        if isinstance(answer, Held):
            assert answer.ahead is not None
            return min(answer.left + 0.01, far, near + answer.ahead * PACE)
        assert isinstance(answer, Started)
        fences[number] = answer.fence
        return None

    def end(number: int) -> None:
        assert lock.release(f"{number}/x", fences[number], ended=True) is None

    try:
        with frozen_time() as time:
            return serve(time, arrivals, seconds, look=look, end=end)
    finally:
        store.client.flushall()
        store.close()


@pytest.mark.parametrize("seconds", [0.05, 0.5, 3.0])
def test_they_run_in_the_order_in_which_they_came(seconds: float) -> None:
    """Under load old calls would wait for ever while new ones are let in, or the key be free for long."""
    served = run([number * 0.45 for number in range(40)], seconds)
    assert served.order == list(range(40))
    assert max(served.idle(1)) < 1.6


def test_who_comes_first_when_the_key_is_free_does_not_overtake(store: Store, clock: MovableClock) -> None:
    """Whoever happens to look first would be next, whether at its start or as it is published."""
    lock = Lock(store=store, key=lock_key(store, "s", "1"), on_conflict="defer", lease=600, remember=600)
    kept = {"turn": 60.0, "most": 200.0}
    running = lock.begin("running/1")
    assert isinstance(running, Started)
    ahead = []
    for number, name in enumerate(("a", "b", "c")):
        answer = lock.begin(f"{name}/1", waited=300.0 - number, **kept)
        assert isinstance(answer, Held)
        ahead.append(answer.ahead)
    assert ahead == [0, 1, 2]
    back = lock.give_back("running/1", running.fence, ended=True)
    assert (back.next, back.awaited) == ("a", True)
    assert lock.queue("new", 600) == Held("a/", pytest.approx(60, abs=20))
    clock.advance(30)
    held = lock.begin("b/2", waited=330.0, **kept)
    assert isinstance(held, Held)
    assert (held.owner, held.ahead) == ("a/", 0)
    clock.advance(35)  # it does not come: the next one has the turn
    held = lock.begin("c/2", waited=363.0, **kept)
    assert isinstance(held, Held)
    assert (held.owner, held.ahead) == ("b/", 0)
    assert isinstance(lock.begin("b/3", waited=365.0, **kept), Started)


def test_a_waiter_that_will_not_come_leaves_the_line(store: Store) -> None:
    """The key would be kept for a call that was revoked."""
    lock = Lock(store=store, key=lock_key(store, "s", "1"), on_conflict="defer", lease=60, remember=600)
    running = lock.begin("running/1")
    assert isinstance(running, Started)
    lock.begin("a/1", waited=2.0, turn=60.0)
    lock.begin("b/1", waited=1.0, turn=60.0)
    lock.give_back("a/1", None, ended=True)
    assert lock.give_back("running/1", running.fence, ended=True).next == "b"
