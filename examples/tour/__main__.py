"""Run the tour: `python -m examples.tour`, or with `--without-patterns` to see what happens otherwise."""

from __future__ import annotations

import argparse
import importlib
import os
import random
import signal
import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console

from examples.tour import jobs, outage, report
from examples.tour.chaos import Chaos
from examples.tour.count import Outcome, count
from examples.tour.messages import Watch, send, settle, wait
from examples.tour.processes import Worker, surroundings, worker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.progress import Progress

    from celery_patterns.deadletters import Group


def main() -> int:
    """Do the jobs under fire and return the exit code."""
    options = parse(sys.argv[1:])
    # Told to end in another way, or with its terminal gone, the tour clears up as it does after Ctrl-C.
    for end in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(end, signal.default_int_handler)
    console = Console()
    try:
        with surroundings() as folder:
            outcomes = tour(folder, options, console)
    except KeyboardInterrupt:
        console.print("Interrupted; everything has been stopped and removed.")
        return 130
    report.show(console, outcomes, patterns=options.patterns)
    return 0 if not options.patterns or all(outcome.good for outcome in outcomes) else 1


def tour(folder: Path, options: argparse.Namespace, console: Console) -> list[Outcome]:
    """Do one job after the other on one worker."""
    module = "examples.tour.tasks" if options.patterns else "examples.tour.plain"
    tasks = importlib.import_module(module)  # not before its server and service are known
    chaos = Chaos(folder, every=options.kill_every, seed=options.seed)
    with worker(module, folder) as running, report.progress(console, quiet=options.quiet) as progress:
        work = [
            jobs.index(tasks, folder, limit=options.modules, fenced=options.patterns),
            jobs.charges(tasks, folder, limit=options.orders),
        ]
        outcomes = [under_fire(job, folder, chaos, running, progress, seed=options.seed) for job in work]
        renewals = jobs.renewals(tasks, folder, limit=options.orders)
        last = in_an_outage(renewals, folder, chaos, running, progress, patterns=options.patterns)
        return [*outcomes, last]


def under_fire(
    job: jobs.Job, folder: Path, chaos: Chaos, running: Worker, progress: Progress, *, seed: int
) -> Outcome:
    """Do a job while worker children are killed, then count."""
    started, killed_before = time.monotonic(), chaos.kills
    watch = watcher(job, chaos, progress)
    with chaos:
        keys = send(job, random.Random(seed), watch)
        results = wait(job, keys, watch, running.check)
        seconds = time.monotonic() - started
    settle(job, os.environ["TOUR_REDIS_URL"])
    return count(job, keys, results, folder, kills=chaos.kills - killed_before, seconds=seconds)


def in_an_outage(
    job: jobs.Job, folder: Path, chaos: Chaos, running: Worker, progress: Progress, *, patterns: bool
) -> Outcome:
    """Do a job while the service is down and children are killed; mend, replay what has died, then count.

    Without the patterns there is nothing to replay: the service is back, and what has failed stays failed.
    """
    started, killed_before = time.monotonic(), chaos.kills
    watch = watcher(job, chaos, progress)
    dead: Sequence[Group] = ()
    with chaos:
        outage.begin(folder)
        keys = outage.send(job, watch)
        if patterns:
            dead = outage.bury(job, watch, running.check)
        else:
            wait(job, keys, watch, running.check)
        outage.end(folder)
        if patterns:
            outage.replay(job, watch, running.check)
        seconds = time.monotonic() - started
    settle(job, os.environ["TOUR_REDIS_URL"])
    kills = chaos.kills - killed_before
    return count(job, keys, outage.results(job, keys), folder, kills=kills, seconds=seconds, dead=dead)


def watcher(job: jobs.Job, chaos: Chaos, progress: Progress) -> Watch:
    """A new bar, and how to tell it what goes on."""
    killed_before = chaos.kills
    bar = progress.add_task(job.task.name, kills=0)

    def watch(doing: str, done: int, total: int) -> None:
        kills = chaos.kills - killed_before
        progress.update(
            bar, description=f"{job.task.name}: {doing}", completed=done, total=total, kills=kills
        )

    return watch


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.tour", description=__doc__)
    parser.add_argument(
        "--without-patterns",
        dest="patterns",
        action="store_false",
        help="plain Celery tasks, and no idempotency key for the payments service; always exits with 0",
    )
    add = parser.add_argument
    add("--seed", type=int, default=1, help="decides the order of the messages and who is killed (1)")
    add("--kill-every", type=pause, default=0.7, metavar="SECONDS", help="time between two kills (0.7)")
    add(
        "--orders",
        type=positive,
        metavar="N",
        help="charge the first N orders only, and renew a third of them",
    )
    add("--modules", type=positive, metavar="N", help="index the first N modules only")
    add("--quiet", action="store_true", help="show no progress bar")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    """A number of things to do."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("give a number of 1 or more")
    return number


def pause(text: str) -> float:
    """A time between two kills that leaves the worker some time to work."""
    seconds = float(text)
    if seconds < 0.1:
        raise argparse.ArgumentTypeError("give 0.1 or more; the worker would do nothing but start children")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
