"""Counts what came of a job, from its effects."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery.states import FAILURE, SUCCESS

from celery_patterns.deadletters import Group
from examples.tour.files import entries
from examples.tour.jobs import Job


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The figures of one job."""

    job: str
    claim: str
    """What is true if the outcome is good."""
    sent: int
    """Messages."""
    keys: int
    """Different calls among them."""
    effects: int
    """Effects, of all keys together."""
    done: int
    """Keys with an effect."""
    twice: int
    """Keys with more than one effect, and repeated runs that no kill explains."""
    lost: int
    """Keys without an effect that must have one, or of which a copy never got its result."""
    wrong: int
    """Keys with an effect other than it must be."""
    differing: int
    """Keys of which two copies got different results."""
    caught: int
    """Repeated requests that the callee recognised."""
    refused: int
    """Requests that the callee refused because there were too many."""
    replayed: int
    deferred: int
    kills: int
    seconds: float
    dead: Sequence[Group] = ()
    """What the dead letters were, by cause, before they were replayed."""

    @property
    def good(self) -> bool:
        """Whether each key was done once and rightly, its copies were told the same, and nobody got a 429."""
        return not (self.twice or self.lost or self.wrong or self.differing or self.refused)


def count(
    job: Job,
    keys: dict[str, str],
    results: dict[str, Any],
    folder: Path,
    *,
    kills: int,
    seconds: float,
    dead: Sequence[Group] = (),
) -> Outcome:
    """Compare what was sent with what there is.

    What is done, and how often, is read from the effects alone. Celery's results can only add to what is
    lost. A child works on one task at a time, so a kill explains one repeated request at most: were there
    more, then a run that had ended was made again, and a callee that checks keys would hide it.
    """
    times = Counter(key for key, _ in job.effects())
    wrong = {key for key, effect in job.effects() if key in job.failing or effect != job.expected[key]}
    told = _told(job, keys, results)
    happened = Counter(
        entry["kind"] for entry in entries(folder / "history.jsonl") if entry["task"] == job.task.name
    )
    caught = job.caught()
    return Outcome(
        job=job.task.name,
        claim=job.claim,
        keys=len(job.calls),
        effects=times.total(),
        sent=len(keys),
        done=len(times),
        twice=sum(often > 1 for often in times.values()) + max(0, caught - kills),
        lost=sum(key not in times for key in job.expected)
        + sum(None in told[key] for key in told if key in times or key in job.failing),
        wrong=len(wrong),
        differing=sum(_differ(answers) for answers in told.values()),
        caught=caught,
        refused=job.refused(),
        replayed=happened["replayed"],
        deferred=happened["deferred"],
        kills=kills,
        seconds=seconds,
        dead=dead,
    )


def _told(job: Job, keys: dict[str, str], results: dict[str, Any]) -> dict[str, list[Any]]:
    """What the copies of each key were told; None for a copy that ended otherwise than it must, or not."""
    told: dict[str, list[Any]] = {}
    for task_id, key in keys.items():
        result, must = results.get(task_id, {}), FAILURE if key in job.failing else SUCCESS
        answer = result["result"] if result.get("status") == must else None
        told.setdefault(key, []).append(answer if must == SUCCESS or answer is None else repr(answer))
    return told


def _differ(answers: list[Any]) -> bool:
    given = [answer for answer in answers if answer is not None]
    return any(answer != given[0] for answer in given)
