"""One Lua script: one atomic operation in one ``.lua`` file, run by its digest.

Redis forgets scripts when it restarts, and each node of a cluster has its own cache. So a script
that a node does not know (NOSCRIPT) is sent whole to that very node, which then knows it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from redis.exceptions import NoScriptError

from celery_patterns.core.exchange import exchange
from celery_patterns.core.store import FAILURES
from celery_patterns.errors import PatternsError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery_patterns.core.exchange import Command
    from celery_patterns.core.store import Store

T = TypeVar("T")
U = TypeVar("U")

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


_known: list[Script] = []


def read_all() -> None:
    """Read all scripts now, so that processes that are forked later have them."""
    for script in _known:
        script.digest(None)


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
        _known.append(self)

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
        try:
            (answer,) = exchange(store.client, (self.command(store, keys, args),))
        except FAILURES as error:
            store.report(error)
            raise
        if not isinstance(answer, Exception):
            return answer
        if isinstance(answer, NoScriptError):
            return self.whole(store, keys, args)
        store.report(answer)
        raise answer

    def command(self, store: Store, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Command:
        """The command that runs it."""
        return ("EVALSHA", self.sha(store), len(keys), *keys, *args)

    def sha(self, store: Store) -> str:
        """Its digest, by which ``store`` knows it."""
        return self.digest(store.clock_key)

    def digest(self, clock_key: str | None) -> str:
        """The digest of :meth:`text`."""
        sha = self._shas.get(clock_key)
        if sha is None:
            text = self.text(clock_key).encode()
            sha = self._shas[clock_key] = hashlib.sha1(text, usedforsecurity=False).hexdigest()
        return sha

    def whole(self, store: Store, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """Run it where the server has forgotten it, or has never known it."""
        store.scripts.clear()  # what else it knew, it has forgotten as well
        with store.reporting():
            text = self.text(store.clock_key)
            return store.client.execute_command("EVAL", text, len(keys), *keys, *args)

    def each(
        self, store: Store, calls: Sequence[tuple[Sequence[str], Sequence[str | bytes | int]]]
    ) -> list[Any]:
        """Run it once for each pair of keys and arguments; in two round trips, but for a cluster.

        Raises:
            StoreUnavailable: Nobody knows which of them have run.
        """
        answers = [self(store, *one) for one in calls[:1]]  # from here on the server knows the script
        rest = calls[1:]
        if not rest or store.is_cluster:  # a cluster's pipelines take no EVALSHA
            return answers + [self(store, *one) for one in rest]
        with store.reporting():
            found = exchange(store.client, [self.command(store, *one) for one in rest])
        for one, answer in zip(rest, found, strict=True):
            if isinstance(answer, NoScriptError):
                answers.append(self(store, *one))
                continue
            if isinstance(answer, Exception):
                store.report(answer)
                raise answer
            answers.append(answer)
        return answers


@dataclass(frozen=True, slots=True)
class Ask(Generic[T]):
    """One run of a script, which may wait for others and share a round trip with them.

    Args:
        script: Which.
        store: Where.
        keys: Its keys; all share one hash tag.
        args: Its arguments.
        understand: What its answer means.
        not_asked: Called if it was to be asked, and was not.
    """

    script: Script
    store: Store
    keys: Sequence[str]
    args: Sequence[str | bytes | int]
    understand: Callable[[Any], T]
    not_asked: Callable[[], None] | None = None

    def now(self) -> T:
        """Run it by itself.

        Raises:
            StoreUnavailable: Redis cannot be reached in time, or refuses to write.
        """
        return self.understand(self.script(self.store, self.keys, self.args))

    def then(self, do: Callable[[T], U]) -> Ask[U]:
        """The same, and what is done with what its answer means."""
        return Ask(
            self.script,
            self.store,
            self.keys,
            self.args,
            lambda answer: do(self.understand(answer)),
            self.not_asked,
        )


def ask_together(asks: Sequence[Ask[Any]]) -> list[Any]:
    """Run several scripts in this order, in one round trip; the answers, or the errors in their place.

    They are separate steps all the same: a server that dies in between has run the first of them. In a
    cluster, whose client pipelines no scripts, they are asked one by one; and so they are where one of
    them is not known to be on the server, since those behind it would be run before it.
    """
    store = asks[0].store
    known = len(asks) > 1 and all(one.script.sha(store) in store.scripts for one in asks)
    if not known or store.is_cluster:
        return [_alone(one) for one in asks]
    try:
        with store.reporting():
            answers = exchange(store.client, [one.script.command(store, one.keys, one.args) for one in asks])
    except StoreUnavailable as error:
        return [error] * len(asks)
    return [_understood(one, answer) for one, answer in zip(asks, answers, strict=True)]


def _alone(ask: Ask[Any]) -> Any:
    try:
        answer = ask.now()
    except _NO_ANSWER as error:
        return error
    ask.store.scripts.add(ask.script.sha(ask.store))
    return answer


def _understood(ask: Ask[Any], answer: Any) -> Any:
    if isinstance(answer, NoScriptError):
        return _alone(ask)
    try:
        if not isinstance(answer, Exception):
            return ask.understand(answer)
        ask.store.report(answer)
    except _NO_ANSWER as error:
        return error
    return answer


_NO_ANSWER = (PatternsError, *FAILURES)
