"""Rate limits for code that is not a task: a web request, a script, a loop inside a task."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery.app import app_or_default

from celery_patterns.core.durations import Seconds, seconds
from celery_patterns.core.store import store_of
from celery_patterns.errors import PolicyError, RateLimitExceeded, StoreUnavailable
from celery_patterns.policies.rate_limits.buckets import LONGEST_PAUSE, Granted
from celery_patterns.policies.rate_limits.look import Look, look_outside
from celery_patterns.policies.rate_limits.policy import Limits
from celery_patterns.policies.rate_limits.start import take

if TYPE_CHECKING:
    from celery import Celery

_WHO = "acquire()"


@dataclass(frozen=True, slots=True)
class Answer:
    """What :func:`acquire` found; true when the tokens were taken.

    Args:
        wait: Seconds until the limits would let the caller pass, if nobody else came; 0 when they did.
        limit: The limit and key that takes longest; ``None`` when they did.
    """

    wait: float = 0.0
    limit: str | None = None

    def __bool__(self) -> bool:
        return self.limit is None


def acquire(
    limit: Limits,
    arguments: Mapping[str, Any] | None = None,
    *,
    timeout: Seconds | None = None,
    app: Celery | None = None,
) -> Answer:
    """Take tokens for something that is not a task.

    It shares its limit with the tasks that have one of the same name. It asks once and returns the
    answer, or with ``timeout`` sleeps until it may pass. Begin what the tokens are for at once: the
    start counts at the time of the grant.

    Args:
        limit: A :class:`TokenBucket` or :class:`RateLimits`, with names; ``max_wait`` and ``on_limited``
            have no meaning here.
        arguments: What keys and costs are made of, by name, as if a task had been called with them.
        timeout: Seconds, or a ``timedelta``, that it may sleep.
        app: Whose store; default: the current app.

    Raises:
        RateLimitExceeded: It would have to sleep for longer than ``timeout``; said without sleeping.
        StoreUnavailable: The store is out of reach, and ``on_store_error`` is not ``"allow"``.
        PolicyError: A limit has no name, an argument that a key names is missing, or ``timeout`` is none.
        KeyArgumentError: An argument cannot be part of a key, or is no cost.

    Example:
        >>> stripe = TokenBucket("25/s", burst=100, key="account", name="stripe")
        >>> with memory_store():
        ...     bool(acquire(stripe, {"account": "eu"}))
        True
    """
    the_app = app_or_default(app)
    longest = None if timeout is None else seconds("timeout", timeout, least=0)
    look = _look(limit, {} if arguments is None else arguments, the_app)
    demands = [one for one in limit.demands(_WHO, look) if one.cost]
    deadline = time.monotonic() + (longest or 0.0)
    while demands:
        try:
            answer = take(store_of(the_app), demands)
        except StoreUnavailable:
            if limit.limits[0].on_store_error == "allow":
                break
            raise
        if isinstance(answer, Granted):
            break
        bucket = str(demands[answer.which].bucket)
        if longest is None:
            return Answer(answer.wait, bucket)
        if time.monotonic() + answer.wait > deadline:
            raise RateLimitExceeded(
                f"limit {bucket}: {answer.wait:.6f} s to wait, and timeout is {longest:g} s", answer.wait
            )
        time.sleep(min(answer.wait, LONGEST_PAUSE))
    return Answer()


def _look(limit: Limits, arguments: Mapping[str, Any], app: Celery) -> Look:
    if not isinstance(limit, Limits):
        raise PolicyError(f"acquire({limit!r}): give a TokenBucket or RateLimits")
    if not isinstance(arguments, Mapping):
        raise PolicyError(f"arguments={arguments!r}: give them by name, such as {{'tenant': 'eu'}}")
    if any(one.name is None for one in limit.limits):
        raise PolicyError(f"{limit!r}: a limit outside of a task needs a name")
    return look_outside(_WHO, arguments, app)
