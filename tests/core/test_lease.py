"""Leases: who holds one, what its holder knows, and who keeps it alive."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from time import monotonic
from typing import Any

import pytest

from celery_patterns.core import lease as module
from celery_patterns.core.lease import Keeper, Lease, lapse
from celery_patterns.core.store import Store
from celery_patterns.errors import StoreUnavailable
from celery_patterns.policies.idempotency.record import Ended, Finished, Record, Running, Started
from celery_patterns.testing import MovableClock
from tests.ground.proxy import Proxy
from tests.ground.workers import ROOT

KEY = "cp:idempotency:{order}"
SHORT = 0.3
WaitFor = Callable[..., Any]


def record(store: Store, owner: str) -> Record:
    return Record(store=store, key=KEY, owner=owner, fingerprint="same", attempt=0)


def begin(store: Store, owner: str, length: float = 60) -> Any:
    return record(store, owner).begin(lease=length, ttl=600, on_lapsed="rerun", claim=600)


def held_by(store: Store, owner: str, length: float = 60) -> Lease:
    """A lease that `owner` has just begun."""
    fence = begin(store, owner, length).fence
    return Lease(store=store, key=KEY, owner=owner, fence=fence, length=length, keep=length + 600)


@pytest.fixture
def store(redis_url: str) -> Iterator[Store]:
    """A store on a real server."""
    store = Store(redis_url)
    yield store
    store.close()


# --- holder and successor --------------------------------------------------------------------------------


def test_a_lapsed_lease_goes_to_the_next_who_asks(every_store_url: str, wait_for: WaitFor) -> None:
    """A killed worker's order would be stuck; or its late return would undo its successor's work."""
    store = Store(every_store_url)
    first = held_by(store, "a/1", SHORT)
    assert isinstance(begin(store, "b/1"), Running)
    second = wait_for(lambda: begin(store, "b/1") if first.lost else None)
    assert isinstance(second, Started)
    assert second.lapsed == "a/1"
    assert second.fence > first.fence
    assert first.renew() is False
    assert record(store, "a/1").complete(first.fence, b"late", 600) == Finished(successor="b/1")
    assert record(store, "a/1").release(first.fence) == Finished(successor="b/1")
    assert record(store, "b/1").complete(second.fence, b"result", 600).successor is None
    assert begin(store, "c/1") == Ended("b/1", failed=False, end=b"result", again=False)
    store.client.delete(KEY)
    assert begin(store, "c/1").fence > second.fence
    store.close()


def test_an_overslept_holder_that_nobody_replaced_goes_on(store_url: str) -> None:
    """A pause of the process would waste an effect that happened, and have it happen again."""
    store = Store(store_url)
    clock = MovableClock(store)
    lease = held_by(store, "a/1")
    clock.advance(100)
    assert lease.renew() is True
    clock.advance(100)
    assert record(store, "a/1").complete(lease.fence, b"result", 600) == Finished()
    assert begin(store, "b/1").end == b"result"


def test_a_clock_that_jumps_back_does_not_turn_fences_back(store_url: str) -> None:
    """The successor's writes would be refused as those of an old holder, and the old one's be taken."""
    store = Store(store_url)
    MovableClock(store).advance(0)
    first = held_by(store, "a/1", 10)
    store.client.incrby(store.clock_key, -86_400 * 10**6)
    assert isinstance(begin(store, "b/1"), Running)
    lapse(store, KEY, "a/1", 0)
    assert begin(store, "b/1").fence == first.fence + 1


def test_the_end_of_a_dead_owner_is_hastened_and_never_put_off(store_url: str) -> None:
    """After a kill the next delivery would wait for the whole lease; or a lapsed lease would revive."""
    store = Store(store_url)
    clock = MovableClock(store)
    held_by(store, "a/1")
    lapse(store, KEY, "b/1", 0)
    assert begin(store, "b/1").left > 50
    lapse(store, KEY, "a/1", 5)
    assert 3 < begin(store, "b/1").left <= 5
    clock.advance(10)
    lapse(store, KEY, "a/1", 30)
    assert isinstance(begin(store, "b/1"), Started)


def test_a_release_that_comes_after_the_result_does_not_take_it_away(store_url: str) -> None:
    """A body that is interrupted after its result was recorded would run again."""
    store = Store(store_url)
    lease = held_by(store, "a/1")
    record(store, "a/1").complete(lease.fence, b"result", 600)
    assert record(store, "a/1").release(lease.fence) == Finished()
    assert begin(store, "b/1").end == b"result"


# --- what a holder knows ---------------------------------------------------------------------------------


def test_a_holder_knows_when_its_lease_has_run_out(store: Store, wait_for: WaitFor) -> None:
    """A long body could not stop before it acts beside its successor."""
    lease = held_by(store, "a/1", SHORT)
    assert not lease.lost
    wait_for(lambda: lease.lost)
    assert lease.renew()
    assert not lease.lost


def test_a_holder_knows_that_another_has_it(store: Store) -> None:
    """It would believe its own clock, although its renewal was refused."""
    lease = held_by(store, "a/1")
    store.client.delete(KEY)
    begin(store, "b/1")
    assert not lease.lost
    assert not lease.renew()
    assert lease.lost


def test_a_renewal_counts_from_when_it_was_asked_for(proxy: Proxy, redis_url: str) -> None:
    """A slow network would make a holder believe in its lease longer than the server does."""
    slow = Store(proxy.through(redis_url))
    lease = held_by(slow, "a/1", SHORT)
    proxy.delay(SHORT + 0.1)
    assert lease.renew()
    assert lease.lost


# --- the keeper ------------------------------------------------------------------------------------------


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    """A keeper of the test's own, which holds nothing any more when the test ends."""
    keeper = Keeper()
    yield keeper
    for lease in list(keeper._held):
        keeper.drop(lease)


@pytest.fixture
def renewals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """The keys that were renewed, and when."""
    seen: list[tuple[str, float]] = []
    renew = module._renew

    def noted(store: Store, keys: Any, args: Any) -> Any:
        seen.append((keys[0], monotonic()))
        return renew(store, keys, args)

    monkeypatch.setattr(module, "_renew", noted)
    return seen


def test_a_held_lease_is_renewed_at_a_third(
    store: Store, keeper: Keeper, renewals: list[tuple[str, float]], wait_for: WaitFor
) -> None:
    """A single late renewal would lose the lease; or each lease would cost ten commands a second."""
    lease = held_by(store, "a/1", 0.6)
    begun = monotonic()
    keeper.hold(lease)
    wait_for(lambda: len(renewals) >= 4)
    assert not lease.lost
    pauses = [later - earlier for earlier, later in pairwise([begun, *(when for _, when in renewals)])]
    assert 0.19 < min(pauses) < 0.35
    keeper.drop(lease)
    assert not keeper.holds("a/1")
    wait_for(lambda: lease.lost)


def test_a_short_lease_does_not_wait_for_a_long_one(
    store: Store, keeper: Keeper, renewals: list[tuple[str, float]], wait_for: WaitFor
) -> None:
    """A worker's first long lease would put all its short ones to sleep."""
    keeper.hold(held_by(store, "a/1", 3_600))
    wait_for(lambda: 1_000 < keeper._wake - monotonic() < 2_000)
    keeper.hold(Lease(store=store, key="cp:{other}", owner="b/1", fence=1, length=SHORT, keep=60))
    wait_for(lambda: renewals)
    assert {key for key, _ in renewals} == {"cp:{other}"}
    assert keeper.holds("a/1")


def test_one_thread_keeps_all_leases(store: Store, keeper: Keeper) -> None:
    """A worker with many threads would have as many more."""
    before = set(threading.enumerate())
    together = threading.Barrier(8)

    def hold(number: int) -> None:
        together.wait(10)
        lease = Lease(store=store, key=f"cp:{{{number}}}", owner="a/1", fence=1, length=60, keep=60)
        keeper.hold(lease)
        keeper.drop(lease)
        keeper.hold(lease)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, range(8)))
    started = [one for one in set(threading.enumerate()) - before if one.name == "celery-patterns-leases"]
    assert len(started) == 1
    assert started[0].daemon


def test_a_lease_survives_an_outage_of_the_store(
    proxy: Proxy, redis_url: str, keeper: Keeper, wait_for: WaitFor, caplog: pytest.LogCaptureFixture
) -> None:
    """A restart of Redis would lose every lease of the worker, or fill its log."""
    lease = held_by(Store(proxy.through(redis_url)), "a/1", SHORT)
    keeper.hold(lease)
    with caplog.at_level(logging.WARNING, "celery_patterns"):
        proxy.refuse()
        wait_for(lambda: "has run out" in caplog.text)
        assert lease.lost
        refused = monotonic()
        wait_for(lambda: monotonic() - refused > 2 * SHORT)
        proxy.accept()
        wait_for(lambda: not lease.lost)
    assert caplog.text.count("has run out") == 1
    assert keeper.holds("a/1")


def test_a_lease_that_another_took_is_kept_no_longer(
    store: Store, keeper: Keeper, wait_for: WaitFor, caplog: pytest.LogCaptureFixture
) -> None:
    """The holder would not be told, and the keeper would ask for ever."""
    lease = held_by(store, "a/1", SHORT)
    keeper.hold(lease)
    with caplog.at_level(logging.WARNING, "celery_patterns"):
        store.client.delete(KEY)
        begin(store, "b/1")
        wait_for(lambda: not keeper.holds("a/1"))
    assert lease.lost
    assert "Lost the lease of a/1" in caplog.text
    assert isinstance(begin(store, "c/1"), Running)


def test_a_lease_that_ends_while_it_is_renewed_is_not_called_lost(
    store: Store, keeper: Keeper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Operators would be alarmed, at random, about runs that ended as they should."""
    lease = held_by(store, "a/1", SHORT)
    next_in_line = Lease(store=store, key="cp:{next}", owner="b/1", fence=1, length=SHORT, keep=60)
    attended = threading.Event()

    def ends_meanwhile(_: Store, keys: list[str], __: Any) -> bytes:
        if keys == [KEY]:
            keeper.drop(lease)
            keeper.hold(next_in_line)
            return b"lost"
        attended.set()
        return b"ok"

    monkeypatch.setattr(module, "_renew", ends_meanwhile)
    keeper.hold(lease)
    assert attended.wait(10)
    assert not caplog.records


def test_one_bad_lease_does_not_stop_the_others(
    store: Store, keeper: Keeper, wait_for: WaitFor, caplog: pytest.LogCaptureFixture
) -> None:
    """All leases of the worker would run out because of one."""
    store.client.set("cp:{text}", "no hash")
    good = held_by(store, "a/1", SHORT)
    keeper.hold(Lease(store=store, key="cp:{text}", owner="b/1", fence=1, length=SHORT / 2, keep=60))
    keeper.hold(good)
    wait_for(lambda: "Cannot renew the lease of b/1" in caplog.text)
    before = good._until
    wait_for(lambda: good._until > before)
    assert not keeper.holds("b/1")


def test_what_could_not_be_reported_is_reported_later(
    store: Store, keeper: Keeper, wait_for: WaitFor
) -> None:
    """An effect that happened during an outage would be recorded nowhere, and happen again."""
    attempts: list[float] = []
    gave_up: list[float] = []

    def report() -> None:
        attempts.append(monotonic())
        if len(attempts) < 4:
            raise StoreUnavailable("away")

    lease = held_by(store, "a/1", 4)
    keeper.hold(lease)
    keeper.drop(lease)
    keeper.finish(lease, report, lambda: gave_up.append(monotonic()))
    assert keeper.holds("a/1")
    wait_for(lambda: not keeper.holds("a/1"), timeout=20)
    assert len(attempts) == 4
    assert not gave_up


def test_reporting_is_given_up_when_the_lease_has_run_out(
    store: Store, keeper: Keeper, wait_for: WaitFor
) -> None:
    """It would go on for ever, beside a successor; or nobody would be told that the result is lost."""
    attempts: list[float] = []
    gave_up: list[float] = []

    def report() -> None:
        attempts.append(monotonic())
        raise StoreUnavailable("away")

    lease = held_by(store, "a/1", SHORT)
    keeper.finish(lease, report, lambda: gave_up.append(monotonic()))
    wait_for(lambda: gave_up)
    wait_for(lambda: not keeper.holds("a/1"))
    assert gave_up[0] >= lease._until
    assert len(gave_up) == 1
    assert len(attempts) > 2


@pytest.mark.parametrize("mode", ["fork", "gevent"])
def test_leases_are_kept_after_a_fork_and_in_greenlets(mode: str, redis_url: str) -> None:
    """Pool processes would renew nothing, or their parent's leases; greenlets would starve the keeper."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.core.processes_of_leases", mode, redis_url],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
