"""Sends the messages of a job, each key several times, and waits until nothing is under way any more."""

import random
import time
from collections.abc import Callable
from typing import Any

from celery.exceptions import TimeoutError as CeleryTimeoutError
from redis import Redis

from examples.tour.jobs import Job

DEADLINE = 120
"""Seconds after which a result that is not ready counts as lost."""

QUIET_SECONDS = 60
"""Seconds without any new result after which those that are missing count as lost."""

SETTLE_SECONDS = 30
"""Seconds for the copies that may still be under way although every result is ready."""

Watch = Callable[[str, int, int], None]
"""Is told what goes on, how much of it is done, and how much there is."""


def copies(keys: list[str], rng: random.Random) -> list[str]:
    """Each key two or three times: some copies right behind the first one, others much later."""
    early: list[str] = []
    late: list[str] = []
    for key in rng.sample(keys, len(keys)):
        early.append(key)
        rng.choice([early, late]).append(key)
        if rng.random() < 0.5:
            late.append(key)
    rng.shuffle(late)
    return early + late


def send(job: Job, rng: random.Random, watch: Watch) -> dict[str, str]:
    """Send every message; returns the key of each task id."""
    keys: dict[str, str] = {}
    planned = copies(list(job.calls), rng)
    if job.together is not None:
        watch("sending", 0, len(planned))
        return job.together(planned)
    for key in planned:
        keys[job.task.apply_async(job.calls[key]).id] = key
        watch("sending", len(keys), len(planned))
    return keys


def wait(job: Job, keys: dict[str, str], watch: Watch, check: Callable[[], None]) -> dict[str, Any]:
    """Wait for every result; returns those that were ready in time, by task id."""
    results: dict[str, Any] = {}
    latest = time.monotonic()

    def still_coming() -> None:
        check()
        if time.monotonic() - latest > QUIET_SECONDS:
            raise CeleryTimeoutError

    ready = job.task.backend.get_many(set(keys), timeout=DEADLINE, interval=0.1, on_interval=still_coming)
    try:
        for task_id, result in ready:
            results[task_id], latest = result, time.monotonic()
            watch("working", len(results), len(keys))
    except CeleryTimeoutError:
        pass  # what is missing is counted as lost
    return results


def settle(job: Job, redis_url: str) -> None:
    """Wait until no message is queued or unacknowledged.

    A child killed between the result and the acknowledgement leaves a copy that is delivered once more. It
    may do harm, so the counting has to come after it.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    queue = job.task.app.conf.task_default_queue
    with Redis.from_url(redis_url) as redis:
        while (redis.llen(queue) or redis.hlen("unacked")) and time.monotonic() < deadline:
            time.sleep(0.1)
