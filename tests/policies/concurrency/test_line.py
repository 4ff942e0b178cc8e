"""The line of a limit where nobody is woken: no place stays empty for long, and nobody asks all the time."""

import pytest

from celery_patterns.core.store import Store
from celery_patterns.policies.concurrency.delivery import FAR_POLL, NEAR_POLL, SHORTEST_POLL
from celery_patterns.policies.concurrency.places import Full, Places, Started, limit_key
from tests.ground.frozen import frozen_time
from tests.ground.queueing import Served, serve


def run(limit: int, arrivals: list[float], seconds: float) -> Served:
    store = Store("memory://line-of-a-limit")
    key = limit_key(store, "shop.export", None)
    places = Places(store=store, key=key, limit=limit, lease=3_600, remember=60)
    fences: dict[int, int] = {}

    def look(number: int, looked: int, waited: float) -> float | None:
        near, far = (min(most, SHORTEST_POLL * 2**looked) for most in (NEAR_POLL, FAR_POLL))
        answer = places.acquire(f"{number}/x", waited=waited, near=near, far=far)
        if isinstance(answer, Full):
            return min(answer.wait, far)
        assert isinstance(answer, Started)
        fences[number] = answer.fence
        return None

    def end(number: int) -> None:
        assert places.release(f"{number}/x", fences[number], ended=True)

    try:
        with frozen_time() as time:
            return serve(time, arrivals, seconds, look=look, end=end)
    finally:
        store.client.flushall()
        store.close()


@pytest.mark.parametrize("seconds", [0.05, 0.5, 3.0, 20.0])
@pytest.mark.parametrize("limit", [1, 4])
def test_no_place_is_empty_for_long_while_calls_wait(limit: int, seconds: float) -> None:
    """Each waiter would learn that it is next only at a look that is far away, and the limit would idle."""
    served = run(limit, [number * 0.45 / limit for number in range(40)], seconds)
    assert served.order == list(range(40))
    assert max(served.idle(limit)) < 1.6


def test_a_long_line_does_not_ask_all_the_time() -> None:
    """The more calls wait, the more of the workers' time would go into looking."""
    served = run(1, [number * 0.01 for number in range(200)], 3.0)
    assert served.order == list(range(200))
    assert served.looks / served.ended[-1] < 30
