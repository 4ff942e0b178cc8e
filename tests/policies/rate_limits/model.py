"""What the scripts of rate limits are meant to do: k buckets in whole numbers, without a server."""

from dataclasses import dataclass, field
from fractions import Fraction

from celery_patterns.policies.rate_limits.buckets import Bucket, Demand

Outcome = tuple[str, int] | tuple[str, int, int]


@dataclass
class Held:
    """A bucket: it is full again at tat + frac/n; debts count in 1/n us, where a token is `per`."""

    tat: int
    frac: int
    n: int
    per: int
    closed: int = 0

    def debt(self, now: int) -> int:
        """What it lacks."""
        return max(0, (self.tat - now) * self.n + self.frac)


@dataclass
class Steered:
    """What is set at run time for a name."""

    rate: tuple[int, int] | None = None
    burst: int | None = None
    closed: int = 0


@dataclass
class Model:
    """All limits of a store, at the time `now` in microseconds."""

    now: int
    held: dict[Bucket, Held] = field(default_factory=dict)
    logs: dict[Bucket, list[int]] = field(default_factory=dict)
    steered: dict[str, Steered] = field(default_factory=dict)
    factor: Fraction = Fraction(1)

    def ask(self, demands: list[Demand]) -> Outcome:
        """The expected answer; tokens are taken if it is "granted"."""
        asked = [self._one(demand) for demand in demands]
        waits = [wait for wait, _, _ in asked]
        if max(waits) > 0:
            return "wait", max(waits), waits.index(max(waits))
        for demand, (_, held, count) in zip(demands, asked, strict=True):
            debt = held.debt(self.now) + demand.cost * held.per
            self.held[demand.bucket] = Held(self.now + debt // held.n, debt % held.n, held.n, held.per)
            if count is not None:
                log = [self.now] * demand.cost + self.logs.get(demand.bucket, [])
                self.logs[demand.bucket] = log[:count]
        return "granted", self.now

    def _one(self, demand: Demand) -> tuple[int, Held, int | None]:
        """The wait for one limit, its bucket at the present rate, and how long its log may get."""
        strict = demand.strict and demand.burst > 1
        n, per = (demand.rate.count, demand.rate.per_us) if strict else demand.rate.lowest_terms
        steered = self.steered.get(demand.bucket.name, Steered())
        n, per = steered.rate or (n, per)
        burst = max(steered.burst, demand.cost) if steered.burst else demand.burst
        wait, count = max(0, steered.closed - self.now), None
        if strict:
            count = max(demand.cost, int(n * self.factor))
            log = self.logs.get(demand.bucket, [])
            if len(log) > count - demand.cost:
                wait = max(wait, log[count - demand.cost] + per - self.now)
        n, per = n * self.factor.numerator, per * self.factor.denominator
        held = self.held.get(demand.bucket) or Held(self.now, 0, n, per)
        if held.debt(self.now) and (held.n, held.per) != (n, per):
            debt = -(-held.debt(self.now) * per // held.per) + 2
            self.held[demand.bucket] = held = Held(self.now + debt // n, debt % n, n, per, held.closed)
        elif not held.debt(self.now):
            held = Held(self.now, 0, n, per, held.closed)
        wait = max(
            wait, held.closed - self.now, -(-(held.debt(self.now) + demand.cost * per - burst * per) // n)
        )
        return wait, held, count

    def close(self, bucket: Bucket, for_us: int) -> None:
        """Somebody was told to come back later."""
        held = self.held.setdefault(bucket, Held(0, 0, 1, 1))
        held.closed = max(held.closed, self.now + for_us) if for_us else 0
