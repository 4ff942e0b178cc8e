"""A store across forks and in greenlets: run as a program, since it forks or patches its process.

python -m tests.core.processes_of_store fork|locked|cluster|gevent URL
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

CHILDREN = 8
PATIENCE = 15


def fork(url: str) -> None:
    """Parent and children use the client at the same time, while threads of the parent do, too."""
    store = open_store(url)
    ended = threading.Event()
    threads = [threading.Thread(target=talk_until, args=(store, ended, f"thread {n}")) for n in range(3)]
    for thread in threads:
        thread.start()
    children = [in_child(lambda n=n: talk(store, f"child {n}")) for n in range(CHILDREN)]
    talk(store, "parent")
    wait_for_children(children)
    ended.set()
    for thread in threads:
        thread.join()


def locked(url: str) -> None:
    """A thread of the parent is opening the client, and another the app's store, while it forks."""
    from celery import Celery  # noqa: PLC0415

    from celery_patterns.core import store as module  # noqa: PLC0415

    app = Celery("shop")
    app.conf.patterns_url = url
    store = open_store(url)
    with held(store._lock), held(module._of_app_lock):
        wait_for_children([in_child(lambda: talk(module.store_of(app), "child"))])
        wait_for_children([in_child(lambda: talk(store, "child"))])


def cluster(url: str) -> None:
    """A thread of the parent uses the client of a cluster, which has a lock of its own."""
    store = open_store(url)
    with held(store.client._lock), held(store.client.nodes_manager._lock):
        wait_for_children([in_child(lambda: talk(store, "child"))])
    talk(store, "parent")


def gevent(url: str) -> None:
    """More greenlets than redis-py's own pool has connections wait for one client's answers."""
    from gevent import monkey  # noqa: PLC0415

    monkey.patch_all()
    import gevent  # noqa: PLC0415

    store = open_store(url)
    waiting = [gevent.spawn(waits, store) for _ in range(150)]
    for _ in waiting:
        store.client.rpush("queue", "word")
    for greenlet in waiting:
        assert greenlet.get(timeout=PATIENCE)
    assert len({id(client) for client, _ in (one.value for one in waiting)}) == 1


def waits(store: Any) -> tuple[Any, Any]:
    client = store.client
    return client, client.blpop(["queue"], timeout=1)


def open_store(url: str) -> Any:
    from celery_patterns.core.store import Store  # noqa: PLC0415

    store = Store(url)
    store.client.echo("open") if "cluster" not in url else store.client.get("open")
    return store


def talk(store: Any, name: str) -> None:
    """Ask for answers of our own, and see that they are not another's."""
    for number in range(50):
        word = f"{name} {number}"
        store.client.set(f"word of {name}", word)
        assert store.client.get(f"word of {name}") == word.encode()


def talk_until(store: Any, ended: threading.Event, name: str) -> None:
    while not ended.is_set():
        talk(store, name)


class held:  # noqa: N801 - it reads as a word
    """A lock that another thread holds meanwhile."""

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.let_go = threading.Event()
        self.taken = threading.Event()
        self.thread = threading.Thread(target=self._hold)

    def _hold(self) -> None:
        with self.lock:
            self.taken.set()
            self.let_go.wait()

    def __enter__(self) -> None:
        self.thread.start()
        assert self.taken.wait(PATIENCE)

    def __exit__(self, *_: object) -> None:
        self.let_go.set()
        self.thread.join()


def in_child(work: Callable[[], None]) -> int:
    """Fork; a child that hangs is ended by its alarm, as a failure."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(PATIENCE)
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def wait_for_children(pids: list[int]) -> None:
    codes = [os.waitpid(pid, 0)[1] for pid in pids]
    assert codes == [0] * len(pids), codes


if __name__ == "__main__":
    {"fork": fork, "locked": locked, "cluster": cluster, "gevent": gevent}[sys.argv[1]](sys.argv[2])
