"""Run the tour: `python -m examples.tour`, or with `--without-patterns` to see what happens otherwise."""

import argparse
import importlib
import os
import random
import signal
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from examples.tour import jobs, report
from examples.tour.chaos import Chaos
from examples.tour.count import Outcome, count
from examples.tour.messages import send, settle, wait
from examples.tour.processes import Worker, surroundings, worker


def main() -> int:
    """Do both jobs under fire and return the exit code."""
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
        return [under_fire(job, folder, chaos, running, progress, seed=options.seed) for job in work]


def under_fire(
    job: jobs.Job, folder: Path, chaos: Chaos, running: Worker, progress: Progress, *, seed: int
) -> Outcome:
    """Do a job while worker children are killed, then count."""
    started, killed_before = time.monotonic(), chaos.kills
    bar = progress.add_task(job.task.name, kills=0)

    def watch(doing: str, done: int, total: int) -> None:
        kills = chaos.kills - killed_before
        progress.update(
            bar, description=f"{job.task.name}: {doing}", completed=done, total=total, kills=kills
        )

    with chaos:
        keys = send(job, random.Random(seed), watch)
        results = wait(job, keys, watch, running.check)
        seconds = time.monotonic() - started
    settle(job, os.environ["TOUR_REDIS_URL"])
    return count(job, keys, results, folder, kills=chaos.kills - killed_before, seconds=seconds)


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
    add("--orders", type=positive, metavar="N", help="charge the first N orders only")
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
