"""The section of a page about verification: predicted and measured latencies of a run's networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hwnas.report.charts import verification
from hwnas.report.figure import Figure
from hwnas.report.labels import latency_text
from hwnas.report.run_content import RunContent
from hwnas.runs.schema import DeviceTiming

Timed = tuple[str, DeviceTiming, float]  # a network's name, its latency, and that as measured, in ms


def verification_rows(run: RunContent, labels: Sequence[str]) -> list[list[str]]:
    """Return a row of texts for every network and device that was timed."""
    return [
        [
            name,
            "–" if timing.budget_ms is None else f"{timing.budget_ms:.4g} ms",
            f"{timing.predicted_ms:.4g} ms",
            latency_text(timing).removesuffix(" (measured)"),
            f"{measured_ms / timing.predicted_ms - 1:+.1%}" if timing.predicted_ms else "–",
            "–" if timing.measured_raw_ms is None else f"{timing.measured_raw_ms:.4g} ms",
            {True: "yes", False: "NO", None: "–"}[timing.kept],
            timing.timed_on or "–",
        ]
        for name, timing, measured_ms in _timed(run, labels)
    ]


def verification_figure(run: RunContent, labels: Sequence[str], prefix: str) -> Figure | None:
    """Return the chart of budgets, predictions and measurements; None where nothing was timed."""
    timed = _timed(run, labels)
    if not timed:
        return None
    points = [point for network in timed for point in _points(network)]
    caption = "budget, prediction and measurement of every network that was timed; the bar is the measurement's error"
    data = [{key: value for key, value in point.items() if key != "tip"} for point in points]
    return Figure(f"{prefix}verification", caption, verification(points, [name for name, _, _ in timed]), data)


def _timed(run: RunContent, labels: Sequence[str]) -> list[Timed]:
    return [
        (label + f" on {timing.device}" * (len(target.timings) > 1), timing, timing.measured_ms)
        for target, label in zip(run.targets, labels, strict=True)
        for timing in target.timings
        if timing.measured_ms is not None
    ]


def _points(network: Timed) -> list[dict[str, Any]]:
    name, timing, measured_ms = network
    amounts = (
        ("budget", timing.budget_ms, None),
        ("predicted", timing.predicted_ms, None),
        ("measured", measured_ms, timing.measured_error_ms),
    )
    return [
        {
            "label": name,
            "what": what,
            "ms": ms,
            "least_ms": None if error is None else ms - error,
            "most_ms": None if error is None else ms + error,
            "tip": f"{name}; {what} {ms:.4g} ms" + ("" if error is None else f" ± {error:.2g} ms"),
        }
        for what, ms, error in amounts
        if ms is not None
    ]
