"""Charts of latency against accuracy, over all runs of a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from hwnas.report.charts import pareto
from hwnas.report.figure import Figure
from hwnas.report.labels import latency_text, target_labels
from hwnas.report.run_content import RunContent, Target
from hwnas.report.run_section import RunSection
from hwnas.report.target_section import TargetSection
from hwnas.report.theme import colours
from hwnas.runs.plots import PROXY_ACCURACY, PlottedNetwork, comparable_accuracies, pareto_front
from hwnas.runs.schema import DeviceTiming

WIDE, NARROW = (640, 330), (262, 270)  # pixels
PAGE_ONLY = ("href", "tip", "budget_tip")  # fields of a point that are not among the figure's numbers


class _Panel(NamedTuple):
    """Networks whose latencies and accuracies are comparable."""

    device: str
    description: str
    data: str
    accuracy: str


def pareto_figures(runs: Sequence[RunContent], sections: Sequence[RunSection]) -> list[Figure]:
    """Return one figure for each device, data set and kind of accuracy."""
    panels: dict[_Panel, list[dict[str, Any]]] = {}
    for run, section in zip(runs, sections, strict=True):
        what, accuracies = comparable_accuracies(run.summary.targets)
        data = run.manifest.data if what == PROXY_ACCURACY else run.target_data
        labels = target_labels(run)
        for target, shown, name, accuracy in zip(run.targets, section.targets, labels, accuracies, strict=True):
            label = f"{run.name}, {name}" if len(runs) > 1 else name
            for timing in target.timings:
                panel = _Panel(timing.device, run.tables[timing.device].describe(), data, what)
                point = _point(label, target, shown, timing, accuracy)
                point["tip"] += "; the accuracy is that of its proxy" * (what == PROXY_ACCURACY)
                panels.setdefault(panel, []).append(point)
    return [_figure(number, panel, rows) for number, (panel, rows) in enumerate(panels.items(), start=1)]


def _point(label: str, target: Target, shown: TargetSection, timing: DeviceTiming, accuracy: float) -> dict[str, Any]:
    measured, ms = timing.measured_ms is not None, timing.latency_ms
    error = timing.measured_error_ms if measured else None
    correct = f"{accuracy:.2%} of the test images right"
    return {
        "label": label,
        "latency_ms": ms,
        "measured": measured,
        "least_ms": None if error is None else ms - error,
        "most_ms": None if error is None else ms + error,
        "budget_ms": timing.budget_ms,
        "accuracy": accuracy,
        "href": f"#{shown.id}",
        "tip": f"{label}; {latency_text(timing)}; {correct}; {shown.verdict}; {target.row.architecture}",
        "budget_tip": f"budget {label}; {timing.budget_ms or 0:.4g} ms",
    }


def _figure(number: int, panel: _Panel, rows: Sequence[dict[str, Any]]) -> Figure:
    names = colours(row["label"] for row in rows)
    networks = [
        PlottedNetwork(row["label"], row["latency_ms"], row["measured"], row["budget_ms"], row["accuracy"])
        for row in rows
    ]
    front = [{"latency_ms": n.latency_ms, "accuracy": n.accuracy} for n in pareto_front(networks)]
    wide, narrow = (pareto(rows, front, names, panel.device, panel.accuracy, size) for size in (WIDE, NARROW))
    caption = (
        f"Networks on {panel.device} ({panel.description}), images of {panel.data}. Filled: measured, with the "
        "measurement's error; hollow: predicted. Dashed: budgets. Grey: the Pareto front of these networks."
    )
    numbers = [{key: value for key, value in row.items() if key not in PAGE_ONLY} for row in rows]
    return Figure(f"pareto-{number}", caption, wide, numbers, narrow=narrow)
