"""Plots of costs: the distribution of a space over latency and MACs, and the Pareto set of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from hwnas.budgets.budget import Budget, Preview, format_amount
from hwnas.budgets.pareto import ParetoSet, Point
from hwnas.cost.metric import BYTE_UNITS, BYTES, LATENCY, MACS, Metric, byte_unit
from hwnas.cost.model import Array
from hwnas.errors import HwnasError
from hwnas.plotting import colours_and_markers, require_picture, save, style, without_frame
from hwnas.text import printable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

WIDE = 8.0  # ratio of greatest to least from which on an axis is logarithmic


@dataclass(frozen=True)
class Unit:
    """The label of an axis, and the factor of its numbers."""

    label: str
    factor: float


def unit_of(name: str, greatest: float) -> Unit:
    """Return the unit in which values of a metric up to ``greatest`` are short."""
    metric = Metric.parse(name)
    name = (metric.label or metric.quantity.replace("_", " ")) + (f" on {metric.device}" if metric.device else "")
    if metric.unit == BYTES:
        unit = byte_unit(greatest)
        return Unit(f"{name}, {unit}", 1 / BYTE_UNITS[unit])
    if metric.unit:
        smaller = [(size, unit) for unit, size in metric.units.items() if size < 1]
        if greatest >= 0.1 or not smaller:
            return Unit(f"{name}, {metric.unit}", 1.0)
        size, unit = max(smaller)
        return Unit(f"{name}, {unit.replace('u', 'µ', 1)}", 1 / size)
    for word, size in (("billions", 1e10), ("millions", 1e6), ("thousands", 1e3)):
        if greatest >= size:
            return Unit(f"{name}, {word}", 1e-9 if word == "billions" else 1 / size)
    return Unit(name, 1.0)


def plot_spread(previews: Mapping[str, Preview], budgets: Sequence[Budget], title: str, out: Path) -> None:
    """Plot a space's architectures by MACs and latency, and the regions of budgets, into a PNG or SVG file.

    For two devices the axes are their latencies. Raises HwnasError for more devices, when ``out`` ends in neither, and
    when the folder cannot be written.
    """
    require_picture(out)
    latencies = [metric for metric in previews if Metric.parse(metric).quantity == LATENCY.quantity]
    if len(latencies) > 2:
        raise HwnasError(f"a picture has two axes, for {len(latencies)} devices", "give one --table or two with --plot")
    axes = (latencies[0], latencies[1]) if len(latencies) == 2 else (MACS.name, latencies[0])
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(7.2, 4.8), layout="constrained")
        axis = figure.subplots()
        units = [unit_of(metric, float(previews[metric].costs.max())) for metric in axes]
        x, y = (previews[metric].costs * unit.factor for metric, unit in zip(axes, units, strict=True))
        scales = [_scale(values) for values in (x, y)]
        cells = axis.hexbin(
            x, y, gridsize=(56, 36), mincnt=1, linewidths=0.1, cmap=_greys(), xscale=scales[0], yscale=scales[1]
        )
        cells.set_norm(LogNorm(1, max(2, float(np.max(np.asarray(cells.get_array()))))))
        _readable(axis, scales)
        convention = f" ({previews[MACS.name].model.space.macs_convention} convention)" * (axes[0] == MACS.name)
        axis.set_xlabel(units[0].label + convention, parse_math=False)
        axis.set_ylabel(units[1].label, parse_math=False)
        axis.set_title(_lines(title), fontsize=9, loc="left", parse_math=False)
        bar = figure.colorbar(cells, ax=axis, aspect=30, pad=0.01, fraction=0.05)
        number = len(x)
        kind = "architectures" if previews[axes[0]].exact else "random architectures"
        bar.set_label(f"{kind} a hexagon, of {number:,}")
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        bar.outline.set_visible(False)
        for budget, (colour, _) in zip(budgets, colours_and_markers(len(budgets)), strict=True):
            _draw_budget(axis, budget, axes, [u.factor for u in units], colour)
        if budgets:
            figure.legend(loc="outside lower left", frameon=False)
        save(figure, out)


def _draw_budget(axis: Axes, budget: Budget, metrics: Sequence[str], factors: Sequence[float], colour: str) -> None:
    """Draw the region within a budget; limits on metrics without an axis are in the legend alone."""
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    x, y = (budget.limits.get(metric, np.inf) * factor for metric, factor in zip(metrics, factors, strict=True))
    at_x, at_y = min(x, right), min(y, top)
    corner = [(left, at_y)] * int(y < top) + [(at_x, at_y)] + [(at_x, bottom)] * int(x < right)
    if len(corner) > 1:
        axis.fill_between([left, at_x], bottom, at_y, color=colour, alpha=0.07, linewidth=0, zorder=0)
    else:
        corner = []
    axis.plot(
        *zip(*corner, strict=True) if corner else ([], []), color=colour, linewidth=1.4, label=_legend(budget, metrics)
    )
    axis.set_xlim(left, right)
    axis.set_ylim(bottom, top)


def _legend(budget: Budget, metrics: Sequence[str]) -> str:
    limits = [f"≤ {format_amount(metric, bound)}" for metric, bound in budget.limits.items() if metric in metrics]
    hidden = [f"≤ {format_amount(metric, bound)}" for metric, bound in budget.limits.items() if metric not in metrics]
    return f"{budget.text}: {', '.join(limits + [f'{limit} (not on these axes)' for limit in hidden])}"


@dataclass(frozen=True)
class Curve:
    """A target's Pareto set, its budget, and the architecture that the search derived within it."""

    budget: Budget
    found: ParetoSet
    chosen: Point


def plot_pareto(curves: Sequence[Curve], title: str, out: Path) -> None:
    """Plot the Pareto sets of a search's targets with their budgets, into a PNG or SVG file.

    Raises HwnasError when ``out`` ends in neither, and when the folder cannot be written.
    """
    require_picture(out)
    from matplotlib.figure import Figure

    metric = curves[0].found.metric
    every = np.array([point.cost for curve in curves for point in (*curve.found.points, curve.chosen)])
    unit = unit_of(metric, float(every.max()))
    bounds = [curve.budget.limits[metric] for curve in curves if metric in curve.budget.limits]
    scale = _scale(np.array([*every, *bounds]))
    with style():
        figure = Figure(figsize=(7.2, 4.8), layout="constrained")
        axis = figure.subplots()
        axis.set_xscale(scale)
        shown = np.array([*every, *bounds]) * unit.factor
        pad = 1.04 if scale == "log" else 0.03 * (np.ptp(shown) or abs(shown[0]))
        ends = (shown.min() / pad, shown.max() * pad) if scale == "log" else (shown.min() - pad, shown.max() + pad)
        axis.set_xlim(*ends)
        for curve, (colour, marker) in zip(curves, colours_and_markers(len(curves)), strict=True):
            x = np.array([point.cost for point in curve.found.points]) * unit.factor
            y = np.array([point.worth for point in curve.found.points])
            many = "" if curve.found.whole else ", more between"
            label = f"search for {curve.budget.text}: {len(x)} point{'s' * (len(x) > 1)}{many}"
            axis.step([*x, ends[1]], [*y, y[-1]], where="post", color=colour, linewidth=1)
            axis.plot(x, y, marker, color=colour, markersize=3.5, label=label)
            if metric in curve.budget.limits:
                bound = curve.budget.limits[metric]
                text = f"budget {curve.budget.text}: ≤ {format_amount(metric, bound)}"
                axis.axvline(bound * unit.factor, color=colour, linewidth=1, linestyle="--", label=text)
            axis.plot(
                curve.chosen.cost * unit.factor, curve.chosen.worth, "*", color=colour, markersize=11,
                markeredgecolor="black", markeredgewidth=0.6, zorder=4,
            )  # fmt: skip
        axis.plot([], [], "*", color="white", markersize=9, markeredgecolor="black", label="derived by the search")
        _readable(axis, [scale, "linear"])
        axis.grid(color="0.9", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.set_xlabel(unit.label)
        axis.set_ylabel("log probability of the architecture (proxy for accuracy)")
        axis.set_title(_lines(title), fontsize=9, loc="left", parse_math=False)
        figure.legend(loc="outside lower left", frameon=False, ncols=2)
        save(figure, out)


@dataclass(frozen=True)
class AccuracyCurve:
    """The front of predicted accuracy of a table: latencies in ms, accuracies, and the intervals of these."""

    name: str
    whole: bool
    latency_ms: Sequence[float]
    accuracy: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def plot_accuracy(curves: Sequence[AccuracyCurve], title: str, out: Path) -> None:
    """Plot fronts of predicted accuracy against latency with their intervals, into a PNG or SVG file.

    Raises HwnasError when ``out`` ends in neither, and when the folder cannot be written.
    """
    require_picture(out)
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    every = np.array([latency for curve in curves for latency in curve.latency_ms])
    unit, scale = unit_of(LATENCY.name, float(every.max())), _scale(every)
    with style():
        figure = Figure(figsize=(7.2, 4.8), layout="constrained")
        axis = figure.subplots()
        axis.set_xscale(scale)
        for curve, (colour, marker) in zip(curves, colours_and_markers(len(curves)), strict=True):
            x = np.array(curve.latency_ms) * unit.factor
            label = f"{curve.name}: {len(x)} point{'s' * (len(x) > 1)}{', more between' * (not curve.whole)}"
            axis.fill_between(x, curve.low, curve.high, step="post", color=colour, alpha=0.15, linewidth=0)
            axis.step(x, curve.accuracy, where="post", color=colour, linewidth=1)
            axis.plot(x, curve.accuracy, marker, color=colour, markersize=3.5, label=label)
        _readable(axis, [scale, "linear"])
        axis.grid(color="0.9", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
        axis.set_xlabel(unit.label)
        axis.set_ylabel("predicted validation accuracy, with 90 % intervals")
        axis.set_title(_lines(title), fontsize=9, loc="left", parse_math=False)
        figure.legend(loc="outside lower left", frameon=False, ncols=2)
        save(figure, out)


def _greys() -> Colormap:
    """Return a map of greys without those too light to see."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    return ListedColormap(matplotlib.colormaps["Greys"](np.linspace(0.22, 1, 256)))


def _scale(values: Array) -> Literal["log", "linear"]:
    return "log" if values.min() > 0 and values.max() >= WIDE * values.min() else "linear"


def _readable(axis: Axes, scales: Sequence[str]) -> None:
    """Label logarithmic scales with plain numbers, and remove the frame."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for side, scale in zip((axis.xaxis, axis.yaxis), scales, strict=True):
        if scale == "log":
            side.set_major_locator(LogLocator(subs=(1, 2, 5)))
            side.set_major_formatter(lambda value, _: f"{value:g}")
            side.set_minor_formatter(NullFormatter())
    without_frame(axis)


def _lines(text: str) -> str:
    """Make a title printable, with short lines: it may hold names from untrusted tables."""
    return "\n".join(shorten(printable(line), 110) for line in text.split("\n"))
