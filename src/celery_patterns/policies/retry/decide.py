"""Whether a failed attempt is followed by another, and when: a function of values.

tenacity's objects ask a ``RetryCallState``. In-process tenacity keeps one for the whole loop; here
each attempt runs in whatever process takes it, so the state is made anew from what the message
carries: the number of the attempt, the seconds since the first one began, the seconds slept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tenacity import Future, RetryCallState, Retrying

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An attempt that failed.

    Args:
        error: With what.
        attempt: Which attempt it was; the first is 1.
        elapsed: Seconds since the first attempt began.
        slept: Seconds of these in which nothing ran, as planned.
    """

    error: BaseException
    attempt: int
    elapsed: float
    slept: float


class Again(NamedTuple):
    """Another attempt after ``delay`` seconds."""

    delay: float


class GiveUp(NamedTuple):
    """No other attempt, and why."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decides.

    Args:
        retry: tenacity's predicate.
        wait: tenacity's wait.
        stop: tenacity's stop.
        floor: The delay that an error asks for at least; 0 for none.
        deadline: Seconds after the first attempt began at which no other may begin.
    """

    retry: Callable[[RetryCallState], bool]
    wait: Callable[[RetryCallState], float]
    stop: Callable[[RetryCallState], bool]
    floor: Callable[[BaseException], float]
    deadline: float


def decide(
    rules: Rules, failure: Failure, *, fn: Any = None, args: Any = (), kwargs: Any = None
) -> Again | GiveUp:
    """What follows a failure; in the order in which tenacity asks: predicate, wait, stop.

    Args:
        rules: What decides.
        failure: What happened.
        fn: The body, for predicates that look at it.
        args: Its arguments, likewise.
        kwargs: Its keyword arguments, likewise.
    """
    state = _state(rules, failure, fn, args, kwargs or {})
    if not rules.retry(state):
        return GiveUp("not among the errors that are retried")
    delay = max(float(rules.wait(state)), rules.floor(failure.error))
    state.upcoming_sleep = delay
    if rules.stop(state):
        return GiveUp(f"stopped after {failure.attempt} attempts in {failure.elapsed:.0f} s")
    if failure.elapsed + delay > rules.deadline:
        return GiveUp(f"the next attempt would begin after the deadline of {rules.deadline:g} s")
    return Again(delay)


def _state(rules: Rules, failure: Failure, fn: Any, args: Any, kwargs: Any) -> RetryCallState:
    retrying: Any = Retrying(wait=rules.wait, stop=rules.stop, retry=rules.retry)
    state = RetryCallState(retrying, fn, args, kwargs)
    state.attempt_number = failure.attempt
    state.idle_for = failure.slept
    outcome = Future(failure.attempt)
    outcome.set_exception(failure.error)
    state.outcome = outcome
    state.start_time, state.outcome_timestamp = 0.0, failure.elapsed  # only their difference has a meaning
    return state
