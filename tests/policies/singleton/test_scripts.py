"""The scripts of the lock on every kind of server, a cluster among them."""

from collections.abc import Iterator
from typing import Any

import pytest

from celery_patterns.core.lease import Lease
from celery_patterns.core.store import Store
from celery_patterns.policies.singleton.lock import (
    Ended,
    Held,
    Lock,
    Moved,
    Over,
    Queued,
    Replaced,
    Started,
    lock_key,
)


@pytest.fixture
def store(every_store_url: str) -> Iterator[Store]:
    store = Store(every_store_url)
    yield store
    store.close()


def lock(store: Store, on_conflict: str = "use_existing", **options: Any) -> Lock:
    options = {"lease": 60.0, "remember": 600.0, "host": "w@h", **options}
    return Lock(store=store, key=lock_key(store, "shop.sync", '"a"'), on_conflict=on_conflict, **options)


def test_a_lock_passes_from_the_queue_to_a_run_and_to_its_end(store: Store) -> None:
    """Some server would refuse a script, or read its keys from another slot."""
    mine = lock(store)
    assert isinstance(mine.queue("a", 600), Queued)
    assert mine.queue("b", 600) == Held("a/", pytest.approx(600, abs=2))
    begun = mine.begin("a/1")
    assert isinstance(begun, Started)
    assert mine.begin("a/1") == Started(begun.fence, None)
    assert mine.begin("a/2") == Held("a/1", pytest.approx(60, abs=2))
    lease = Lease(store=store, key=mine.key, owner="a/1", fence=begun.fence, length=60, keep=mine.keep)
    assert lease.renew()
    assert mine.hand_back("a/1", begun.fence, 600) is None
    again = mine.begin("a/2")
    assert isinstance(again, Started)
    assert again.fence > begun.fence
    assert mine.release("a/1", begun.fence, ended=True) == "a/2"
    assert mine.release("a/2", again.fence, ended=True) is None
    assert isinstance(mine.begin("a/3"), Ended)
    assert isinstance(mine.begin("b/1", follows="a"), Over)
    assert isinstance(mine.begin("b/1"), Started)


def test_the_newest_takes_the_place_of_another(store: Store) -> None:
    """The same, for the keys of other tasks that a script writes to."""
    newest = lock(store, "replace")
    first, second = newest.queue("a", 600), newest.queue("b", 600)
    assert isinstance(first, Queued)
    assert isinstance(second, Queued)
    assert first.at < second.at
    assert newest.begin("a/1", at=first.at) == Replaced("b")
    assert newest.begin("c/1", follows="a") == Moved("b")
    assert isinstance(newest.begin("b/1", at=second.at), Started)
    third = newest.queue("c", 600)
    assert isinstance(third, Queued)
    assert newest.begin("c/1", at=third.at, turn=600) == Held("b/1", pytest.approx(60, abs=2), ahead=0)


def test_the_lease_of_a_process_that_is_gone_lapses(store: Store) -> None:
    """The same, for the script that all leases share."""
    mine = lock(store)
    begun = mine.begin("a/1")
    assert isinstance(begun, Started)
    mine.lapse("a/1", 0.0)
    taken = mine.begin("b/1")
    assert isinstance(taken, Started)
    assert (taken.lapsed, taken.fence > begun.fence) == ("a/1", True)


def test_two_keys_lie_in_one_slot_each(store: Store) -> None:
    """A key with braces or spaces in it would tear a lock apart on a cluster."""
    for key in ('"{x}"', '"a b"', '["t",7]', "sha256:ab"):
        one = Lock(
            store=store, key=lock_key(store, "shop {x}:y", key), on_conflict="raise", lease=60, remember=60
        )
        assert isinstance(one.queue("a", 60), Queued)
        begun = one.begin("a/1")
        assert isinstance(begun, Started)
        assert one.release("a/1", begun.fence, ended=True) is None


def test_a_lock_is_kept_for_a_task_that_waits_elsewhere(store: Store) -> None:
    """A task that is parked for a day would lose its key after an hour; or be given another's."""
    mine, newest = lock(store), lock(store, "keep_latest")
    mine.queue("a", 10)
    assert mine.keep_queued("a", 1_000)
    assert mine.keep_queued("a", 10), "never for a shorter time"
    assert mine.queue("b", 10) == Held("a/", pytest.approx(1_000, abs=5))
    assert not mine.keep_queued("b", 1_000)
    assert isinstance(newest.begin("a/1"), Started)
    assert isinstance(newest.queue("c", 10), Queued)
    assert newest.keep_queued("c", 1_000)
    newest.release("a/1", None, ended=True)
    assert newest.queue("a", 10) == Queued(pytest.approx(store.now() * 1e6, abs=5e6))
    assert not newest.keep_queued("x", 10)


def test_an_end_says_who_waits(store: Store) -> None:
    """Those who wait would look for their turn again and again, since nobody would wake them."""
    mine = lock(store, "defer")
    first = mine.begin("a/1")
    assert isinstance(first, Started)
    assert mine.begin("b/1", turn=60) == Held("a/1", pytest.approx(60, abs=2), ahead=0)
    back = mine.give_back("a/1", first.fence, ended=True)
    assert (back.next, back.awaited, back.successor) == ("b", True, None)
    second = mine.begin("b/2")
    assert isinstance(second, Started)
    assert not mine.give_back("b/2", second.fence, ended=True).next
