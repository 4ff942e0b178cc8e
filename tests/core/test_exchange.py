"""Commands and answers by the shortest way: each command gets its own answer, whatever happens in between."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from redis.connection import Connection
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from celery_patterns.core.exchange import exchange
from celery_patterns.core.store import Store
from tests.ground.proxy import Proxy


@pytest.fixture
def store(redis_url: str) -> Iterator[Store]:
    store = Store(redis_url)
    yield store
    store.close()


def test_answers_come_in_the_order_of_the_commands(every_store_url: str) -> None:
    """A policy would take the answer that was meant for another one."""
    store = Store(every_store_url)
    commands = [("SET", "{a}:1", "one"), ("GET", "{a}:1"), ("GET", "{a}:2")]
    if not every_store_url.startswith("redis+cluster"):
        assert exchange(store.client, commands)[1:] == [b"one", None]
    store.client.set("{a}:1", "one")
    assert [exchange(store.client, [command]) for command in commands[1:]] == [[b"one"], [None]]
    store.close()


def test_an_error_stands_for_the_answer_of_its_command_only(store: Store) -> None:
    """One command that the server refuses would take the answers of the others with it."""
    found = exchange(store.client, [("SET", "text", "a"), ("INCR", "text"), ("GET", "text")])
    assert found[2] == b"a"
    assert "not an integer" in str(found[1])


@pytest.mark.parametrize("moment", ["send_packed_command", "read_response"])
def test_what_is_raised_in_between_leaves_no_answer_behind(
    moment: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a soft time limit, a lock would be taken for whoever asks next."""
    exchange(store.client, [("PING",)])
    original: Any = getattr(Connection, moment)

    def interrupted(self: Connection, *args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(Connection, moment, original)
        if moment == "send_packed_command":
            original(self, *args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(Connection, moment, interrupted)
    with pytest.raises(KeyboardInterrupt):
        exchange(store.client, [("ECHO", "first"), ("ECHO", "second")])
    assert exchange(store.client, [("ECHO", "third")]) == [b"third"]


def test_a_look_that_is_interrupted_costs_no_connection(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each soft time limit at the wrong moment would leave a socket open for as long as the process lives."""
    store = Store(f"{redis_url}?client_name=interrupted")  # other tests' clients are on this server too
    exchange(store.client, [("PING",)])
    original: Any = Connection.can_read

    def interrupted(self: Connection, *args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(Connection, "can_read", original)
        raise KeyboardInterrupt

    monkeypatch.setattr(Connection, "can_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exchange(store.client, [("ECHO", "first")])
    assert exchange(store.client, [("ECHO", "second")]) == [b"second"]
    ours = [client for client in store.client.client_list() if client["name"] == "interrupted"]
    store.close()
    assert 1 <= len(ours) <= 2  # that of scripts, that of the client


def test_a_lost_connection_is_tried_once_more(proxy: Proxy, redis_url: str) -> None:
    """Each idle connection that the server closes would put a task off."""
    store = Store(proxy.through(redis_url))
    assert exchange(store.client, [("ECHO", "one")]) == [b"one"]
    proxy.cut()
    assert exchange(store.client, [("ECHO", "two"), ("ECHO", "three")]) == [b"two", b"three"]
    proxy.lose_reply()
    assert exchange(store.client, [("INCR", "count")]) == [2]
    store.close()


def test_a_connection_that_the_server_closed_is_replaced_at_once(store: Store, redis_url: str) -> None:
    """After a quiet hour each task would begin with an error, or a pause."""
    (used,) = exchange(store.client, [("CLIENT", "ID")])
    with redis.Redis.from_url(redis_url) as other:
        other.client_kill_filter(_id=used)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("redis.retry.sleep", lambda _: pytest.fail("it paused"))
        assert exchange(store.client, [("CLIENT", "ID")]) != [used]


def test_a_connection_is_used_again_also_after_an_error_of_the_server(store: Store) -> None:
    """Each command would cost a connection, or wait for the pool."""
    (used,) = exchange(store.client, [("CLIENT", "ID")])
    for _ in range(3):
        assert isinstance(exchange(store.client, [("NONSENSE",)])[0], ResponseError)
    assert exchange(store.client, [("CLIENT", "ID")]) == [used]


def test_a_late_answer_is_not_asked_for_again_nor_given_to_the_next(proxy: Proxy, redis_url: str) -> None:
    """A worker would wait twice as long; the next command would read the answer of this one."""
    store = Store(proxy.through(redis_url) + "?socket_timeout=0.5")
    exchange(store.client, [("PING",)])
    proxy.hold()
    with pytest.raises(RedisTimeoutError):
        exchange(store.client, [("ECHO", "first")])
    proxy.heal()
    assert exchange(store.client, [("ECHO", "second")]) == [b"second"]
    store.close()


def test_the_policy_of_retries_is_the_connections_own(proxy: Proxy, redis_url: str) -> None:
    """What a URL says of retries would be ignored."""
    store = Store(proxy.through(redis_url) + "?socket_timeout=0.5&retry_on_timeout=true")
    exchange(store.client, [("ECHO", "one")])
    proxy.lose_reply(times=1)
    assert exchange(store.client, [("ECHO", "two")]) == [b"two"]
    store.close()


def test_threads_at_the_same_time_have_connections_of_their_own(store: Store) -> None:
    """Two threads would read each other's answers."""
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda one: exchange(store.client, [("ECHO", one)]), range(2_000)))
    assert answers == [[b"%d" % number] for number in range(2_000)]


def test_closing_the_store_closes_its_connections(store: Store, redis_url: str) -> None:
    """Each reload of a process would leave sockets open."""
    closed = Store(redis_url)
    (mine,) = exchange(closed.client, [("CLIENT", "ID")])
    closed.close()
    assert mine not in {int(one["id"]) for one in store.client.client_list()}
    assert exchange(closed.client, [("CLIENT", "ID")]) != [mine]
    closed.close()


def test_a_pool_that_must_see_its_connections_gets_each_back(redis_url: str) -> None:
    """After a failover the old primary would be asked on."""
    pool = redis.BlockingConnectionPool.from_url(redis_url, max_connections=1, timeout=1)
    client = redis.Redis(connection_pool=pool)
    for number in range(3):
        assert exchange(client, [("ECHO", number)]) == [b"%d" % number]
        assert client.ping()
    client.close()
