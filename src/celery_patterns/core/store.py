"""Where the library keeps its state: one client per app and process, with short timeouts.

A client is opened at its first use and never shared with a child process: sockets and locks that
cross a fork are how two processes come to read each other's replies.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from weakref import WeakKeyDictionary, WeakSet

from redis.cluster import RedisCluster
from redis.exceptions import (
    BusyLoadingError,
    ClusterError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from celery_patterns.core.settings import setting
from celery_patterns.core.urls import connect, safe_url, store_url, without_secrets
from celery_patterns.errors import PolicyError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

logger = logging.getLogger("celery_patterns")

FAILURES = (RedisError, RedisClusterException)
"""All that redis-py raises; :meth:`Store.report` tells what of it means that Redis is out of reach."""

_DOWN = (
    RedisConnectionError,
    RedisTimeoutError,
    BusyLoadingError,
    ReadOnlyError,
    OutOfMemoryError,
    ClusterError,
    RedisClusterException,
)
_NOT_NOW = re.compile(r"(^|: -)(OOM|READONLY|MISCONF|NOREPLICAS|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY) ")
"""How servers refuse for now. Redis 6 puts it behind the name of the script."""


class Store:
    """A Redis or Valkey server (or Sentinel, or Cluster) and the prefix of our keys in it.

    Args:
        url: See the reference of ``patterns_url``.
        prefix: What all our keys begin with.
        options: Settings of the client that the URL does not hold, such as Celery's ``ssl`` options.

    Attributes:
        clock_key: The key of a test's movable clock.
        scripts: Digests of the scripts that the server has run, for as long as it remembers them.
        is_cluster: Whether the keys are spread over several servers; known once it was used.
        is_split: Whether a script can have the keys of one thing only; known likewise.
    """

    def __init__(self, url: str, prefix: str = "cp", options: dict[str, Any] | None = None) -> None:
        self._url = url
        self.prefix = prefix
        self.clock_key: str | None = None
        self._options = options or {}
        self.scripts: set[str] = set()
        self.is_cluster = False
        self.is_split = False
        self._client: Any = None
        self._lock = threading.Lock()
        _stores.add(self)

    def __repr__(self) -> str:
        return f"Store({safe_url(self._url)!r}, prefix={self.prefix!r})"

    @property
    def url(self) -> str:
        """The URL, without its password."""
        return safe_url(self._url)

    @property
    def client(self) -> Any:
        """This process's client (a ``redis.Redis`` or ``RedisCluster``), safe in threads and gevent."""
        return self._client or self._open()

    def key(self, kind: str, *parts: str) -> str:
        """The key of one thing; its parts are the hash tag, so that all that belongs to it shares a slot."""
        return f"{self.prefix}:{kind}:{{{':'.join(parts)}}}"

    def now(self) -> float:
        """The server's clock, in seconds since the epoch, as scripts see it."""
        with self.reporting():
            seconds, micros = self.client.time()
            moved = self.client.get(self.clock_key) if self.clock_key else None
        return float(seconds + (micros + int(moved or 0)) / 1e6)

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Turn what means that Redis is out of reach into :class:`StoreUnavailable`.

        Example:
            >>> with Store("memory://doctest").reporting():
            ...     pass
        """
        try:
            yield
        except FAILURES as error:
            self.report(error)
            raise

    def report(self, error: Exception) -> None:
        """Raise :class:`StoreUnavailable` where ``error`` means that Redis is out of reach."""
        text = str(error)
        if not isinstance(error, _DOWN) and not _NOT_NOW.search(text):
            return
        told = without_secrets(text, self._url)
        unavailable = StoreUnavailable(f"{self.url}: {type(error).__name__}: {told}")
        raise unavailable from (error if told == text else None)  # a traceback tells the whole chain

    def close(self) -> None:
        """Close this process's connections; the next use opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _open(self) -> Any:
        with self._lock:
            client = self._client
            if client is not None:
                return client
            with self.reporting():
                client = connect(self._url, self._options)
            self.is_cluster = isinstance(client, RedisCluster)
            self.is_split |= self.is_cluster
            self._client = client
        # Outside the lock: while the server does not answer, threads had better not wait in line.
        with self.reporting():
            self._check_eviction(client)
        return client

    def _check_eviction(self, client: Any) -> None:
        """Warn when the server may drop our records to make room: a lost record is a lost guarantee."""
        if self._url.startswith("memory:"):
            return
        try:
            policy = client.config_get("maxmemory-policy").get("maxmemory-policy")
        except _DOWN:
            self._client = None  # look again when it is back
            raise
        except RedisError:  # managed servers forbid CONFIG; then we cannot know
            return
        if policy not in {None, "noeviction"}:
            logger.warning(
                "%s evicts keys (maxmemory-policy %s): records of celery-patterns may vanish and their "
                "guarantees with them; set it to noeviction",
                self.url,
                policy,
            )

    def _forget(self) -> None:
        """Start anew, as a child must after a fork."""
        if self._client is not None:
            # A cluster's client closes itself when it is collected, under a lock that a thread of the
            # parent may have held, and that nobody lets go here. Its sockets close themselves.
            self._client.close = lambda: None
        self._client = None
        self._lock = threading.Lock()


@lru_cache(maxsize=4096)
def tag(name: str) -> str:
    """A name as part of a key: without the characters that delimit names and hash tags."""
    return quote(name, safe="/ .,;@+-_!$&*()=[]<>~^|'\"#?")


_stores: WeakSet[Store] = WeakSet()
_of_app: WeakKeyDictionary[Celery, Store] = WeakKeyDictionary()
_of_app_lock = threading.Lock()


def store_of(app: Celery) -> Store:
    """The store of an app, by its settings at first use.

    Raises:
        PolicyError: No Redis is configured: neither ``patterns_url``, nor as result backend or broker.
    """
    if _override is not None:
        return _override
    store = _of_app.get(app)
    if store is None:
        with _of_app_lock:
            store = _of_app.get(app)
            if store is None:
                url, options = store_url(app)
                store = _of_app[app] = Store(url, _prefix(setting(app, "patterns_prefix", "cp")), options)
                if setting(app, "patterns_test_clock", False):
                    store.clock_key = f"{store.prefix}:clock"
    return store


def _prefix(value: object) -> str:
    if isinstance(value, str) and value and not set(value) & set("{}"):
        return value
    raise PolicyError(f"patterns_prefix={value!r}: give a text that is not empty and has no braces")


_override: Store | None = None


@contextmanager
def override_store(store: Store) -> Iterator[None]:
    """Give all apps of this process another store meanwhile; for tests."""
    global _override  # noqa: PLW0603 - one process, one test
    before, _override = _override, store
    try:
        yield
    finally:
        _override = before


def _after_fork() -> None:
    global _of_app_lock  # noqa: PLW0603 - the parent's lock may have been held when it forked
    _of_app_lock = threading.Lock()
    for store in list(_stores):
        store._forget()  # noqa: SLF001 - one module


os.register_at_fork(after_in_child=_after_fork)
