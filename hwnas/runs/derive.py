"""Derive further architectures from a finished search: the most probable within a budget, or a Pareto set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.budgets.budget import Budget, limits_of, parse_budget, preview, require_possible
from hwnas.budgets.derive import derive_best, scores
from hwnas.budgets.pareto import ParetoSet, Point, pareto
from hwnas.budgets.text import names_devices
from hwnas.calibration.intervals import LEVEL, half_intervals
from hwnas.cost.build import CostFunction
from hwnas.cost.carried_head import head_notes
from hwnas.cost.metric import MACS, Metric
from hwnas.errors import HwnasError
from hwnas.plotting import require_picture
from hwnas.progress import Progress
from hwnas.runs.probabilities import SearchProbabilities, TargetProbabilities, read_probabilities
from hwnas.spaces import Architecture, SizedSpace
from hwnas.spaces.encoding import encode
from hwnas.tables.schema import LatencyTable
from hwnas.text import format_table


@dataclass(frozen=True)
class DerivedArchitecture:
    """One architecture. ``log_probability`` is the sum of its operations' log probabilities as the search left them.

    ``costs`` are predictions by metric. ``intervals`` are half the intervals that hold nine in ten latencies, for the
    tables that give their error.
    """

    architecture: str
    log_probability: float
    costs: Mapping[str, float]
    intervals: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return one flat object, as ``hwnas derive --json`` prints it."""
        described = costs_to_json(self.costs, self.intervals)
        return {"architecture": self.architecture, "log_probability": self.log_probability, **described}


def costs_to_json(costs: Mapping[str, float], intervals: Mapping[str, float]) -> dict[str, float]:
    """Return costs by metric, with half the intervals of latencies, as one flat object."""
    halves = {Metric.parse(metric).derived("interval").name: half for metric, half in intervals.items()}
    measured = {metric: cost for metric, cost in costs.items() if Metric.parse(metric).measured}
    return {
        **measured,
        **halves,
        **({"interval_level": LEVEL} if halves else {}),
        **{metric: cost for metric, cost in costs.items() if metric not in measured},
    }


@dataclass(frozen=True)
class BestArchitectures:
    """The most probable architectures of a target within ``budget``, which may differ from that of the search.

    ``notes`` are lines on the tables' heads that were carried over (hwnas.cost.carried_head).
    """

    searched: Budget
    budget: Budget
    macs_convention: str
    architectures: Sequence[DerivedArchitecture]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class ParetoArchitectures:
    """The Pareto set of log probability against a metric for one target, within ``budget``, cheapest first.

    ``whole`` is false when there may be more points between those that were found. ``notes`` are those of
    BestArchitectures.
    """

    searched: Budget
    metric: str
    budget: Budget
    macs_convention: str
    whole: bool
    architectures: Sequence[DerivedArchitecture]
    notes: Sequence[str] = ()


def derive_architectures(folder: Path, budgets: Sequence[str], number: int) -> list[BestArchitectures]:
    """Return the ``number`` most probable architectures of every target within each budget, by default its own.

    Raises HwnasError when the run is not finished, and for a budget that is invalid or cannot be met.
    """
    if number < 1:
        raise HwnasError(f"the number of architectures must be at least 1, not {number}", "give a larger --top")
    learned = read_probabilities(folder, any(map(names_devices, budgets)))
    previews, convention = preview(learned.costs), learned.sized.space.macs_convention
    parsed, notes = [parse_budget(text, previews) for text in budgets], head_notes(learned.tables, learned.sized)
    result = []
    for target in learned.targets:
        for budget in parsed or [target.budget]:
            limits = limits_of(previews, budget)
            require_possible(budget.text, limits, learned.inputs_per_node)
            found = derive_best(learned.sized.space, target.log_probability, limits, learned.inputs_per_node, number)
            rows = describe_architectures(learned, target, found)
            result.append(BestArchitectures(target.budget, budget, convention, rows, notes))
    return result


def derive_pareto(
    folder: Path, metric: str, budget_text: str, points: int | None, plot: Path | None, progress: Progress
) -> list[ParetoArchitectures]:
    """Return the Pareto set of log probability against a metric for every target, and draw them into ``plot``.

    ``metric`` is ``latency``, ``latency@NAME``, ``macs``, ``params``, ``memory-access`` or ``peak-memory``. A budget
    limits the architectures. ``points`` is the largest number of points in a space that cannot be enumerated.

    Raises HwnasError when the run is not finished, for an unknown metric, and for a budget that cannot be met.
    """
    if points is not None and points < 2:
        raise HwnasError(f"the number of points must be at least 2, not {points}", "leave out --points for all")
    if plot:
        require_picture(plot)
    learned = read_probabilities(folder, names_devices(budget_text) or names_devices(metric))
    names = {Metric.parse(name).option: name for name in learned.costs}
    name = names.get(metric, metric)
    if name not in learned.costs:
        raise HwnasError(f"unknown metric {metric!r}", f"use one of {', '.join(names)}")
    previews = preview(learned.costs)
    budget = parse_budget(budget_text, previews) if budget_text else Budget("", {})
    limits = limits_of(previews, budget)
    if limits:
        require_possible(budget_text, limits, learned.inputs_per_node)
    sets: list[ParetoSet] = []
    for target in learned.targets:
        stage = f"Pareto points of {target.budget.text}"
        found = pareto(
            learned.sized.space,
            target.log_probability,
            learned.costs[name],
            limits,
            learned.inputs_per_node,
            points,
            lambda done, total, stage=stage: progress(stage, done, total),  # type: ignore[misc]
        )
        sets.append(found)
    if plot:
        _plot(learned, name, sets, plot)
    return [
        ParetoArchitectures(
            target.budget,
            name,
            budget,
            learned.sized.space.macs_convention,
            found.whole,
            describe_architectures(learned, target, [point.architecture for point in found.points]),
            head_notes(learned.tables, learned.sized),
        )
        for target, found in zip(learned.targets, sets, strict=True)
    ]


def _plot(learned: SearchProbabilities, metric: str, sets: Sequence[ParetoSet], out: Path) -> None:
    """Draw the Pareto sets with the architecture that the search chose for each target."""
    from hwnas.budgets.plot import Curve, plot_pareto

    curves = []
    for target, found in zip(learned.targets, sets, strict=True):
        choices = encode(learned.sized.space, [target.chosen])
        score = float(scores(learned.sized.space, target.log_probability, choices)[0])
        chosen = Point(target.chosen, score, learned.costs[metric].predict(target.chosen))
        curves.append(Curve(target.budget, found, chosen))
    tables = [learned.tables[metric]] if metric in learned.tables else list(learned.tables.values())
    plot_pareto(curves, f"{learned.sized.describe()}\n{', '.join(table.describe() for table in tables)}", out)


def describe_architectures(
    learned: SearchProbabilities, target: TargetProbabilities, architectures: Sequence[Architecture]
) -> list[DerivedArchitecture]:
    """Return architectures with their log probabilities, costs and intervals."""
    space = learned.sized.space
    choices = encode(space, list(architectures))
    log_p = scores(space, target.log_probability, choices)
    described = describe_costs(learned.sized, learned.costs, learned.tables, choices)
    return [
        DerivedArchitecture(space.format(architecture, all_edges=True), float(value), costs, intervals)
        for architecture, value, (costs, intervals) in zip(architectures, log_p, described, strict=True)
    ]


def describe_costs(
    sized: SizedSpace,
    costs: Mapping[str, CostFunction],
    tables: Mapping[str, LatencyTable],
    choices: NDArray[np.intp],
) -> list[tuple[dict[str, float], dict[str, float]]]:
    """Return the costs of every row of ``choices`` by metric, and half the intervals of its latencies."""
    predicted = {metric: model.predict_many(choices) for metric, model in costs.items()}
    intervals = {
        metric: half for metric, table in tables.items() if (half := half_intervals(table, sized, choices)) is not None
    }
    counts = [metric for metric in predicted if metric not in tables]
    return [
        (
            {
                **{metric: float(predicted[metric][i]) for metric in tables},
                **{metric: Metric.parse(metric).exact(float(predicted[metric][i])) for metric in counts},
            },
            {metric: float(half[i]) for metric, half in intervals.items()},
        )
        for i in range(len(choices))
    ]


def format_architectures(title: str, derived: BestArchitectures | ParetoArchitectures) -> str:
    """Return a table of architectures with their log probabilities and costs."""
    rows = derived.architectures
    costs = format_costs(derived.macs_convention, [(row.costs, row.intervals) for row in rows])
    cells = [[row.architecture, f"{row.log_probability:.3f}", *own] for row, own in zip(rows, costs[1:], strict=True)]
    return format_table(title, ["architecture", "log p", *costs[0]], cells)


def format_costs(
    macs_convention: str, rows: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]
) -> list[list[str]]:
    """Return the headings of a table of costs and intervals, and then the texts of every row."""
    costs, intervals = rows[0]
    columns: list[str] = []
    cells: list[list[str]] = [[] for _ in rows]
    for name in costs:
        metric = Metric.parse(name)
        columns.append(f"MACs ({macs_convention})" if name == MACS.name else metric.title)
        for (own, _), line in zip(rows, cells, strict=True):
            line.append(metric.format(own[name]))
        if name in intervals:
            columns.append(f"± ({LEVEL:.0%})")
            for (_, own), line in zip(rows, cells, strict=True):
                line.append(metric.format(own[name]))
    return [columns, *cells]
