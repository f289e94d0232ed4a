"""Plot a benchmark: regret and search cost of every method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.benchmark.schema import AT_RANDOM, Result, Summary
from hwnas.plotting import COLOURS, save, style, without_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_benchmark(summary: Summary, results: Sequence[Result], outs: Sequence[Path]) -> None:
    """Plot regret for each data set, and processor minutes: a point for each seed and a bar at the mean."""
    from matplotlib.figure import Figure

    methods, data_sets = [row.method for row in summary.methods], summary.data_sets
    at_random = summary.reference(AT_RANDOM)
    with style():
        figure = Figure(figsize=(1.2 + 2.2 * (len(data_sets) + 1), 1.5 + 0.34 * len(methods)))
        figure.set_layout_engine("constrained")
        *regrets, cost = figure.subplots(1, len(data_sets) + 1, sharey=True)
        for axis, name in zip(regrets, data_sets, strict=True):
            mean = at_random.regret[name].mean
            axis.axvline(mean, color="#999999", linewidth=1, linestyle=(0, (4, 3)))
            _draw_methods(axis, methods, [(r.method, r.regret[name]) for r in results], mean)
            axis.set_title(name, fontsize=9, loc="left", parse_math=False)
            axis.set_xlabel("regret, percentage points")
        _draw_methods(cost, methods, [(r.method, r.search.processor_s / 60) for r in results])
        cost.set_title("search", fontsize=9, loc="left")
        cost.set_xlabel("processor minutes")
        labels = [f"{row.method} ({_seeds(row.seeds)})" for row in summary.methods]
        regrets[0].set_yticks(range(len(methods)), labels, parse_math=False)
        regrets[0].set_ylim(len(methods) - 0.5, -0.5)
        regrets[0].plot([], [], "o", color="#777777", ms=5, alpha=0.7, label="a seed")
        regrets[0].plot([], [], "|", color="#333333", ms=12, mew=2, label="mean of the seeds")
        regrets[0].plot([], [], color="#999999", linewidth=1, linestyle=(0, (4, 3)), label="a random cell, on average")
        figure.legend(loc="outside lower left", frameon=False, ncols=3)
        for out in outs:
            save(figure, out)


def _draw_methods(axis: Axes, methods: Sequence[str], values: Sequence[tuple[str, float]], also: float = 0.0) -> None:
    """Plot points and bars on an axis that starts at 0 and includes ``also``."""
    for row, method in enumerate(methods):
        own = [value for name, value in values if name == method]
        axis.plot(own, [row] * len(own), "o", color=COLOURS[row % len(COLOURS)], ms=5, alpha=0.7, clip_on=False)
        axis.plot([sum(own) / len(own)], [row], "|", color="#333333", ms=12, mew=2)
    axis.set_xlim(0, 1.07 * max(also, *(value for _, value in values)) or 1.0)
    axis.grid(alpha=0.25)
    without_frame(axis)


def _seeds(seeds: Sequence[int]) -> str:
    return f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"
