"""Figures of a benchmark: regret of the methods, cost of their searches, collapse of their cells."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hwnas.benchmark.schema import AT_RANDOM, BASELINES, TargetsSummary
from hwnas.benchmark.summary import SHORT
from hwnas.report.benchmark_content import BenchmarkContent, FoundCell
from hwnas.report.charts import scatter, strip
from hwnas.report.figure import Figure
from hwnas.report.theme import colours

COSTS: dict[str, Callable[[FoundCell], float]] = {
    "processor seconds of a search": lambda found: found.result.search.processor_s,
    "most memory of a search, MB": lambda found: found.result.search.peak_memory_mb,
}
LEGEND = "a point a seed, a bar at the mean; dashed: a random cell, on average"


@dataclass(frozen=True)
class Quantity:
    """A number of every search; ``at_random`` is its mean over random cells."""

    name: str
    title: str
    unit: str
    of: Callable[[FoundCell], float]
    at_random: float
    percent: bool = False

    def words(self, value: float) -> str:
        return f"{value:.0%}" if self.percent else f"{value:.2f}"


def section_id(found: FoundCell) -> str:
    """Return the id of a cell's section in the page."""
    result = found.result
    return "-".join(filter(None, (result.target, result.method, str(result.seed))))


def regret_figures(content: BenchmarkContent) -> list[Figure]:
    """Return a figure for each data set. Of one target, the keyboard reaches every search once, in the first figure."""
    data_sets = content.summary.data_sets
    if isinstance(content.summary, TargetsSummary) and not content.one:
        return [_targets_strip(content.summary, name) for name in data_sets]
    target = content.targets[0]
    return [
        _strip(
            content,
            Quantity(
                f"regret-{name}", f"regret on {name}", "percentage points",
                lambda found, name=name: found.result.regret[name],  # type: ignore[misc]
                target.reference(AT_RANDOM).regret[name].mean,
            ),
            by_keyboard=number == 0,
        )
        for number, name in enumerate(data_sets)
    ]  # fmt: skip


def collapse_figures(content: BenchmarkContent) -> list[Figure]:
    """Return the figures of the shares of a cell's edges that have collapsed, for one target."""
    at_random, unit = content.targets[0].reference(AT_RANDOM).collapse, "share of the cell's edges"
    assert at_random  # the reader requires it
    quantities = [
        Quantity(
            "skip-connect", "edges that are skip_connect", unit,
            lambda found: found.result.collapse.skip_connect, at_random.skip_connect.mean, percent=True,
        ),
        Quantity(
            "without-parameters", "edges that are none, skip_connect or avg_pool_3x3", unit,
            lambda found: found.result.collapse.without_parameters, at_random.without_parameters.mean, percent=True,
        ),
    ]  # fmt: skip
    return [_strip(content, quantity, by_keyboard=False) for quantity in quantities]


def cost_figures(content: BenchmarkContent) -> list[Figure]:
    """Return figures of the accuracy on every data set against each cost of a search, for one target."""
    return [_scatter(content, f"cost-{number}", x_title) for number, x_title in enumerate(COSTS, start=1)]


def _strip(content: BenchmarkContent, quantity: Quantity, by_keyboard: bool) -> Figure:
    methods = [row.method for row in content.methods]
    seeds: list[dict[str, Any]] = [
        {"label": found.result.method, "seed": found.result.seed, "value": quantity.of(found)}
        for found in content.cells
    ]
    means: list[dict[str, Any]] = [
        {"label": method, "value": statistics.fmean(quantity.of(found) for found in content.of(method))}
        for method in methods
    ]
    shown = [
        row | {
            "href": f"#{section_id(found)}",
            "tip": f"{found.search}; {quantity.title} {quantity.words(row['value'])}; {found.result.architecture}",
        }
        for row, found in zip(seeds, content.cells, strict=True)
    ]  # fmt: skip
    bars = [row | {"tip": f"{row['label']}; {quantity.title}, mean {quantity.words(row['value'])}"} for row in means]
    level = {
        "value": quantity.at_random,
        "tip": f"a random cell; {quantity.title}, on average {quantity.words(quantity.at_random)}",
    }
    svg = strip(shown, bars, [level], quantity.unit, methods, quantity.percent)
    data = {"seeds": seeds, "means": means, "random_cell": quantity.at_random}
    return Figure(quantity.name, f"{quantity.title}: {LEGEND}", svg, data, by_keyboard=by_keyboard)


def _targets_strip(summary: TargetsSummary, data_set: str) -> Figure:
    """Return the regret of every method and baseline: a point a target, its mean over seeds, and a bar at the mean."""
    points: list[dict[str, Any]] = []
    for number, target in enumerate(summary.targets):
        rows = [(row.method, row.regret) for row in target.methods]
        rows += [(SHORT[name], target.reference(name).regret) for name in BASELINES]
        for label, regret in rows:
            value = regret[data_set].mean
            tip = f"{label}; {target.device} within {target.budget.text}; regret on {data_set} {value:.2f}"
            points.append({"label": label, "seed": number, "value": value, "href": "#methods", "tip": tip})
    means: list[dict[str, Any]] = [
        {
            "label": SHORT.get(row.name, row.name),
            "value": row.regret[data_set],
            "tip": f"{row.name}; mean regret on {data_set} {row.regret[data_set]:.2f}",
        }
        for row in summary.overall
    ]
    caption = f"regret on {data_set}: a point a device and budget, on average over seeds; a bar at the mean"
    svg = strip(points, means, [], "percentage points", [row["label"] for row in means])
    data = {
        "targets": [{name: row[name] for name in ("label", "seed", "value")} for row in points],
        "means": [{name: row[name] for name in ("label", "value")} for row in means],
    }
    return Figure(f"regret-{data_set}", caption, svg, data, by_keyboard=False)


def _scatter(content: BenchmarkContent, name: str, x_title: str) -> Figure:
    methods = [row.method for row in content.methods]
    cost, panels, data = COSTS[x_title], {}, {}
    for data_set in content.summary.data_sets:
        seeds: list[dict[str, Any]] = [
            {"label": one.result.method, "seed": one.result.seed, "x": cost(one), "y": one.result.accuracy[data_set]}
            for one in content.cells
        ]
        means: list[dict[str, Any]] = [
            {"label": m, **{axis: statistics.fmean(row[axis] for row in seeds if row["label"] == m) for axis in "xy"}}
            for m in methods
        ]
        shown = [
            row | {"href": f"#{section_id(found)}", "tip": f"{found.search}; {_words(row, data_set, x_title)}"}
            for row, found in zip(seeds, content.cells, strict=True)
        ]
        large = [row | {"tip": f"{row['label']}, mean; {_words(row, data_set, x_title)}"} for row in means]
        panels[f"accuracy on {data_set}, %"] = (shown, large)
        data[data_set] = {"seeds": seeds, "means": means}
    looks = colours(methods)
    wide, narrow = (scatter(panels, looks, x_title, side_by_side) for side_by_side in (True, False))
    caption = f"accuracy of the cells against {x_title}: hollow a seed, filled the mean of a method"
    numbers = {"x": x_title, "y": "accuracy, %", "data_sets": data}
    return Figure(name, caption, wide, numbers, narrow=narrow, by_keyboard=False)


def _words(row: dict[str, Any], data_set: str, x_title: str) -> str:
    return f"{row['y']:.2f} % on {data_set}; {x_title}: {row['x']:.0f}"
