"""What the proxy does to connections."""

import socket
import time

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.ground.ports import LOCALHOST


@pytest.fixture
def client(proxy, redis_url):
    """A client that goes through the proxy, with a short time-out and without retries."""
    with redis.Redis.from_url(
        proxy.through(redis_url), socket_timeout=0.2, retry=Retry(NoBackoff(), 0)
    ) as through:
        assert through.incr("n") == 1
        yield through


@pytest.fixture
def stored(valkey):
    """What the server itself says that `n` is."""
    with valkey.client() as direct:
        yield lambda: int(direct.get("n"))


def test_cut_connections_fail_and_new_ones_work(proxy, client):
    """Reconnection could not be tested."""
    with socket.create_connection((LOCALHOST, proxy.port), timeout=5) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100) == b"+PONG\r\n"

        proxy.cut()

        with pytest.raises(ConnectionResetError):
            connection.recv(100)

    assert client.incr("n") == 2


def test_refused_until_accepted(proxy, client):
    """A server that is down could not be played."""
    proxy.refuse()
    with pytest.raises(redis.ConnectionError):
        client.incr("n")

    proxy.accept()

    assert client.incr("n") == 2


def test_held_command_arrives_late(proxy, client, stored, wait_for):
    """A command that runs after its client has given up could not be played."""
    proxy.hold()
    with pytest.raises(redis.TimeoutError):
        client.incr("n")
    assert stored() == 1

    proxy.heal()

    wait_for(lambda: stored() == 2)


def test_dropped_command_never_arrives(proxy, client, stored):
    """A command that is lost on the way could not be played."""
    proxy.drop()
    with pytest.raises(redis.TimeoutError):
        client.incr("n")

    proxy.heal()

    assert client.incr("n") == 2
    assert stored() == 2


def test_delayed_reply(proxy, client):
    """Slow networks could not be played."""
    proxy.delay(0.1)
    begin = time.monotonic()

    assert client.incr("n") == 2

    assert time.monotonic() - begin >= 0.1


def test_lost_reply_means_that_the_command_ran(proxy, client, stored):
    """Commands that run twice because their reply was lost could not be played."""
    proxy.lose_reply(b"INCR")
    assert client.get("n") == b"1"
    with pytest.raises(redis.ConnectionError):
        client.incr("n")

    assert stored() == 2
    assert proxy.lost == 1
    assert client.incr("n") == 3


def test_retrying_client_runs_a_command_twice(proxy, redis_url, stored):
    """The danger that operation ids are for would not be shown by this ground."""
    proxy.lose_reply(b"INCR", times=2)
    retrying = {"retry": Retry(NoBackoff(), 3), "retry_on_error": [redis.ConnectionError]}
    with redis.Redis.from_url(proxy.through(redis_url), **retrying) as client:
        client.incr("n")

    assert stored() == 3
