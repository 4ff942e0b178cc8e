"""The drawings of the page, as SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.growth import Curve
    from benchmarks.overhead import Cost
    from benchmarks.primitives import Group

OURS, OTHERS, BASE = "#2f6f9f", "#b9b9b9", "#555555"

mpl.use("svg")
mpl.rcParams.update(
    {
        "svg.hashsalt": "celery-patterns",  # the same figures give the same file
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)


def bars_of_primitives(groups: Sequence[Group], path: Path) -> None:
    """Each operation as a ratio to the base of its group."""
    sizes = [len(group.times) - 1 for group in groups]
    figure, all_axes = plt.subplots(
        len(groups), figsize=(8, 0.26 * sum(sizes) + 0.9 * len(groups)), height_ratios=sizes, squeeze=False
    )
    for axes, group in zip(all_axes[:, 0], groups, strict=True):
        names = sorted((name for name in group.times if name != group.base), key=group.ratio, reverse=True)
        colours = [OURS if name.startswith("ours") else OTHERS for name in names]
        axes.barh(names, [group.ratio(name) for name in names], color=colours)
        axes.axvline(1, color=BASE, linewidth=0.8)
        axes.set_title(f"{group.name}: ratio to {group.base}", loc="left", fontsize=9)
    _save(figure, path)


def bars_of_overhead(costs: Mapping[str, Cost], bare: str, path: Path) -> None:
    """What each kind of task costs more than the bare one, in percent of it."""
    names = [name for name in costs if name != bare][::-1]
    figure, axes = plt.subplots(figsize=(8, 0.3 * len(names) + 0.8))
    axes.barh(names, [100 * costs[name].more_than(costs[bare]) for name in names], color=OURS)
    axes.axvline(0, color=BASE, linewidth=0.8)
    axes.set_xlabel("% more CPU time of the worker than a bare task takes")
    _save(figure, path)


def lines_of_growth(curves: Mapping[str, Curve], path: Path) -> None:
    """Microseconds by size, one drawing for each curve."""
    figure, all_axes = plt.subplots(2, 3, figsize=(9, 5))
    for axes, (name, curve) in zip(all_axes.flat, curves.items(), strict=False):
        sizes = list(curve)
        axes.plot(sizes, [curve[size].median for size in sizes], color=OURS, marker="o", markersize=3)
        axes.fill_between(
            sizes, [curve[size].low for size in sizes], [curve[size].high for size in sizes], alpha=0.2
        )
        axes.set_title(name, loc="left", fontsize=9)
        axes.set_ylim(bottom=0)
        if max(sizes) > 10 * min(sizes):
            axes.set_xscale("log")
        axes.set_ylabel("µs")
    for axes in all_axes.flat[len(curves) :]:
        axes.remove()
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
