"""The parts of the page: what is measured for each, and how it is shown."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import faults, growth, overhead, primitives, words
from benchmarks.page import Plot, Printed, Section, Table

try:
    from benchmarks import plots
except ImportError:  # without matplotlib there are tables
    plots = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.interleaved import Spread

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
FOLDER = "benchmarks"
"""Of the plots, beside the page."""


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Args:
        rounds: How often single operations are taken.
        tasks: How many tasks of each kind a worker runs in a round.
        worker_rounds: How many such rounds.
        keys: How many keys the fullest store has.
        is_quick: Whether other benchmarks do less than by default.
        draws: Whether plots are drawn, too.
    """

    rounds: int
    tasks: int
    worker_rounds: int
    keys: int
    is_quick: bool
    draws: bool = False


FULL = Effort(rounds=5_000, tasks=500, worker_rounds=12, keys=1_000_000, is_quick=False)
QUICK = Effort(rounds=500, tasks=200, worker_rounds=3, keys=10_000, is_quick=True)


def of_primitives(effort: Effort) -> Section:
    """Single operations."""
    groups, missing = primitives.measure_primitives(effort.rounds)
    rows = [
        [name, _shown(spread), f"{group.ratio(name):.2f}", f"{group.round_trips[name]:g}"]
        for group in groups
        for name, spread in group.times.items()
    ]
    if plots and effort.draws:
        plots.bars_of_primitives(groups, PAGE.parent / FOLDER / "primitives.svg")
    parts = [Table(["operation", "µs", "ratio", "round trips"], rows)]
    picture = Plot(f"{FOLDER}/primitives.svg", "The ratios of the table as bars")
    return Section("Single operations", words.PRIMITIVES + _left_out(missing), [*parts, picture])


def of_overhead(effort: Effort) -> Section:
    """Tasks on a real worker."""
    costs = overhead.measure_worker(tasks=effort.tasks, rounds=effort.worker_rounds)
    bare = costs[overhead.BARE]
    rows = [
        [
            name,
            f"{median(cost.worker_us):.0f} ({min(cost.worker_us):.0f}..{max(cost.worker_us):.0f})",
            f"{cost.more_than(bare):+.0%}" if cost is not bare else "",
            f"{median(cost.publisher_us):.0f}",
            f"{median(cost.scripts):.0f}",
            f"{median(cost.round_trips):.0f}",
        ]
        for name, cost in costs.items()
    ]
    if plots and effort.draws:
        plots.bars_of_overhead(costs, overhead.BARE, PAGE.parent / FOLDER / "overhead.svg")
    columns = ["task", "worker µs", "more", "publisher µs", "scripts", "round trips"]
    picture = Plot(f"{FOLDER}/overhead.svg", "How much more CPU time each takes than a bare task")
    says = words.OVERHEAD.format(rounds=effort.worker_rounds, tasks=effort.tasks)
    return Section("What policies cost a task", says, [Table(columns, rows), picture])


def of_faults(_: Effort) -> Section:
    """What libraries do under faults."""
    rows, missing = faults.measure_faults()
    libraries = list(rows[0].seen)
    table = Table(["", *libraries], [[row.name, *(row.seen[name] for name in libraries)] for row in rows])
    says = words.FAULTS.format(short=faults.SHORT, long=faults.LONG_RUN)
    return Section("What locks do when it gets rough", says + _left_out(missing), [table])


def of_growth(effort: Effort) -> Section:
    """How cost grows."""
    curves = growth.measure_growth(effort.rounds // 5, effort.keys)
    rows = [
        [growth.MEANING[name], f"{size:,}", _shown(spread)]
        for name, curve in curves.items()
        for size, spread in curve.items()
    ]
    if plots and effort.draws:
        plots.lines_of_growth(curves, PAGE.parent / FOLDER / "growth.svg")
    picture = Plot(f"{FOLDER}/growth.svg", "The times of the table as lines")
    return Section("How cost grows", words.GROWTH, [Table(["what grows", "size", "µs"], rows), picture])


def printed(
    title: str, says: str, module: str, full: Sequence[str] = ("",), quick: Sequence[str] = ("",)
) -> Callable[[Effort], Section]:
    """A section that shows what another benchmark prints.

    Its exit code, by which it says that a target was missed, does not matter.

    Args:
        title: Of the section.
        says: The words above what is shown.
        module: The benchmark.
        full: The options of each of its runs.
        quick: Likewise, to take a look.
    """

    def section(effort: Effort) -> Section:
        outputs = []
        for options in quick if effort.is_quick else full:
            command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{module}", *shlex.split(options)]
            done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
            if not done.stdout:
                raise RuntimeError(done.stderr)
            outputs.append(done.stdout)
        return Section(title, says, [Printed("".join(outputs))])

    return section


SECTIONS: dict[str, Callable[[Effort], Section]] = {
    "overhead": of_overhead,
    "imports": printed("What importing costs", words.IMPORTS, "imports", quick=("10",)),
    "primitives": of_primitives,
    "faults": of_faults,
    "growth": of_growth,
    "rate_limits": printed("Rate limits beside others", words.LIMITS, "rate_limits", quick=("500",)),
    "chords": printed("Partial chords", words.CHORDS, "chords", quick=("200 3",)),
    "dead_letters": printed("Dead letters", words.DEAD_LETTERS, "dead_letters", quick=("5000",)),
    "router": printed("Routing", words.ROUTER, "router", quick=("50",)),
    "drain": printed("How a backlog drains", words.DRAIN, "drain", quick=("'gated, 100/s, burst 20'",)),
    "parked": printed(
        "What waiting takes", words.PARKED, "parked", ("", "--tenants"), ("--entries 1000 5000", "--tenants")
    ),
    "handover": printed(
        "From one to the next", words.HANDOVER, "handover", ("", "--waiters 10000"), ("--rounds 5",)
    ),
}
"""By the name of the module that measures it."""


def _shown(spread: Spread) -> str:
    return f"{spread.median:.1f} ({spread.low:.1f}..{spread.high:.1f})"


def _left_out(missing: list[str]) -> str:
    return f"Not installed, and so left out: {', '.join(missing)}.\n" if missing else ""
