"""Rate limits as values: one limit, several at once, and what each demands of a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from itertools import chain, count
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from celery.app.task import Task
from celery.local import PromiseProxy, Proxy

from celery_patterns.core.durations import Seconds, one_of, seconds
from celery_patterns.core.keys import KeySpec, check_key
from celery_patterns.core.parking import hand_in
from celery_patterns.core.policy import Call, Policy, Publish, Run
from celery_patterns.core.task import as_decorator
from celery_patterns.errors import KeyArgumentError, PolicyError, RateLimitExceeded
from celery_patterns.policies.rate_limits.buckets import KIND, Bucket, Demand
from celery_patterns.policies.rate_limits.look import Look, look_at
from celery_patterns.policies.rate_limits.rate import Rate
from celery_patterns.policies.rate_limits.start import Start, spot_of
from celery_patterns.waiting.gate import through_gate

if TYPE_CHECKING:
    from celery.result import AsyncResult

    from celery_patterns.core.script import Ask

Cost = int | str | Callable[..., int]


class Limits(Policy):
    """What one limit and several have in common: they are asked together, when the task starts."""

    __slots__ = ()

    kind: ClassVar[str] = KIND
    order: ClassVar[int] = 70
    remedy: ClassVar[str] = "use RateLimits(a, b): several limits in one policy, all or nothing"

    @property
    def limits(self) -> tuple[TokenBucket, ...]:
        """The limits."""
        raise NotImplementedError

    def specs(self) -> tuple[KeySpec, ...]:
        """The keys, whose turn it is, and the costs that are arguments."""
        found = [limit.key for limit in self.limits if limit.key is not None]
        found += [limit.fair_by for limit in self.limits if limit.fair_by is not None]
        return (*found, *(limit.cost for limit in self.limits if not isinstance(limit.cost, int)))

    def demands(self, name: str, look: Look) -> tuple[Demand, ...]:
        """What a call demands of each limit.

        Args:
            name: The name of limits that have none of their own.
            look: Sees the arguments of the call.

        Raises:
            KeyArgumentError: An argument cannot be part of a key, or is no cost.
            RateLimitExceeded: It costs more than a bucket holds.
        """
        names = names_of(self.limits, name)
        return tuple(limit.demand(one, look) for one, limit in zip(names, self.limits, strict=True))

    def publish(self, call: Call, proceed: Publish) -> AsyncResult[Any]:
        """Refuse a call whose key or cost cannot be made, where the caller can still mend it.

        One that would have to wait is parked at once, instead of when it reaches a worker.
        """
        demands = self.demands(call.name, look_at(call))
        if any(limit.on_limited != "defer" or limit.max_wait is not None for limit in self.limits):
            return proceed(call)  # it is to be told at once that it may not start
        return through_gate(call, spot_of(call, self.limits, demands), proceed)

    def run(self, call: Call, proceed: Run) -> Any:
        """Run the body if all limits let it pass; else do as ``on_limited`` of the longest one says."""
        return (call.kept.pop(KIND, None) or self._start(call)).run(proceed)

    def entering(self, call: Call) -> Ask[Any] | None:
        """Whether all limits let it pass."""
        start = call.kept[KIND] = self._start(call)
        return start.entering()

    def _start(self, call: Call) -> Start:
        return Start(call, self.limits, self.demands(call.name, look_at(call)))

    def passed_over(self, call: Call, outcome: BaseException | None) -> None:  # noqa: ARG002 - as it is called
        """The call was answered, or put off, further out: its ticket is another's now."""
        hand_in(call)


@dataclass(frozen=True, slots=True)
class TokenBucket(Limits):
    """At most ``rate`` in the long run, and ``burst`` at once, over all workers.

    In any window of time of length ``w``, at most ``rate * w + burst`` calls start. Use it for a
    service that sells so many calls a second. To bound how many run at the same time, use a
    concurrency limit.

    Args:
        rate: ``"25/s"``, ``"100/m"``, ``"1000/h"``, ``"5/10s"``, or :class:`Rate`.
        burst: How many may start at once after a pause; 1 spaces them out evenly.
        key: Which calls share a bucket, such as ``"tenant"``: each key has a bucket of its own.
            Default: all calls share one. See :mod:`celery_patterns.core.keys`.
        name: Which limit; default: the task's name. Tasks with one name share the limit.
        cost: How many tokens a call takes: a number, the name of an argument that says it, or a
            callable of arguments.
        strict: Never more than the rate's count in any window of the rate's own period, however
            large the burst. It remembers the time of each of these calls.
        fair_by: Whose turn it is among those who wait, such as ``"tenant"``: with 100,000 calls of one
            tenant waiting, another one's first is next but one. All share one bucket. Write it on all
            tasks that share the limit.
        max_wait: A call that would wait for longer than so many seconds, or a ``timedelta``, fails
            at once with :class:`~celery_patterns.errors.RateLimitExceeded`. Default: it waits.
        on_limited: What a call does that may not start now: ``"defer"`` waits its time out, outside
            of the worker's slots and without using up a retry; ``"skip"`` ends with ``None`` (and
            waits in a canvas); ``"raise"`` fails with ``RateLimitExceeded``.
        on_store_error: What a call does when the store is out of reach: ``"defer"``, ``"raise"``
            :class:`~celery_patterns.errors.StoreUnavailable`, or ``"allow"``: run unlimited.

    Raises:
        PolicyError: An option is out of range; said when declared.
    """

    rate: Rate | str
    _: KW_ONLY
    burst: int = 1
    key: KeySpec | None = None
    name: str | None = None
    cost: Cost = 1
    strict: bool = False
    fair_by: KeySpec | None = None
    max_wait: Seconds | None = None
    on_limited: Literal["defer", "skip", "raise"] = "defer"
    on_store_error: Literal["defer", "raise", "allow"] = "defer"

    def __post_init__(self) -> None:
        written: object = self.rate
        if type(written) in {Proxy, PromiseProxy} or isinstance(written, Task):
            raise PolicyError('@token_bucket needs to know the rate: write @token_bucket("25/s")')
        object.__setattr__(self, "rate", Rate.of(written))
        for option, spec in (("key", self.key), ("fair_by", self.fair_by)):
            if spec is not None:
                check_key(spec, option)
        if self.name is not None and (not isinstance(self.name, str) or not self.name):
            raise PolicyError(f"name={self.name!r}: give a string that is not empty")
        if not isinstance(self.strict, bool):
            raise PolicyError(f"strict={self.strict!r}: give True or False")
        _check_whole("burst", self.burst)
        self._check_cost()
        self._check_countable()
        if self.max_wait is not None:
            object.__setattr__(self, "max_wait", seconds("max_wait", self.max_wait, least=0))
        one_of("on_limited", self.on_limited, ("defer", "skip", "raise"))
        one_of("on_store_error", self.on_store_error, ("defer", "raise", "allow"))

    def _check_cost(self) -> None:
        if isinstance(self.cost, int):
            _check_whole("cost", self.cost)
            if self.cost > self.burst:
                raise PolicyError(
                    f"cost={self.cost} is more than burst={self.burst} ever holds: raise the burst"
                )
        else:
            check_key(self.cost, "cost")

    def _check_countable(self) -> None:
        rate = cast("Rate", self.rate)
        if self.strict and self.burst > rate.count:
            raise PolicyError(
                f"burst={self.burst} at once is more than strict=True lets pass in {rate.per:g} s: "
                f"give at most {rate.count}, or a longer period"
            )
        rate.check_countable(self.burst, strict=self.strict)

    @property
    def limits(self) -> tuple[TokenBucket, ...]:
        """This one."""
        return (self,)

    def demand(self, name: str, look: Look) -> Demand:
        """What a call demands of this limit, which is called ``name`` there."""
        key = "" if self.key is None else look.key(self.key)
        cost = self.cost if isinstance(self.cost, int) else self._cost(look)
        return Demand(Bucket(name, key), cast("Rate", self.rate), self.burst, cost, self.strict)

    def _cost(self, look: Look) -> int:
        cost = look.value(cast("KeySpec", self.cost))
        if isinstance(cost, bool) or not isinstance(cost, int) or cost < 0:
            raise KeyArgumentError(
                f"{look.task}: cost={self.cost!r} is {cost!r}: a cost is a whole number, 0 or more"
            )
        if cost > self.burst:
            raise RateLimitExceeded(f"{look.task}: costs {cost}, more than burst={self.burst} ever holds")
        return cost


@dataclass(frozen=True, slots=True, init=False, repr=False)
class RateLimits(Limits):
    """Several limits at once: a call takes tokens from all of them, or from none.

    When one of them denies, the others have spent nothing. What a denied call does is said by the
    limit for which it would wait longest.

    Args:
        limits: Each with a name of its own; those without one are named after the task.

    Raises:
        PolicyError: Fewer than one, two with the same name, or they disagree about ``on_store_error``.
    """

    _limits: tuple[TokenBucket, ...]

    def __init__(self, *limits: TokenBucket) -> None:
        for limit in limits:
            if not isinstance(limit, TokenBucket):
                raise PolicyError(f"RateLimits({limit!r}): give TokenBucket values")
        names = [limit.name for limit in limits if limit.name]
        if not limits or len(set(names)) < len(names):
            raise PolicyError(f"RateLimits{limits!r}: give one limit or more, each with a name of its own")
        if len({limit.on_store_error for limit in limits}) > 1:
            raise PolicyError("RateLimits: on_store_error differs; they are asked together, so give one")
        object.__setattr__(self, "_limits", limits)

    def __repr__(self) -> str:
        return f"RateLimits({', '.join(map(repr, self._limits))})"

    @property
    def limits(self) -> tuple[TokenBucket, ...]:
        """The limits, in the order given."""
        return self._limits


def names_of(limits: tuple[TokenBucket, ...], task: str) -> list[str]:
    """The names of limits; those without one are called like the task, from the second on with a number."""
    taken = {limit.name for limit in limits}
    free = (name for name in chain([task], (f"{task}#{number}" for number in count(2))) if name not in taken)
    return [limit.name or next(free) for limit in limits]


def _check_whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PolicyError(f"{name}={value!r}: give a whole number, 1 or more")


token_bucket = as_decorator(TokenBucket)
rate_limits = as_decorator(RateLimits)
