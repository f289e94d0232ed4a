"""Charts of latency against accuracy, or perplexity of text, over all runs of a page."""

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
from hwnas.runs.plots import PROXY, PlottedNetwork, comparable_qualities, pareto_front, quality_title
from hwnas.runs.schema import DeviceTiming

WIDE, NARROW = (640, 330), (262, 270)  # pixels
PAGE_ONLY = ("href", "tip", "budget_tip")  # fields of a point that are not among the figure's numbers


class _Panel(NamedTuple):
    """Networks whose latencies and qualities are comparable; ``title`` is that of the axis of the latter."""

    device: str
    description: str
    data: str
    title: str


def pareto_figures(runs: Sequence[RunContent], sections: Sequence[RunSection]) -> list[Figure]:
    """Return one figure for each device, data set and kind of quality."""
    panels: dict[_Panel, list[tuple[PlottedNetwork, dict[str, Any]]]] = {}
    for run, section in zip(runs, sections, strict=True):
        tested, qualities = comparable_qualities(run.summary.targets)
        data = run.manifest.data if tested == PROXY else run.target_data
        labels = target_labels(run)
        for target, shown, name, quality in zip(run.targets, section.targets, labels, qualities, strict=True):
            label = f"{run.name}, {name}" if len(runs) > 1 else name
            for timing in target.timings:
                title = quality_title(quality, tested)
                panel = _Panel(timing.device, run.tables[timing.device].describe(), data, title)
                measured = timing.measured_ms is not None
                network = PlottedNetwork(label, timing.latency_ms, measured, timing.budget_ms, quality)
                point = _point(network, target, shown, timing)
                point["tip"] += f"; the {quality.name} is that of its proxy" * (tested == PROXY)
                panels.setdefault(panel, []).append((network, point))
    return [_figure(number, panel, rows) for number, (panel, rows) in enumerate(panels.items(), start=1)]


def _point(network: PlottedNetwork, target: Target, shown: TargetSection, timing: DeviceTiming) -> dict[str, Any]:
    label, quality, ms = network.budget, network.quality, network.latency_ms
    error = timing.measured_error_ms if network.measured else None
    return {
        "label": label,
        "latency_ms": ms,
        "measured": network.measured,
        "least_ms": None if error is None else ms - error,
        "most_ms": None if error is None else ms + error,
        "budget_ms": timing.budget_ms,
        quality.name: quality.number,
        "href": f"#{shown.id}",
        "tip": f"{label}; {latency_text(timing)}; {quality.of_test(2)}; {shown.verdict}; {target.row.architecture}",
        "budget_tip": f"budget {label}; {timing.budget_ms or 0:.4g} ms",
    }


def _figure(number: int, panel: _Panel, points: Sequence[tuple[PlottedNetwork, dict[str, Any]]]) -> Figure:
    networks, rows = [network for network, _ in points], [row for _, row in points]
    names, quality = colours(row["label"] for row in rows), networks[0].quality
    front = [{"latency_ms": n.latency_ms, quality.name: n.quality.number} for n in pareto_front(networks)]
    axis = quality.name, panel.title
    wide, narrow = (pareto(rows, front, names, panel.device, axis, size) for size in (WIDE, NARROW))
    caption = (
        f"Networks on {panel.device} ({panel.description}), {quality.examples} of {panel.data}. Filled: measured, with "
        "the measurement's error; hollow: predicted. Dashed: budgets. Grey: the Pareto front of these networks."
    )
    numbers = [{key: value for key, value in row.items() if key not in PAGE_ONLY} for row in rows]
    return Figure(f"pareto-{number}", caption, wide, numbers, narrow=narrow)
