"""Commands and answers by the shortest way: each command gets its own answer, whatever happens in between."""

from collections.abc import Iterator
from typing import Any

import pytest
from redis.connection import Connection

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


def test_a_lost_connection_is_tried_once_more(proxy: Proxy, redis_url: str) -> None:
    """Each idle connection that the server closes would put a task off."""
    store = Store(proxy.through(redis_url))
    assert exchange(store.client, [("ECHO", "one")]) == [b"one"]
    proxy.cut()
    assert exchange(store.client, [("ECHO", "two"), ("ECHO", "three")]) == [b"two", b"three"]
    proxy.lose_reply()
    assert exchange(store.client, [("INCR", "count")]) == [2]
    store.close()
