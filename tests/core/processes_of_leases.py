"""Leases that are kept across forks and in greenlets: run as a program, since it forks or is patched.

python -m tests.core.processes_of_leases fork|gevent URL
"""

import sys
import threading
from typing import Any

from tests.core.processes_of_store import held, in_child, wait_for_children
from tests.ground.waiting import wait_for

LENGTH = 0.3


def fork(url: str) -> None:
    """A child starts without its parent's leases, also when it was forked while the keeper was busy."""
    from celery_patterns.core.lease import keeper  # noqa: PLC0415

    lease = begun(url, "parent")
    keeper.hold(lease)

    def child() -> None:
        assert not keeper.holds(lease.owner)
        assert [one.name for one in threading.enumerate()] == ["MainThread"]
        own = begun(url, "child")
        keeper.hold(own)
        assert is_kept(own)

    with held(keeper._changed):
        child_of_busy = in_child(child)
    wait_for_children([child_of_busy, in_child(child)])
    assert keeper.holds(lease.owner)
    assert is_kept(lease)


def gevent(url: str) -> None:
    """The keeper is a greenlet among the tasks of a gevent pool."""
    from gevent import monkey  # noqa: PLC0415

    monkey.patch_all()
    from celery_patterns.core.lease import keeper  # noqa: PLC0415

    leases = [begun(url, f"greenlet {number}") for number in range(5)]
    for lease in leases:
        keeper.hold(lease)
    assert all(map(is_kept, leases))


def begun(url: str, name: str) -> Any:
    """A lease in Redis, as a policy's own script would have begun it."""
    from celery_patterns.core.lease import Lease  # noqa: PLC0415
    from celery_patterns.core.store import Store  # noqa: PLC0415

    store = Store(url)
    key = f"cp:{{{name}}}"
    store.client.hset(key, mapping={"owner": f"{name}/1", "fence": 1, "until": 0})
    return Lease(store=store, key=key, owner=f"{name}/1", fence=1, length=LENGTH, keep=60)


def is_kept(lease: Any) -> bool:
    """Whether it is renewed again and again, in Redis and as its holder sees it."""

    def until() -> int:
        return int(lease.store.client.hget(lease.key, "until"))

    for _ in range(3):
        before = until()
        wait_for(lambda before=before: until() > before, message="the lease is renewed")
        assert not lease.lost
    return True


if __name__ == "__main__":
    {"fork": fork, "gevent": gevent}[sys.argv[1]](sys.argv[2])
