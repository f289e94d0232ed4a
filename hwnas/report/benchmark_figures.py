"""Figures of a benchmark: regret of the methods, cost of their searches, collapse of their cells."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hwnas.report.benchmark_content import BenchmarkContent, Search
from hwnas.report.charts import scatter, strip
from hwnas.report.figure import Figure
from hwnas.report.theme import colours

COSTS: dict[str, Callable[[Search], float]] = {
    "processor seconds of a search": lambda search: search.found.search.processor_s,
    "most memory of a search, MB": lambda search: search.found.search.peak_memory_mb,
}
LEGEND = "a point a seed, a bar at the mean; dashed: a random cell, on average"


@dataclass(frozen=True)
class Quantity:
    """A number of every search; ``at_random`` is its mean over random cells."""

    name: str
    title: str
    unit: str
    of: Callable[[Search], float]
    at_random: float
    percent: bool = False

    def words(self, value: float) -> str:
        return f"{value:.0%}" if self.percent else f"{value:.2f}"


def section_id(search: Search) -> str:
    """Return the id of a search's section in the page."""
    return f"{search.found.method}-{search.found.seed}"


def regret_figures(content: BenchmarkContent) -> list[Figure]:
    """Return a figure for each data set. The keyboard reaches every search once, in the first figure."""
    return [
        _strip(
            content,
            Quantity(
                f"regret-{name}", f"regret on {name}", "percentage points",
                lambda search, name=name: search.found.regret[name],  # type: ignore[misc]
                content.summary.random_regret(name),
            ),
            by_keyboard=number == 0,
        )
        for number, name in enumerate(content.summary.data_sets)
    ]  # fmt: skip


def collapse_figures(content: BenchmarkContent) -> list[Figure]:
    """Return the figures of the shares of a cell's edges that have collapsed."""
    at_random, unit = content.summary.random_collapse, "share of the cell's edges"
    quantities = [
        Quantity(
            "skip-connect", "edges that are skip_connect", unit,
            lambda search: search.found.collapse.skip_connect, at_random.skip_connect.mean, percent=True,
        ),
        Quantity(
            "without-parameters", "edges that are none, skip_connect or avg_pool_3x3", unit,
            lambda search: search.found.collapse.without_parameters, at_random.without_parameters.mean, percent=True,
        ),
    ]  # fmt: skip
    return [_strip(content, quantity, by_keyboard=False) for quantity in quantities]


def cost_figures(content: BenchmarkContent) -> list[Figure]:
    """Return figures of the accuracy on every data set against each cost of a search."""
    return [_scatter(content, f"cost-{number}", x_title) for number, x_title in enumerate(COSTS, start=1)]


def _strip(content: BenchmarkContent, quantity: Quantity, by_keyboard: bool) -> Figure:
    methods = [row.method for row in content.summary.methods]
    seeds: list[dict[str, Any]] = [
        {"label": search.found.method, "seed": search.found.seed, "value": quantity.of(search)}
        for search in content.searches
    ]
    means: list[dict[str, Any]] = [
        {"label": method, "value": statistics.fmean(quantity.of(search) for search in content.of(method))}
        for method in methods
    ]
    shown = [
        row | {
            "href": f"#{section_id(search)}",
            "tip": f"{search.name}; {quantity.title} {quantity.words(row['value'])}; {search.found.architecture}",
        }
        for row, search in zip(seeds, content.searches, strict=True)
    ]  # fmt: skip
    bars = [row | {"tip": f"{row['label']}; {quantity.title}, mean {quantity.words(row['value'])}"} for row in means]
    level = {
        "value": quantity.at_random,
        "tip": f"a random cell; {quantity.title}, on average {quantity.words(quantity.at_random)}",
    }
    svg = strip(shown, bars, [level], quantity.unit, methods, quantity.percent)
    data = {"seeds": seeds, "means": means, "random_cell": quantity.at_random}
    return Figure(quantity.name, f"{quantity.title}: {LEGEND}", svg, data, by_keyboard=by_keyboard)


def _scatter(content: BenchmarkContent, name: str, x_title: str) -> Figure:
    methods = [row.method for row in content.summary.methods]
    cost, panels, data = COSTS[x_title], {}, {}
    for data_set in content.summary.data_sets:
        seeds: list[dict[str, Any]] = [
            {"label": s.found.method, "seed": s.found.seed, "x": cost(s), "y": s.found.accuracy[data_set]}
            for s in content.searches
        ]
        means: list[dict[str, Any]] = [
            {"label": m, **{axis: statistics.fmean(row[axis] for row in seeds if row["label"] == m) for axis in "xy"}}
            for m in methods
        ]
        shown = [
            row | {"href": f"#{section_id(search)}", "tip": f"{search.name}; {_words(row, data_set, x_title)}"}
            for row, search in zip(seeds, content.searches, strict=True)
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
