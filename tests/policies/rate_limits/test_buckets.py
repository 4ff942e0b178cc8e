"""The scripts themselves: on fakeredis, a real server and a cluster; lost replies; what they leave behind."""

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from celery_patterns import Rate, RateLimitManager
from celery_patterns.core.store import Store
from celery_patterns.errors import StoreUnavailable
from celery_patterns.policies.rate_limits.buckets import (
    ASKS,
    ASKS_PER_TOKEN,
    LONGEST_PAUSE,
    Bucket,
    Demand,
    Denied,
    Granted,
    ask,
    buckets_in_use,
    close,
    stand_in_line,
    waiting,
)
from celery_patterns.policies.rate_limits.steering import close_name
from celery_patterns.testing import MovableClock, memory_store
from tests.ground.proxy import Proxy
from tests.policies.rate_limits.frozen import FrozenClock


@pytest.fixture
def everywhere(every_store_url: str) -> Iterator[Store]:
    """A store of each kind."""
    with memory_store(every_store_url) as store:
        yield store


def demand(
    name: str, rate: str = "1/h", burst: int = 1, cost: int = 1, *, key: str = "", strict: bool = False
) -> Demand:
    return Demand(Bucket(name, key), Rate.of(rate), burst, cost, strict)


def test_all_or_nothing_on_every_kind_of_store(everywhere: Store) -> None:
    """On a cluster two limits would lie in two slots, and be asked one after the other."""
    first, second = demand("first", burst=3), demand("second", key='"{a}b"', strict=True, burst=1)
    third = demand("third", "9/h", burst=3, strict=True)
    assert isinstance(ask(everywhere, [first, second, third]), Granted)
    for _ in range(5):
        denied = ask(everywhere, [first, second, third])
        assert isinstance(denied, Denied)
        assert denied.which == 1
        assert denied.wait == pytest.approx(3_600, abs=5)
    assert [isinstance(ask(everywhere, [first]), Granted) for _ in range(3)] == [True, True, False]
    assert [isinstance(ask(everywhere, [third]), Granted) for _ in range(3)] == [True, True, False]


def test_steering_on_every_kind_of_store(everywhere: Store) -> None:
    """An operator's change would not reach the node that holds the limits."""
    limited = demand("api", key="7")
    ask(everywhere, [limited])
    close_name(everywhere, "api", 50)
    close(everywhere, [limited.bucket], 60)
    assert isinstance(ask(everywhere, [limited]), Denied)
    assert buckets_in_use(everywhere) == [limited.bucket]
    assert stand_in_line(everywhere, limited.bucket, "me", Denied(0.5, 0, 1.0)) == (0.5, 1)
    manager = RateLimitManager()
    manager.restore_defaults()
    manager.refill("api")
    assert isinstance(ask(everywhere, [limited]), Granted)


class TestLostReply:
    """The connection breaks after the script ran; the client sends it again."""

    def test_it_books_once(self, proxy: Proxy, redis_url: str) -> None:
        """Each lost reply would cost a token that nobody uses."""
        limited = [demand("api", burst=3), demand("strict", "9/h", burst=3, strict=True)]
        with memory_store(proxy.through(redis_url)) as store:
            ask(store, [demand("warm")])
            proxy.lose_reply(b"limit-op")
            granted = ask(store, limited)
            assert isinstance(granted, Granted)
            assert proxy.lost == 1
            answers = [ask(store, limited) for _ in range(3)]
            assert [type(one) for one in answers] == [Granted, Granted, Denied]

    def test_it_books_once_also_when_others_came_between(self, proxy: Proxy, redis_url: str) -> None:
        """A bucket that remembers its last caller only would forget who asks again."""
        limited = [demand("api", burst=30)]
        direct = Store(redis_url)
        with memory_store(proxy.through(redis_url)) as store, pytest.MonkeyPatch.context() as patch:

            def meanwhile(_: float) -> None:
                for _ in range(20):
                    assert isinstance(ask(direct, limited), Granted)

            patch.setattr("redis.retry.sleep", meanwhile)
            ask(store, limited)
            proxy.lose_reply(b"limit-op")
            assert isinstance(ask(store, limited), Granted)
            patch.undo()
            answers = [isinstance(ask(store, limited), Granted) for _ in range(9)]
        direct.close()
        assert answers == [True] * 8 + [False]

    def test_it_books_once_however_many_lose_theirs(
        self, proxy: Proxy, redis_url: str, wait_for: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A network that cuts many connections at once would cost a token for each of them."""
        limited = [demand("api", burst=40)]
        monkeypatch.setattr("redis.retry.sleep", lambda _: wait_for(lambda: proxy.lost == 15, timeout=20))
        with memory_store(proxy.through(redis_url)) as store, ThreadPoolExecutor(20) as pool:
            ask(store, [demand("warm")])
            proxy.lose_reply(b"limit-op", times=15)
            answers = list(pool.map(lambda _: ask(store, limited), range(40)))
            assert [type(one) for one in answers] == [Granted] * 40
            assert isinstance(ask(store, limited), Denied)

    def test_a_slot_whose_command_may_still_come_is_given_up(self, proxy: Proxy, redis_url: str) -> None:
        """A late command would overwrite the number of a later one, which could then book twice."""
        with memory_store(proxy.through(redis_url) + "?socket_timeout=0.3") as store:
            ask(store, [demand("warm")])
            (first,) = store.client.keys("cp:limit-op:*")
            proxy.hold()
            with pytest.raises(StoreUnavailable):
                ask(store, [demand("api")])
            proxy.heal()
            store.client.delete(first)
            ask(store, [demand("other")])
            slots = {*store.client.keys("cp:limit-op:*")} - {first}
            assert len(slots) == 1

    def test_the_grant_is_the_first_one(self, proxy: Proxy, redis_url: str) -> None:
        """A start would count at the time of the repetition, and not when its token was taken."""
        with memory_store(proxy.through(redis_url)) as store:
            ask(store, [demand("warm")])
            before = store.now()
            proxy.lose_reply(b"limit-op")
            granted = ask(store, [demand("api")])
            assert isinstance(granted, Granted)
            assert before <= granted.at <= store.now() - 0.05


def test_a_forked_child_names_its_operations_anew(redis_url: str) -> None:
    """A child would be told of its parent's grant, as if it had asked again, and take no token of its own."""
    store, limited = Store(redis_url), [demand("api", burst=2)]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if isinstance(ask(store, limited), Granted) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    answers = [isinstance(ask(store, limited), Granted) for _ in range(2)]
    store.close()
    assert answers == [True, False]


class TestWhatIsLeftBehind:
    """Keys live as long as they mean something."""

    def test_a_bucket_lives_until_it_is_full(self, store: Store) -> None:
        """A bucket that is forgotten early is full too soon; one that is never forgotten fills the server."""
        ask(store, [demand("api", "1/m", burst=5, cost=3)])
        assert 180_000 < store.client.pttl("cp:limit:{cp}:api:") <= 181_000

    def test_a_log_lives_for_its_period(self, store: Store) -> None:
        """A strict limit would forget calls that still count."""
        ask(store, [demand("api", "6/m", burst=6, cost=4, strict=True)])
        assert 60_000 < store.client.pttl("cp:limit-log:{cp}:api:") <= 61_000
        assert store.client.llen("cp:limit-log:{cp}:api:") == 4

    def test_a_log_is_as_long_as_the_count(self, store: Store) -> None:
        """A strict limit would need more memory the longer it runs."""
        for _ in range(30):
            ask(store, [demand("api", "8/0.001s", burst=8, strict=True)])
        assert store.client.llen("cp:limit-log:{cp}:api:") <= 8

    def test_a_closed_bucket_lives_until_it_opens(self, store: Store) -> None:
        """A 429 would be forgotten when the bucket is full."""
        ask(store, [demand("api", "100/s", burst=5)])
        close(store, [Bucket("api"), Bucket("other")], 600)
        ask(store, [demand("api", "50/s", burst=5)])
        for name in ("api", "other"):
            assert 600_000 < store.client.pttl(f"cp:limit:{{cp}}:{name}:") <= 601_000

    def test_a_denied_call_leaves_nothing(self, store: Store) -> None:
        """A crowd that is denied would fill the server."""
        ask(store, [demand("api")])
        before = sorted(store.client.keys())
        for _ in range(5):
            ask(store, [demand("api")])
        assert sorted(store.client.keys()) == before

    def test_operations_leave_one_key_for_some_seconds(self, store: Store) -> None:
        """Each call would cost memory, for seconds or for ever."""
        for _ in range(30):
            ask(store, [demand("api", burst=30)])
        (slot,) = store.client.keys("cp:limit-op:*")
        assert 0 < store.client.pttl(slot) <= 10_000

    def test_a_bucket_is_small(self, store: Store) -> None:
        """A million tenants would need more memory than we say."""
        ask(store, [demand("stripe", burst=100, key='"tenant-000001"')])
        value = store.client.get('cp:limit:{cp}:stripe:"tenant-000001"')
        assert len(value) <= 40

    def test_a_line_lives_as_long_as_somebody_waits(self, store: Store) -> None:
        """Who was revoked while waiting would be counted for ever."""
        stand_in_line(store, Bucket("api"), "me", Denied(30.0, 0, 1.0))
        assert 0 < store.client.pttl("cp:limit-line:{cp}:api:") <= 1_000 * LONGEST_PAUSE + 1_000


class TestLine:
    """How long a waiting call pauses before it asks again."""

    def test_a_short_wait_is_waited_out(self, store: Store) -> None:
        """A call would ask before there can be a token, or long after."""
        assert stand_in_line(store, Bucket("api"), "me", Denied(0.25, 0, 0.5)) == (0.25, 1)

    def test_a_long_wait_asks_once_a_second(self, store: Store) -> None:
        """Who waits would not hear of a raised rate for hours."""
        assert stand_in_line(store, Bucket("api"), "me", Denied(9_999.0, 0, 3_600.0)) == (LONGEST_PAUSE, 1)

    def test_a_crowd_asks_at_a_bounded_pace(self, store: Store, frozen: FrozenClock) -> None:
        """Ten thousand waiting calls would ask ten thousand times a second, and stop every worker."""
        come = [stand_in_line(store, Bucket("api"), str(one), Denied(5.0, 0, 1.0))[0] for one in range(1_000)]
        per_second = Counter(int(at - come[0]) for at in come)
        assert max(per_second.values()) <= 3 * ASKS
        assert len(per_second) >= 5, "it spreads over the time that it needs to come round"
        assert come[0] == min(come), "the first in line comes first"

    def test_a_short_crowd_asks_once_a_second(self, store: Store, frozen: FrozenClock) -> None:
        """A limit that is raised would be used up only when everybody has heard of it."""
        pauses = [
            stand_in_line(store, Bucket("api"), str(one), Denied(9_999.0, 0, 3_600.0))[0]
            for one in range(ASKS)
        ]
        assert max(pauses) <= LONGEST_PAUSE + 1 / ASKS

    def test_a_fast_limit_may_be_asked_more_often(self, store: Store, frozen: FrozenClock) -> None:
        """A crowd before a fast limit would not use it up."""
        pauses = [
            stand_in_line(store, Bucket("api"), str(one), Denied(0.001, 0, 0.001))[0] for one in range(500)
        ]
        assert max(pauses) <= 500 / (ASKS_PER_TOKEN * 1_000) + 0.01

    def test_who_comes_again_stands_there_once(self, store: Store) -> None:
        """A line would grow each time somebody asks."""
        for _ in range(5):
            assert stand_in_line(store, Bucket("api"), "me", Denied(5.0, 0, 1.0))[1] == 1
        assert waiting(store, Bucket("api"), store.now()) == 1

    def test_who_does_not_come_again_is_forgotten(self, store: Store, clock: MovableClock) -> None:
        """Revoked calls would stand in line for ever."""
        for one in range(5):
            stand_in_line(store, Bucket("api"), str(one), Denied(9.0, 0, 1.0))
        clock.advance(1.1)
        assert stand_in_line(store, Bucket("api"), "me", Denied(9.0, 0, 1.0))[1] == 1
