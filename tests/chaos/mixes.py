"""Tasks under any mix of policies, each given in any form and order; and what may happen to their calls."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from tenacity import stop_after_attempt, wait_fixed

from celery_patterns import (
    ConcurrencyLimit,
    ConcurrencyLimitedTask,
    DeadLetter,
    DeadLetterMixin,
    Idempotency,
    IdempotentTask,
    Policy,
    PolicyTask,
    RateLimits,
    RetryableTask,
    RetryPolicy,
    Singleton,
    SingletonTask,
    TokenBucket,
    TokenBucketTask,
    attach,
)
from tests.chaos.inline import Inline, nothing
from tests.chaos.terms import ALL, LEASE, OF_BRANCH, TTL, Flaky

BASES = {
    "dead_letter": DeadLetterMixin,
    "retry_policy": RetryableTask,
    "idempotency": IdempotentTask,
    "singleton": SingletonTask,
    "concurrency_limit": ConcurrencyLimitedTask,
    "token_bucket": TokenBucketTask,
}
PLACES = 2
ANY_NUMBER = 99

by_account = Singleton("account", scope="while_executing", on_conflict="defer", lease=LEASE)
from_publishing = Singleton("account", scope="until_executed", on_conflict="defer", lease=LEASE)
the_same_call = Singleton("order", scope="until_executed", on_conflict="use_existing", lease=LEASE)
until_it_begins = Singleton("account", scope="until_executing", on_conflict="defer", lease=LEASE)

POLICIES: dict[str, st.SearchStrategy[Policy]] = {
    "dead_letter": st.just(DeadLetter()),
    "retry_policy": st.just(RetryPolicy(Flaky, wait=wait_fixed(0.3), stop=stop_after_attempt(4))),
    "idempotency": st.just(Idempotency("order", ttl=TTL, lease=LEASE)),
    "singleton": st.sampled_from([by_account, from_publishing, the_same_call, until_it_begins]),
    "concurrency_limit": st.just(ConcurrencyLimit(PLACES, key="account", lease=LEASE)),
    "token_bucket": st.sampled_from(
        [ALL, RateLimits(ALL, OF_BRANCH), TokenBucket("5/s", burst=2, name="all")]
    ),
}


@dataclass(frozen=True)
class Mix:
    """Which policies a task has, and how it says so.

    Args:
        policies: By the names of their attributes, in the order in which they are given.
        forms: For each of them `base` (a mixin and a class attribute), `option` or `decorator`.
    """

    policies: dict[str, Policy]
    forms: dict[str, str]

    def declare(self, world: Inline, name: str) -> Any:
        """Declare such a task."""
        given = {form: [kind for kind in self.policies if self.forms[kind] == form] for form in FORMS}
        bases = (*(BASES[kind] for kind in given["base"]), PolicyTask)
        attributes = {kind: self.policies[kind] for kind in given["base"]}
        base = type("Mixed", bases, {"abstract": True, **attributes})
        task = world.declare(name, base, **{kind: self.policies[kind] for kind in given["option"]})
        for kind in given["decorator"]:
            attach(task, self.policies[kind])
        return task

    def account_of(self, order: int) -> str:
        """Which account an order is for: a shared one, where something keeps its holders apart."""
        shared = (
            self.policies.get("singleton") not in {None, the_same_call}
            or "concurrency_limit" in self.policies
        )
        return "ab"[order % 2] if shared else "abcdefgh"[order]

    @property
    def places(self) -> int:
        """How many bodies of one account may be at work at once."""
        singleton = self.policies.get("singleton")
        if singleton in {by_account, from_publishing} or self._keeps_orders_apart(singleton):
            return 1
        return PLACES if "concurrency_limit" in self.policies else ANY_NUMBER

    def _keeps_orders_apart(self, singleton: Policy | None) -> bool:
        alone = "concurrency_limit" not in self.policies
        return alone and (
            singleton is the_same_call or (singleton is None and "idempotency" in self.policies)
        )


FORMS = ("base", "option", "decorator")


@st.composite
def mixes(draw: st.DrawFn) -> Mix:
    """Any policies, in any order and form."""
    kinds = draw(st.permutations(sorted(BASES)))[: draw(st.integers(1, len(BASES)))]
    return Mix(
        {kind: draw(POLICIES[kind]) for kind in kinds}, {kind: draw(st.sampled_from(FORMS)) for kind in kinds}
    )


Step = Callable[[Inline, Mix, Any], None]

FATES = ("fine", "flaky", "fine", "declined", "fine", "hopeless")


def publish(number: int) -> Step:
    """Publish a call; orders have few numbers, so many are duplicates."""

    def step(world: Inline, mix: Mix, task: Any) -> None:
        world.publish(task, f"order-{number}", mix.account_of(number), FATES[number], number % 2)

    return step


def deliver(others: int) -> Step:
    """Deliver the next message, and others while its body is at work."""

    def step(world: Inline, _: Mix, __: Any) -> None:
        world.meanwhile = lambda: [world.deliver_next(due=True) for _ in range(others)] and None
        world.deliver_next()
        world.meanwhile = nothing

    return step


def deliver_again(which: int) -> Step:
    """Deliver one of the latest messages again, as a broker does that had no acknowledgement."""

    def step(world: Inline, _: Mix, __: Any) -> None:
        world.deliver_again(which)

    return step


def oversleep(number: int) -> Step:
    """Deliver the next message, and have its process stand still for longer than a lease, now or then."""

    def step(world: Inline, _: Mix, __: Any) -> None:
        def sleep() -> None:
            world.meanwhile = world.afterwards = nothing
            world.oversleep(2 * LEASE)
            world.deliver_next()

        world.meanwhile, world.afterwards = (sleep, nothing) if number % 2 else (nothing, sleep)
        world.deliver_next()
        world.meanwhile = world.afterwards = nothing

    return step


steps = st.one_of(
    st.builds(publish, st.integers(0, len(FATES) - 1)),
    st.builds(publish, st.integers(0, len(FATES) - 1)),
    st.builds(deliver, st.integers(0, 3)),
    st.builds(deliver, st.integers(0, 3)),
    st.builds(deliver_again, st.integers(0, 3)),
    st.builds(oversleep, st.integers(0, 1)),
)
