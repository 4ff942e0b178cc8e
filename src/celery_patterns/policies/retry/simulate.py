"""What delays a policy would give, before a real outage shows it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from celery_patterns.policies.retry.decide import Again, Failure, decide

if TYPE_CHECKING:
    from celery_patterns.policies.retry.policy import RetryPolicy

MOST_ATTEMPTS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The wait after one attempt, over all simulated calls that came so far; in seconds.

    Args:
        attempt: After which attempt.
        calls: How many of the calls went on after it.
        lowest: The shortest wait.
        middle: The median.
        highest: The longest.
        elapsed: The median of the time since the first attempt began, at the end of the wait.
    """

    attempt: int
    calls: int
    lowest: float
    middle: float
    highest: float
    elapsed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What :func:`simulate` found; ``print`` it.

    Args:
        steps: One for each wait.
        calls: How many calls were simulated.
        ends: Why they gave up, and how many of them.
    """

    steps: tuple[Step, ...]
    calls: int
    ends: dict[str, int]

    def __str__(self) -> str:
        lines = ["attempt  calls   lowest   median  highest   since start"]
        lines += [
            f"{one.attempt:>7}  {one.calls:>5}  {one.lowest:>7.1f}  {one.middle:>7.1f}  {one.highest:>7.1f}"
            f"  {one.elapsed:>11.1f}"
            for one in self.steps
        ]
        return "\n".join([*lines, *(f"{count} calls: {why}" for why, count in self.ends.items())])


def simulate(
    policy: RetryPolicy, error: BaseException | None = None, *, took: float = 0.0, calls: int = 200
) -> Simulation:
    """The delays that a policy would give to calls that always fail. Nothing runs, and no budget is spent.

    Args:
        policy: The policy.
        error: With what they fail; default: the first class of ``on``.
        took: Seconds that each attempt takes.
        calls: How many calls to simulate; one shows nothing of a wait with jitter.

    Example:
        >>> from tenacity import stop_after_attempt, wait_fixed
        >>> from celery_patterns import RetryPolicy, simulate
        >>> print(simulate(RetryPolicy(OSError, wait=wait_fixed(2), stop=stop_after_attempt(3)), calls=1))
        attempt  calls   lowest   median  highest   since start
              1      1      2.0      2.0      2.0          2.0
              2      1      2.0      2.0      2.0          4.0
        1 calls: stopped after 3 attempts in 4 s
    """
    failing = error if error is not None else _one_of(policy)
    waits: list[list[tuple[float, float]]] = []
    ends: dict[str, int] = {}
    for _ in range(calls):
        elapsed = slept = 0.0
        for attempt in range(1, MOST_ATTEMPTS + 1):
            elapsed += took
            failure = Failure(error=failing, attempt=attempt, elapsed=elapsed, slept=slept)
            decision = decide(policy.rules, failure)
            if not isinstance(decision, Again):
                ends[decision.why] = ends.get(decision.why, 0) + 1
                break
            elapsed, slept = elapsed + decision.delay, slept + decision.delay
            if len(waits) < attempt:
                waits.append([])
            waits[attempt - 1].append((decision.delay, elapsed))
        else:
            why = f"still going on after {MOST_ATTEMPTS} attempts"
            ends[why] = ends.get(why, 0) + 1
    steps = tuple(_step(attempt, found) for attempt, found in enumerate(waits, 1))
    return Simulation(steps=steps, calls=calls, ends=ends)


def _step(attempt: int, found: list[tuple[float, float]]) -> Step:
    delays = [delay for delay, _ in found]
    return Step(
        attempt=attempt,
        calls=len(found),
        lowest=min(delays),
        middle=median(delays),
        highest=max(delays),
        elapsed=median(elapsed for _, elapsed in found),
    )


def _one_of(policy: RetryPolicy) -> BaseException:
    """An error that the policy retries on, as far as that can be told."""
    kind: Any = policy.on[0] if isinstance(policy.on, tuple) else policy.on
    if isinstance(kind, type) and issubclass(kind, BaseException):
        made: BaseException = kind.__new__(kind)
        return made
    return Exception("simulated")
