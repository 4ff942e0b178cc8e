"""The scripts of the places under a limit on every kind of server, a cluster among them."""

from celery_patterns.core.store import Store
from celery_patterns.policies.concurrency.places import Copy, Ended, Full, Places, Started, limit_key


def test_places_are_taken_renewed_waited_for_and_given_back(every_store_url: str) -> None:
    """Some server would refuse a script, or read its keys from another slot."""
    store = Store(every_store_url)
    places = Places(
        store=store, key=limit_key(store, "shop {x}", '"a b"'), limit=2, lease=60, remember=600, host="w@h"
    )
    one, two = places.acquire("a/1"), places.acquire("b/1")
    assert isinstance(one, Started)
    assert isinstance(two, Started)
    assert one.fence < two.fence
    assert isinstance(places.acquire("a/2"), Copy)
    assert places.acquire("c/1", near=1, far=8) == Full(1, 0)
    assert places.acquire("d/1", near=1, far=8) == Full(1, 1)
    assert places.acquire("e/1", near=1, far=8) == Full(1.5, 2)
    lease = places.lease_of("a/1", one.fence)
    assert lease.renew()
    score = store.client.zscore(f"{places.key}:held", "a")
    assert score == int(store.client.hget(lease.key, "until"))
    assert places.give_back("a/1", one.fence, ended=True).next == ("c",)
    assert not lease.renew()
    assert isinstance(places.acquire("a/3"), Ended)
    assert places.acquire("d/1", near=1, far=8) == Full(1, 1, ("c",))
    assert isinstance(places.acquire("c/1", near=1, far=8), Started)
    store.close()
