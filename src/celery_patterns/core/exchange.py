"""Commands to the server, and its answers: one write and one read for all of them.

Redis-py's clients do more around each command than a short one costs (what they measure, look up and could do
for other commands), and a pipeline of theirs twice that. So where the client is a plain one, its connections
are used by themselves, as the client would use them: looked at before they are used, asked once again after a
lost connection, closed when anything is raised in between, so that no answer is left for the next command.

Its pool costs as much again, since it counts and times each connection that it lends. So a connection on
which all went well is kept for the next command, and goes back to the pool only when something is wrong.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import redis
from redis.connection import Connection, ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

try:
    hiredis: Any = import_module("hiredis")
except ImportError:
    hiredis = None
pack: Callable[[Any], bytes] | None = getattr(hiredis, "pack_command", None)
"""As redis-py packs, which looks at each argument before it calls this."""

Command = Sequence[str | bytes | int | float]

_VERSION = tuple(int(part) for part in redis.__version__.split(".")[:2])
_NAMED = () if _VERSION >= (5, 3) else ("EVALSHA",)
"""What a pool wants to know: older ones the name of the command."""
_TELLS = hasattr(Connection, "should_reconnect")
"""Whether a connection tells that its server is about to leave: since redis-py 7."""
_BROKEN = (RedisConnectionError, RedisTimeoutError)
_KEPT = "_celery_patterns_kept"
"""Where a client has its connections: they end with it."""


def exchange(client: Any, commands: Sequence[Command]) -> list[Any]:
    """Send ``commands``, and return their answers; an error that the server answers stands for an answer.

    Raises:
        redis.exceptions.RedisError: The server is out of reach; what was sent may have been run.
    """
    if type(client) is redis.Redis:
        return _directly(vars(client).get(_KEPT) or _new(client), commands)
    if len(commands) > 1:
        pipeline = client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return list(pipeline.execute(raise_on_error=False))
    try:
        return [client.execute_command(*commands[0])]
    except ResponseError as error:
        return [error]


class Connections:
    """The connections of one pool, as long as nothing is wrong with them.

    For the pool they are in use, so it closes them when it is closed. Pools that look for the right server
    and passwords that change need to see a connection each time, so for them none is kept.

    Args:
        pool: Of a client.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._free: deque[Any] = deque()
        plain = type(pool) is ConnectionPool and not pool.connection_kwargs.get("credential_provider")
        self._keeps = _TELLS and plain

    def take(self) -> Any:
        """One that nobody uses, and on which nothing has come that nobody asked for."""
        try:
            connection = self._free.pop()
        except IndexError:
            return self._pool.get_connection(*_NAMED)
        usable = False
        try:
            usable = not connection.can_read() and not connection.should_reconnect()
        except (*_BROKEN, OSError):  # the server has closed it
            pass
        finally:  # also where the look is interrupted, as by a soft time limit
            if not usable:
                self.end(connection)
        return connection if usable else self._pool.get_connection(*_NAMED)

    def keep(self, connection: Any) -> None:
        """All its answers were read."""
        if self._keeps:
            self._free.append(connection)
        else:
            self._pool.release(connection)

    def end(self, connection: Any) -> None:
        """It is broken, or an answer may still come."""
        connection.disconnect()
        self._pool.release(connection)


def _new(client: Any) -> Connections:
    connections: Connections = vars(client).setdefault(_KEPT, Connections(client.connection_pool))
    return connections


def _directly(connections: Connections, commands: Sequence[Command]) -> list[Any]:
    connection = connections.take()
    try:
        try:
            answers = _talk(connection, commands)
        except _BROKEN as error:
            answers = _as_it_retries(connection, commands, error)
    except BaseException:
        connections.end(connection)
        raise
    connections.keep(connection)
    return answers


def _talk(connection: Any, commands: Sequence[Command]) -> list[Any]:
    if pack is None:
        packed = connection.pack_commands(commands)
    else:
        packed = [b"".join([pack(tuple(command)) for command in commands])]
    connection.send_packed_command(packed)
    return [_answer(connection) for _ in commands]


def _as_it_retries(connection: Any, commands: Sequence[Command], error: Exception) -> list[Any]:
    """Go on as the connection's own policy of retries says; for it, this was the first try."""
    failed = [error]

    def talk() -> list[Any]:
        if failed:
            raise failed.pop()
        return _talk(connection, commands)

    return list(connection.retry.call_with_retry(talk, lambda _: connection.disconnect()))


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
