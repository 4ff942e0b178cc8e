"""Locks and idempotency of other libraries, as their documentation uses them, where they are installed."""

# ruff: noqa: PLC0415 - what is not installed is left out

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    from collections.abc import Callable

    Actions = dict[str, Callable[[], object]]


def other_locks(url: str) -> tuple[Actions, list[str]]:
    """Taking a lock and giving it back; and which libraries are not installed."""
    return _installed(url, {"redis-py": _redis, "celery-once": _once, "celery-singleton": _singleton})


def other_records(url: str) -> tuple[Actions, list[str]]:
    """The first run of a key, and its replay; and which libraries are not installed."""
    return _installed(url, {"aws-lambda-powertools": _powertools})


def _installed(url: str, peers: dict[str, Callable[[str], Actions]]) -> tuple[Actions, list[str]]:
    found: Actions = {}
    missing = []
    for name, make in peers.items():
        try:
            found |= make(url)
        except ImportError:
            missing.append(name)
    return found, missing


def _redis(url: str) -> Actions:
    client = redis.Redis.from_url(url)

    def lock_and_release() -> None:
        lock = client.lock("peer:redis", timeout=60)
        assert lock.acquire(blocking=False)
        lock.release()

    return {"redis-py Lock, acquire + release": lock_and_release}


def _once(url: str) -> Actions:
    from celery_once.backends import redis as once

    once.redis = redis.Redis.from_url(url)  # it keeps one client for the process, of the first URL
    backend = once.Redis({"url": url})
    once.redis = None

    def lock_and_clear() -> None:
        backend.raise_or_lock("peer:once", timeout=3_600)
        backend.clear_lock("peer:once")

    return {"celery-once, raise_or_lock + clear_lock": lock_and_clear}


def _singleton(url: str) -> Actions:
    from celery_singleton.backends.redis import RedisBackend

    backend = RedisBackend(url)

    def lock_and_unlock() -> None:
        assert backend.lock("peer:singleton", "task-1")
        backend.unlock("peer:singleton")

    return {"celery-singleton, lock + unlock": lock_and_unlock}


def _powertools(url: str) -> Actions:
    from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig, idempotent_function
    from aws_lambda_powertools.utilities.idempotency.persistence.redis import RedisCachePersistenceLayer

    client = redis.Redis.from_url(url, decode_responses=True)
    numbers = itertools.count(1)

    @idempotent_function(
        data_keyword_argument="order",
        persistence_store=RedisCachePersistenceLayer(client=client),
        config=IdempotencyConfig(expires_after_seconds=86_400),
    )
    def charge(order: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - its key is made of it
        return {"charged": True, "amount": 12.5}

    charge(order={"id": 0})
    return {
        "aws-lambda-powertools, first run": lambda: charge(order={"id": next(numbers)}),
        "aws-lambda-powertools, replay": lambda: charge(order={"id": 0}),
    }
