"""Predict the accuracy of every architecture of a finished search from its finalists: the front against latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

from hwnas.budgets.budget import Budget, limits_of, parse_budget, preview, require_possible
from hwnas.budgets.derive import Limits, without_dead
from hwnas.budgets.pareto import ParetoSet, front
from hwnas.budgets.plot import AccuracyCurve, plot_accuracy
from hwnas.calibration.intervals import LEVEL
from hwnas.cost.build import CostFunction, build_metrics
from hwnas.cost.carried_head import head_notes
from hwnas.cost.metric import LATENCY
from hwnas.errors import HwnasError
from hwnas.finalists.additive import AdditiveModel
from hwnas.finalists.record import FINALISTS_FILE, FinalistsFile
from hwnas.plotting import require_picture
from hwnas.progress import Progress
from hwnas.runs.derive import costs_to_json, describe_costs, format_costs
from hwnas.runs.folder import table_file
from hwnas.runs.read import read_networks
from hwnas.runs.records import read_finalists, read_manifest
from hwnas.spaces import SearchSpace, SizedSpace
from hwnas.spaces.encoding import encode
from hwnas.tables.io import read_table
from hwnas.tables.network_key import common_network
from hwnas.tables.schema import LatencyTable
from hwnas.text import format_table

FIX = "search with finalists: `hwnas search --finalists 12 --out DIR`"


@dataclass(frozen=True)
class PredictedArchitecture:
    """An architecture of a front: its predicted validation accuracy, with the interval that holds nine in ten.

    The interval is that of the prediction, and leaves out the noise of a single training. ``costs`` and ``intervals``
    as in DerivedArchitecture.
    """

    architecture: str
    accuracy: float
    accuracy_interval: tuple[float, float]
    costs: Mapping[str, float]
    intervals: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return one flat object, as ``hwnas derive --json`` prints it."""
        low, high = self.accuracy_interval
        return {
            "architecture": self.architecture,
            "accuracy": self.accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
            **costs_to_json(self.costs, self.intervals),
            "interval_level": LEVEL,
        }


@dataclass(frozen=True)
class AccuracyFront:
    """The front of predicted accuracy against the latency of one table, within ``budget``, cheapest first.

    ``trainings`` of ``epochs`` epochs are what the prediction rests on. ``whole`` and ``notes`` as in
    ParetoArchitectures.
    """

    table: str
    budget: Budget
    macs_convention: str
    trainings: int
    epochs: int
    whole: bool
    architectures: Sequence[PredictedArchitecture]
    notes: Sequence[str]


def derive_accuracy(
    folder: Path,
    tables: Mapping[str, LatencyTable],
    budget_text: str,
    points: int | None,
    plot: Path | None,
    progress: Progress,
) -> list[AccuracyFront]:
    """Return the front of predicted accuracy against latency for every table, and draw them into ``plot``.

    ``tables`` are by default those of the run; others can be of any device, for the run's target network or another one
    of the same space. ``points`` is the largest number of points in a space that cannot be enumerated. Nothing is
    trained.

    Raises HwnasError when the run is not finished or has no finalists, for a table that lacks the network, and for a
    budget that cannot be met.
    """
    if points is not None and points < 2:
        raise HwnasError(f"the number of points must be at least 2, not {points}", "leave out --points for all")
    if plot:
        require_picture(plot)
    run = read_networks(folder)[0].run
    networks, manifest = read_networks(run), read_manifest(run, FIX)
    sized, inputs_per_node = networks[0].sized, manifest.recipe.inputs_per_node
    if sized.space.is_recurrent:
        problem = "accuracy is predicted from finalists, which only networks of images can have"
        raise HwnasError(problem, "give another metric with --pareto")
    found = _finalists(run)
    model = _fit(found, sized.space, inputs_per_node)
    opened = tables or {device: read_table(run / table_file(manifest.tables, device)) for device in manifest.tables}
    fronts, curves = [], []
    for name, table in opened.items():
        network, notes = _network_of(name, table, sized)
        costs = build_metrics(table, network)
        budget, limits = _limits(costs, budget_text, inputs_per_node)
        points_found = front(
            model.worth(),
            costs[LATENCY.name],
            limits,
            inputs_per_node,
            points,
            lambda done, total, stage=f"points on {name}": progress(stage, done, total),  # type: ignore[misc]
        )
        rows = _describe(model, points_found, network, table, costs, limits)
        convention = sized.space.macs_convention
        trainings = len(model.model.known.operations)
        epochs = found.epochs["first"]
        fronts.append(AccuracyFront(name, budget, convention, trainings, epochs, points_found.whole, rows, notes))
        curves.append(_curve(fronts[-1]))
    if plot:
        plot_accuracy(curves, f"{sized.describe()}\npredicted from {trainings} trainings of {epochs} epochs", plot)
    return fronts


def _network_of(name: str, table: LatencyTable, sized: SizedSpace) -> tuple[SizedSpace, list[str]]:
    """Return the run's target network or, where the table lacks it, that of the table, and lines about it.

    An architecture has a latency in either. Raises HwnasError for a table without a network of the space.
    """
    try:
        build_metrics(table, sized)
    except HwnasError:
        other = common_network({name: table}, sized.space, None)
        if other == sized:
            raise
        note = f"{name} lacks the run's target network; costs are of the table's: {other.setting.describe()}"
        return other, [note, *head_notes({name: table}, other)]
    return sized, head_notes({name: table}, sized)


def _finalists(run: Path) -> FinalistsFile:
    """Read the run's finalists. Raises HwnasError where there are none, or not all that a prediction needs."""
    found = read_finalists(run, FIX)
    if found is None:
        raise HwnasError(f"{run} has no finalists, from which accuracy is predicted", FIX)
    if not found.validation_images or "first" not in found.epochs:
        raise HwnasError(f"{run / FINALISTS_FILE} does not say on how many images finalists were validated", FIX)
    return found


def _fit(found: FinalistsFile, space: SearchSpace, inputs_per_node: int | None) -> AdditiveModel:
    rows = {
        row.architecture: row.validation_accuracy
        for row in found.trainings
        if row.stage == "first" and row.validation_accuracy is not None
    }
    if not rows:
        raise HwnasError(f"{FINALISTS_FILE} has no training that did not diverge", FIX)
    accuracies, images = np.array(list(rows.values())), found.validation_images
    assert images is not None
    return AdditiveModel.fit(space, [space.parse(text) for text in rows], accuracies, images, inputs_per_node)


def _limits(costs: Mapping[str, CostFunction], text: str, inputs_per_node: int | None) -> tuple[Budget, Limits]:
    if not text:
        return Budget("", {}), {}
    previews = preview(costs)
    budget = parse_budget(text, previews)
    limits = limits_of(previews, budget)
    require_possible(text, limits, inputs_per_node)
    return budget, limits


def _describe(
    model: AdditiveModel,
    found: ParetoSet,
    sized: SizedSpace,
    table: LatencyTable,
    costs: Mapping[str, CostFunction],
    limits: Limits,
) -> list[PredictedArchitecture]:
    bounded = [{**limits, found.metric: (costs[found.metric], point.cost)} for point in found.points]
    architectures = [
        without_dead(point.architecture, sized.space, within, model.inputs_per_node)
        for point, within in zip(found.points, bounded, strict=True)
    ]
    choices = encode(sized.space, architectures)
    deviations = float(ndtri(0.5 + LEVEL / 2))
    accuracies = [model.accuracies(choices, by) for by in (0.0, -deviations, deviations)]
    described = describe_costs(sized, costs, {LATENCY.name: table}, choices)
    return [
        PredictedArchitecture(
            sized.space.format(architecture, all_edges=True), float(mean), (float(low), float(high)), *own
        )
        for architecture, mean, low, high, own in zip(architectures, *accuracies, described, strict=True)
    ]


def _curve(found: AccuracyFront) -> AccuracyCurve:
    rows = found.architectures
    low, high = zip(*(row.accuracy_interval for row in rows), strict=True)
    latencies, accuracies = [row.costs[LATENCY.name] for row in rows], [row.accuracy for row in rows]
    return AccuracyCurve(found.table, found.whole, latencies, accuracies, low, high)


def format_front(found: AccuracyFront) -> str:
    """Return a table of the architectures of a front with their predicted accuracies and costs."""
    rows = found.architectures
    costs = format_costs(found.macs_convention, [(row.costs, row.intervals) for row in rows])
    cells = [
        [
            row.architecture,
            f"{row.accuracy:.1%}",
            f"{row.accuracy_interval[0]:.1%}",
            f"{row.accuracy_interval[1]:.1%}",
            *own,
        ]
        for row, own in zip(rows, costs[1:], strict=True)
    ]
    within = f" within {found.budget.describe()}" if found.budget.limits else ""
    title = (
        f"{found.table}: validation accuracy after {found.epochs} epochs, predicted from {found.trainings} trainings, "
        f"against latency{within}"
    )
    return format_table(title, ["architecture", "accuracy", f"from ({LEVEL:.0%})", "to", *costs[0]], cells)
