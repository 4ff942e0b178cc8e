"""Short plays without processes, in which each mechanism is needed: if one of them is broken, it shows."""

from collections.abc import Callable
from typing import Any

from celery_patterns import (
    ConcurrencyLimit,
    ConcurrencyLimitedTask,
    DeadLetterMixin,
    IdempotentTask,
    RateLimits,
    RetryableTask,
    TokenBucket,
    TokenBucketTask,
)
from tests.chaos.inline import Inline, nothing
from tests.chaos.terms import LEASE, POLICIES


class Unlocked(DeadLetterMixin, RetryableTask, IdempotentTask, TokenBucketTask):
    """Everything but a singleton."""

    abstract = True
    dead_letter = POLICIES["dead_letter"]
    retry_policy = POLICIES["retry_policy"]
    idempotency = POLICIES["idempotency"]
    token_bucket = POLICIES["token_bucket"]


def rush(world: Inline) -> None:
    """Duplicates and rivals arrive while bodies are at work; some calls fail, for a while or for good."""
    pay = world.declare("pay")
    world.meanwhile = lambda: [world.deliver_next(due=True) for _ in range(3)]
    for number, fate in enumerate(("fine", "flaky", "fine", "declined", "hopeless", "fine")):
        for _ in range(2):
            world.publish(pay, f"order-{number}", "ab"[number % 2], fate)
    while world.deliver_next():
        pass
    for number in range(3):
        world.publish(pay, f"order-{number}", "ab"[number % 2], ("fine", "flaky")[number == 1])


class Crowded(DeadLetterMixin, RetryableTask, IdempotentTask, ConcurrencyLimitedTask):
    """Some may be at work at once, and no more."""

    abstract = True
    dead_letter = POLICIES["dead_letter"]
    retry_policy = POLICIES["retry_policy"]
    idempotency = POLICIES["idempotency"]
    concurrency_limit = ConcurrencyLimit(2, key="account", lease=LEASE)


class Lethal(DeadLetterMixin, IdempotentTask):
    """Nothing keeps it from beginning again."""

    abstract = True
    dead_letter = POLICIES["dead_letter"]
    idempotency = POLICIES["idempotency"]


def crowd(world: Inline) -> None:
    """More arrive than may be at work at once, while others are."""
    pay = world.declare("pay", Crowded)
    world.bind(POLICIES, places=2)
    world.meanwhile = lambda: [world.deliver_next(due=True) for _ in range(3)]
    for number in range(6):
        world.publish(pay, f"order-{number}")
    while world.deliver_next():
        pass


def lethal(world: Inline) -> None:
    """A task kills its process whenever it begins, and is delivered again each time."""
    pay = world.declare("pay", Lethal)
    world.publish(pay, "order-1")
    world.meanwhile = world.die
    world.deliver_next()
    for _ in range(8):
        world.deliver_again(0)
        while world.deliver_next():
            pass


def twins(world: Inline) -> None:
    """Duplicates arrive while the first one is at work, and nothing but idempotency keeps them apart."""
    pay = world.declare("pay", Unlocked)
    world.meanwhile = lambda: world.deliver_next(due=True)
    for number in range(3):
        for _ in range(3):
            world.publish(pay, f"order-{number}", "abc"[number])
    while world.deliver_next():
        pass


def overslept(world: Inline) -> None:
    """A holder stands still after its effect; a duplicate takes over and ends; then it wakes up, and ends."""
    pay = world.declare("pay")

    def takeover() -> None:
        world.afterwards = nothing
        world.oversleep(2 * LEASE)
        world.deliver_next()

    world.publish(pay, "order-1")
    world.publish(pay, "order-1")
    world.afterwards = takeover
    world.deliver_next()
    world.publish(pay, "order-1")


def succeeded(world: Inline) -> None:
    """A holder stands still for longer than its lease, and dies while its successor works; a third comes."""
    pay = world.declare("pay")
    for number in range(3):
        world.publish(pay, f"order-{number}")

    def of_the_first() -> None:
        request = pay.request_stack.top
        world.meanwhile = lambda: of_the_second(request)
        world.oversleep(2 * LEASE)
        world.deliver_next()

    def of_the_second(request_of_the_first: Any) -> None:
        world.meanwhile = nothing
        pay.__patterns__.lost(request_of_the_first, 0.0)
        world.deliver_next()

    world.meanwhile = of_the_first
    world.deliver_next()


def handed_on(world: Inline) -> None:
    """A task has handed its result on when its message is delivered again."""
    pay = world.declare("pay")
    for number in range(3):
        world.publish(pay, f"order-{number}", follow=True)
        world.deliver_next()
        world.deliver_again(0)


def burst(world: Inline) -> None:
    """Many calls at once, more than their limits let pass in seconds, however slow the machine."""
    limits = RateLimits(
        TokenBucket("4/s", burst=5, name="all"),
        TokenBucket("3/s", burst=3, key="branch", name="branch", strict=True),
    )
    pay = world.declare("pay", token_bucket=limits)
    world.bind({**POLICIES, "token_bucket": limits})
    for number in range(30):
        world.publish(pay, f"order-{number}", "abcdefgh"[number % 8], branch=number % 2)


SCENARIOS: dict[str, Callable[[Inline], None]] = {
    "rush": rush,
    "crowd": crowd,
    "lethal": lethal,
    "twins": twins,
    "overslept": overslept,
    "succeeded": succeeded,
    "handed on": handed_on,
    "burst": burst,
}
