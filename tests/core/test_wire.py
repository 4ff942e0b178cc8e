"""The short way to one server: what breaks on it, and what must not."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.exceptions import NoScriptError
from redis.exceptions import TimeoutError as RedisTimeoutError

from celery_patterns.core.store import Store
from celery_patterns.core.wire import Wire
from tests.ground.proxy import Proxy
from tests.ground.servers import ValkeyServer


@pytest.fixture
def store(proxy: Proxy, redis_url: str) -> Iterator[Store]:
    store = Store(proxy.through(redis_url))
    yield store
    store.close()


def connections(valkey: ValkeyServer) -> int:
    """How many clients the server has, beside the one that asks."""
    with valkey.client() as client:
        return len([one for one in client.client_list() if one["cmd"] != "client|list"])


def test_a_broken_connection_is_replaced_unnoticed(store: Store, proxy: Proxy) -> None:
    """Each worker would fail once after a restart of the server."""
    assert store.command("SET", "a", 1) == b"OK"
    proxy.cut()
    assert store.command("GET", "a") == b"1"


def test_many_broken_connections_are_replaced_unnoticed(store: Store, proxy: Proxy) -> None:
    """A process with many threads would try one stale connection after the other, and give up."""
    barrier = threading.Barrier(6)
    answers: list[Any] = []

    def use() -> None:
        store.command("PING")
        barrier.wait(5)
        answers.append(store.command("PING"))

    proxy.delay(0.05)  # so that no two of them share a connection
    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    proxy.heal()
    proxy.cut()
    assert [store.command("PING") for _ in range(12)] == [b"PONG"] * 12
    assert answers == [b"PONG"] * 6


def test_a_late_reply_is_not_taken_for_the_next_one(store: Store, proxy: Proxy) -> None:
    """A command would get the answer to another."""
    store.client.connection_pool.connection_kwargs["socket_timeout"] = 0.1
    store.command("SET", "a", "late")
    proxy.hold()
    with pytest.raises(RedisTimeoutError):
        store.command("GET", "a")
    proxy.heal()
    assert store.command("ECHO", "mine") == b"mine"


def test_an_interrupted_command_leaves_nothing_behind(
    store: Store, monkeypatch: pytest.MonkeyPatch, valkey: ValkeyServer
) -> None:
    """A soft time limit strikes while a reply is awaited: the next command would get that reply."""
    store.command("PING")
    connection = store._wire._ready[0]  # type: ignore[union-attr]
    read = connection.read_response

    def struck() -> Any:
        monkeypatch.setattr(connection, "read_response", read)
        raise KeyboardInterrupt

    monkeypatch.setattr(connection, "read_response", struck)
    with pytest.raises(KeyboardInterrupt):
        store.command("ECHO", "theirs")
    assert store.command("ECHO", "mine") == b"mine"


def test_an_error_of_the_server_is_an_answer(store: Store, valkey: ValkeyServer) -> None:
    """Each unknown script would cost a connection."""
    store.command("PING")
    before = connections(valkey)
    for _ in range(5):
        with pytest.raises(NoScriptError):
            store.command("EVALSHA", "0" * 40, 0)
    assert connections(valkey) == before


def test_closing_closes_what_is_in_hand(store: Store, valkey: ValkeyServer, wait_for: Any) -> None:
    """A process that closes its store would keep connections to the server."""
    before = connections(valkey)
    store.command("PING")
    assert connections(valkey) > before
    store.close()
    wait_for(lambda: connections(valkey) <= before)
    assert store.command("PING") == b"PONG"


def test_a_server_that_is_away_is_an_error(redis_url: str, proxy: Proxy) -> None:
    """A caller would wait for ever, or get no error at all."""
    wire = Wire(redis.Redis.from_url(proxy.through(redis_url), socket_timeout=0.2))
    assert wire.send("PING") == b"PONG"
    proxy.refuse()
    with pytest.raises(redis.ConnectionError):
        wire.send("PING")
    proxy.heal()
    assert wire.send("PING") == b"PONG"
    wire.close()
