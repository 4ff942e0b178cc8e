"""The short way to one server, for scripts that take microseconds.

redis-py takes a lock, polls the socket, arms its own retry and keeps books for each command: about as
long as a small script and both its ways over the network take. A wire sends over connections of the
client's own pool, keeps them in hand, and does what is left: it asks again once when a connection
breaks. A script may therefore run twice for one call, here as with the client itself.
"""

from __future__ import annotations

from collections import deque
from time import sleep
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

if TYPE_CHECKING:
    from redis import Redis

PAUSE = 0.05
"""Seconds between a broken connection and the second attempt."""


class Wire:
    """Sends commands, and returns the raw replies.

    Safe in threads and greenlets: each takes a connection that nobody uses at the moment. Not to be
    taken across a fork.

    Args:
        client: The client whose pool makes the connections.
    """

    def __init__(self, client: Redis) -> None:
        self._pool = client.connection_pool
        self._ready: deque[Any] = deque()
        self._closed: deque[Any] = deque()

    def send(self, *command: str | bytes | int) -> Any:
        """Send a command and wait for its reply.

        Raises:
            redis.exceptions.RedisError: What redis-py raises: a connection broke twice, or the server
                answered with an error.
        """
        try:
            connection = self._ready.pop()
        except IndexError:
            connection = self._connect()
        try:
            return self._exchange(connection, command)
        except RedisConnectionError:  # not a timeout: who asks a hanging server again waits twice as long
            sleep(PAUSE)
            return self._exchange(self._connect(), command)  # the other ready ones may be broken as well

    def _exchange(self, connection: Any, command: tuple[str | bytes | int, ...]) -> Any:
        try:
            connection.send_command(*command)
            reply = connection.read_response()
        except ResponseError:
            self._ready.append(connection)
            raise
        except BaseException:  # also a soft time limit: its reply would be taken for the next command's
            self._close(connection)
            raise
        self._ready.append(connection)
        return reply

    def _connect(self) -> Any:
        try:
            connection = self._closed.pop()
        except IndexError:
            connection = self._pool.make_connection()
        try:
            connection.connect()
        except BaseException:
            self._close(connection)
            raise
        return connection

    def _close(self, connection: Any) -> None:
        connection.disconnect()
        self._closed.append(connection)

    def close(self) -> None:
        """Close the connections that nobody uses at the moment."""
        while self._ready:
            self._close(self._ready.pop())
