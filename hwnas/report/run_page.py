"""The page of finished runs of ``hwnas search``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hwnas.errors import HwnasError
from hwnas.report.charts import pareto
from hwnas.report.page import file_name, render, write_page
from hwnas.report.reproduce import commands, inputs, versions
from hwnas.report.run_content import RunContent
from hwnas.report.run_section import RunPart, latency_of, run_part, target_labels
from hwnas.report.svg import Figure, colours
from hwnas.report.table_section import table_figures
from hwnas.runs.plots import PlottedNetwork, pareto_front

WIDE, NARROW = (640, 330), (262, 270)  # of the plot of latency against accuracy, in pixels


def write_run_page(runs: Sequence[RunContent], out: Path, folder: Path) -> list[Path]:
    """Write the page of finished runs to ``out``, and into ``folder`` its figures and numbers, and what the commands
    to reproduce read. Returns the files in ``folder``.

    Raises HwnasError when either cannot be written, and when two runs have the same name.
    """
    names = [run.name for run in runs]
    prefixes = [file_name(f"{name}-") if len(runs) > 1 else "" for name in names]
    if twice := next((name for name, prefix in zip(names, prefixes, strict=True) if prefixes.count(prefix) > 1), None):
        raise HwnasError(f"two of the runs are called {twice}", "give each folder once, or rename one")
    parts = [
        run_part(run, number, runs, prefix) for number, (run, prefix) in enumerate(zip(runs, prefixes, strict=True), 1)
    ]
    fronts = _pareto_figures(runs, parts)
    reproduce = [commands(run, str(folder), prefix) for run, prefix in zip(runs, prefixes, strict=True)]
    text = render(
        "run.html",
        title="hwnas: " + ", ".join(names),
        runs=[
            {
                "part": part,
                "commands": lines,
                "versions": versions(run.manifest.versions),
                "manifest": run.manifest.to_json(),
                "plugin": run.manifest.plugin,
            }
            for part, lines, run in zip(parts, reproduce, runs, strict=True)
        ],
        fronts=fronts,
        files=str(folder),
    )
    figures = [*fronts, *(figure for part in parts for figure in _figures(part))]
    read = {
        name: content
        for run, prefix in zip(runs, prefixes, strict=True)
        for name, content in inputs(run, prefix).items()
    }
    numbers = [_numbers(run, part, lines) for run, part, lines in zip(runs, parts, reproduce, strict=True)]
    return write_page(out, folder, text, figures, read, {"runs": numbers})


def _pareto_figures(runs: Sequence[RunContent], parts: Sequence[RunPart]) -> list[Figure]:
    """One for every device and data: only there can latencies and accuracies be compared."""
    panels: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run, part in zip(runs, parts, strict=True):
        for target, shown, name in zip(run.targets, part.targets, target_labels(run), strict=True):
            label = f"{run.name}, {name}" if len(runs) > 1 else name
            for timing in target.timings:
                measured = timing.measured_ms is not None
                ms = timing.latency_ms
                error = timing.measured_error_ms if measured else None
                row = {
                    "label": label,
                    "latency_ms": ms,
                    "measured": measured,
                    "least_ms": None if error is None else ms - error,
                    "most_ms": None if error is None else ms + error,
                    "budget_ms": timing.budget_ms,
                    "accuracy": target.row.accuracy,
                    "href": f"#{shown.id}",
                    "tip": f"{label}; {latency_of(timing)}; {target.row.accuracy:.2%} of the test images right; "
                    f"{shown.verdict}; {target.row.architecture}",
                    "budget_tip": f"budget {label}; {timing.budget_ms or 0:.4g} ms",
                }
                device = timing.device
                panels.setdefault((device, run.tables[device].describe(), run.manifest.data), []).append(row)
    figures = []
    for number, ((device, description, data), rows) in enumerate(panels.items(), start=1):
        names = colours(row["label"] for row in rows)
        made = [PlottedNetwork(r["label"], r["latency_ms"], r["measured"], r["budget_ms"], r["accuracy"]) for r in rows]
        front = [{"latency_ms": n.latency_ms, "accuracy": n.accuracy} for n in pareto_front(made)]
        drawn = [pareto(rows, front, names, device, width, height) for width, height in (WIDE, NARROW)]
        caption = (
            f"Networks on {device} ({description}), images of {data}. Filled: measured, with the measurement's error; "
            "hollow: predicted. Dashed: budgets. Grey: the Pareto front of these networks."
        )
        hidden = ("href", "tip", "budget_tip")
        numbers = [{key: value for key, value in row.items() if key not in hidden} for row in rows]
        figures.append(Figure(f"pareto-{number}", caption, drawn[0], numbers, narrow=drawn[1]))
    return figures


def _figures(part: RunPart) -> Iterator[Figure]:
    for target in part.targets:
        for cell in target.cells:
            yield cell.graph
            if cell.learnt:
                yield cell.learnt
    yield from part.charts
    for table in part.tables:
        yield from table_figures(table)
    if part.verification_figure:
        yield part.verification_figure


def _numbers(run: RunContent, part: RunPart, lines: Sequence[str]) -> dict[str, Any]:
    """Everything that the page says of a run."""
    return {
        "name": run.name,
        "answer": part.answer,
        "finished": run.summary.finished,
        "manifest": run.manifest.to_json(),
        "targets": [target.to_json() for target in run.summary.targets],
        "cells": {
            target.label: {cell.kind: cell.graph.data for cell in target.cells} for target in part.targets
        },
        "epochs": [
            epoch.to_json() for target in run.targets for epoch in target.epochs
        ],
        "tables": {
            device: {
                "describes": table.describe(),
                "sha256": table.sha256,
                "additivity": {key: value.model_dump(mode="json") for key, value in table.quality.additivity.items()},
            }
            for device, table in run.tables.items()
        },
        "commands": list(lines),
    }  # fmt: skip
