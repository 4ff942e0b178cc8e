"""What operators see of limits: what is declared, what is set at run time, what the buckets hold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from celery_patterns.core.install import seam_of
from celery_patterns.core.store import store_of
from celery_patterns.policies.rate_limits.buckets import buckets_in_use, waiting
from celery_patterns.policies.rate_limits.policy import Limits, names_of
from celery_patterns.policies.rate_limits.rate import Rate
from celery_patterns.policies.rate_limits.steering import Steered, steering_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

    from celery import Celery

    from celery_patterns.core.store import Store
    from celery_patterns.policies.rate_limits.buckets import Bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketStatus:
    """One bucket.

    Args:
        key: The key, as events show it; empty where the limit has none.
        tokens: How many calls of cost 1 could start now.
        waiting: How many calls wait for it.
        penalty: Seconds for which it is closed.
    """

    key: str
    tokens: float
    waiting: int
    penalty: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStatus:
    """One limit.

    Args:
        name: Its name.
        rate: The rate at which its buckets fill now; ``None`` when nobody knows.
        burst: How many tokens a bucket holds; ``None`` when nobody knows.
        declared: The rate that a task of this app declares; ``None`` where none does.
        penalty: Seconds for which all its buckets are closed.
        tasks: The tasks of this app that it limits.
        buckets: Those that are not full, fewest tokens first.
    """

    name: str
    rate: str | None
    burst: int | None
    declared: str | None
    penalty: float
    tasks: tuple[str, ...]
    buckets: tuple[BucketStatus, ...]

    @property
    def waiting(self) -> int:
        """How many calls wait for its buckets."""
        return sum(bucket.waiting for bucket in self.buckets)


@dataclass(slots=True)
class _Declared:
    """What the tasks of an app say of a limit."""

    rate: Rate | None = None
    burst: int | None = None
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _State:
    """The state of one bucket in Redis."""

    bucket: Bucket
    full_at: float
    closed: float
    rate: Rate | None
    burst: int | None
    waiting: int
    log: Sequence[float]


def survey(app: Celery, name: str | None = None) -> list[LimitStatus]:
    """All limits that tasks declare, that are steered, or whose buckets are in use; or one of them.

    It looks through the keys of the server: for people, not for each request.

    Raises:
        StoreUnavailable: The store is out of reach.
    """
    store = store_of(app)
    declared, (factor, steered) = _declared(app), steering_of(store)
    now = store.now()
    states = [_read(store, bucket, now) for bucket in buckets_in_use(store, name)]
    found = []
    for one in sorted({*declared, *steered, *(state.bucket.name for state in states)}):
        if name in {None, one}:
            own = [state for state in states if state.bucket.name == one]
            said, changed = declared.get(one, _Declared()), steered.get(one, Steered())
            found.append(_status(one, said, _times(changed, said, factor), own, now))
    return found


def _times(changed: Steered, said: _Declared, factor: Fraction) -> Steered:
    """What is set for a name, with the rate that follows from the factor."""
    rate = changed.rate or said.rate
    if rate is None:
        return changed
    return replace(changed, rate=Rate(rate.count * factor.numerator, per=rate.per * factor.denominator))


def _declared(app: Celery) -> dict[str, _Declared]:
    found: dict[str, _Declared] = {}
    for task in app.tasks.values():
        seam = seam_of(task)
        policies = [one for one in (seam.policies if seam else ()) if isinstance(one, Limits)]
        for policy in policies:
            for name, limit in zip(names_of(policy.limits, task.name), policy.limits, strict=True):
                one = found.setdefault(name, _Declared(Rate.of(limit.rate), limit.burst))
                one.tasks = (*one.tasks, task.name)
    return found


def _read(store: Store, bucket: Bucket, now: float) -> _State:
    with store.reporting():
        client = store.client
        value = client.get(bucket.redis_key(store))
        log = [int(at) / 1e6 for at in client.lrange(bucket.log_key(store), 0, -1)]
    tat, frac, closed, n, per, burst = map(int, value.split()) if value else (0, 0, 0, 1, 1, 0)
    rate = Rate(n, per=per / 1e6) if burst else None
    line = waiting(store, bucket, now)
    return _State(bucket, (tat + frac / n) / 1e6, closed / 1e6, rate, burst or None, line, log)


def _status(name: str, said: _Declared, changed: Steered, states: list[_State], now: float) -> LimitStatus:
    last = states[0] if states else None
    rate = changed.rate or (last.rate if last else None)
    burst = changed.burst or said.burst or (last.burst if last else None)
    buckets = [_bucket_status(state, rate, burst, now) for state in states]
    return LimitStatus(
        name=name,
        rate=rate.readable() if rate else None,
        burst=burst,
        declared=said.rate.readable() if said.rate else None,
        penalty=max(0.0, changed.closed - now),
        tasks=said.tasks,
        buckets=tuple(sorted(buckets, key=lambda one: (one.tokens, one.key))),
    )


def _bucket_status(state: _State, rate: Rate | None, burst: int | None, now: float) -> BucketStatus:
    holds = float(burst or 0)
    if state.rate is not None:
        holds -= max(0.0, state.full_at - now) * state.rate.count / state.rate.per
    if state.log and rate is not None:
        holds = min(holds, rate.count - sum(at > now - rate.per for at in state.log))
    penalty = max(0.0, state.closed - now)
    return BucketStatus(key=state.bucket.key, tokens=max(0.0, holds), waiting=state.waiting, penalty=penalty)
