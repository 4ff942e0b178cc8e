"""One Lua script: one atomic operation in one ``.lua`` file, run by its digest.

Redis forgets scripts when it restarts, and each node of a cluster has its own cache. So a script
that a node does not know (NOSCRIPT) is sent whole to that very node, which then knows it.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis.cluster import RedisCluster
from redis.exceptions import NoScriptError

from celery_patterns.core.store import FAILURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery_patterns.core.store import Store

_PRELUDE = """\
local function now_us()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]%s
end
"""


def prelude(clock_key: str | None) -> str:
    """What every script begins with: ``now_us()``, the server's clock in microseconds.

    Args:
        clock_key: The key of a test's movable clock, whose microseconds are added.
    """
    return _PRELUDE % (f" + (redis.call('GET', '{clock_key}') or 0)" if clock_key else "")


class Script:
    """A script from the package's ``lua`` folder.

    Args:
        name: The file's name without ``.lua``.
        after: Files with functions that it shares with other scripts, which stand before it.
    """

    def __init__(self, name: str, *, after: tuple[str, ...] = ()) -> None:
        self.name = name
        self.after = after
        self._shas: dict[str | None, str] = {}

    def __repr__(self) -> str:
        return f"Script({self.name!r})"

    @cached_property
    def body(self) -> str:
        """The text of the file, and before it what it shares with others."""
        folder = files("celery_patterns").joinpath("lua")
        return "".join(folder.joinpath(f"{one}.lua").read_text("utf-8") for one in (*self.after, self.name))

    def text(self, clock_key: str | None = None) -> str:
        """The text that is sent to Redis."""
        return prelude(clock_key) + self.body

    def __call__(self, store: Store, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """Run it on ``store``; all ``keys`` share one hash tag.

        Raises:
            StoreUnavailable: Redis cannot be reached in time, or refuses to write.
        """
        clock_key = store.clock_key
        sha = self._shas.get(clock_key)
        if sha is None:
            text = self.text(clock_key).encode()
            sha = self._shas[clock_key] = hashlib.sha1(text, usedforsecurity=False).hexdigest()
        try:
            return store.client.execute_command("EVALSHA", sha, len(keys), *keys, *args)
        except NoScriptError:
            with store.reporting():
                return store.client.execute_command("EVAL", self.text(clock_key), len(keys), *keys, *args)
        except FAILURES as error:
            store.report(error)
            raise

    def each(
        self, store: Store, calls: Sequence[tuple[Sequence[str], Sequence[str | bytes | int]]]
    ) -> list[Any]:
        """Run it once for each pair of keys and arguments; in two round trips, but for a cluster.

        Raises:
            StoreUnavailable: Nobody knows which of them have run.
        """
        answers = [self(store, *one) for one in calls[:1]]  # from here on the server knows the script
        rest = calls[1:]
        if isinstance(store.client, RedisCluster):  # its pipelines take no EVALSHA
            return answers + [self(store, *one) for one in rest]
        with store.reporting():
            pipe = store.client.pipeline(transaction=False)
            for keys, args in rest:
                pipe.execute_command("EVALSHA", self._shas[store.clock_key], len(keys), *keys, *args)
            found = pipe.execute(raise_on_error=False) if rest else []
        for one, answer in zip(rest, found, strict=True):
            if isinstance(answer, NoScriptError):
                answers.append(self(store, *one))
                continue
            if isinstance(answer, Exception):
                store.report(answer)
                raise answer
            answers.append(answer)
        return answers
