"""Commands to the server, and its answers: one write and one read for all of them.

Redis-py's clients do more around each command than a short one costs (what they measure, look up and could do
for other commands), and a pipeline of theirs twice that. So where the client is a plain one, its connections
are used by themselves, as the client would use them: taken from its pool, asked once again after a lost
connection, closed when anything is raised in between, so that no answer is left for the next command.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import ResponseError

Command = Sequence[str | bytes | int | float]

_NAMED = () if int(redis.__version__.partition(".")[0]) >= 6 else ("EVALSHA",)  # noqa: PLR2004 - of redis-py
"""What a pool wants to know: older ones the name of the command."""


def exchange(client: Any, commands: Sequence[Command]) -> list[Any]:
    """Send ``commands``, and return their answers; an error that the server answers stands for an answer.

    Raises:
        redis.exceptions.RedisError: The server is out of reach; what was sent may have been run.
    """
    if type(client) is redis.Redis:
        return _directly(client.connection_pool, commands)
    if len(commands) > 1:
        pipeline = client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return list(pipeline.execute(raise_on_error=False))
    try:
        return [client.execute_command(*commands[0])]
    except ResponseError as error:
        return [error]


def _directly(pool: Any, commands: Sequence[Command]) -> list[Any]:
    connection = pool.get_connection(*_NAMED)

    def talk() -> list[Any]:
        connection.send_packed_command(connection.pack_commands(commands))
        return [_answer(connection) for _ in commands]

    try:
        return list(connection.retry.call_with_retry(talk, lambda _: connection.disconnect()))
    except BaseException:
        connection.disconnect()
        raise
    finally:
        if getattr(connection, "should_reconnect", _never)():  # its server is about to leave
            connection.disconnect()
        pool.release(connection)


def _never() -> bool:
    return False


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
