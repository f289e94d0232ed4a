"""The report as one page that needs nothing else, and its figures and numbers as files.

Everything that comes from a file is escaped; the page's own policy lets nothing run but its own script, and nothing be
fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from hwnas import __version__
from hwnas.errors import HwnasError
from hwnas.files import atomic_path, write_json, write_text
from hwnas.report.charts import pareto, png_of
from hwnas.report.reproduce import commands, inputs, versions
from hwnas.report.run_content import RunContent
from hwnas.report.run_part import RunPart, latency_of, run_part, target_labels
from hwnas.report.run_pictures import Network, pareto_front
from hwnas.report.svg import DARK, LIGHT, Figure, as_file, colours, in_page
from hwnas.report.table_part import TablePart, table_part
from hwnas.shelves.records import printable
from hwnas.tables.schema import LatencyTable, today

WIDE, NARROW = (640, 330), (262, 270)  # of the plot of latency against accuracy, in pixels


def write_report(runs: Sequence[RunContent], out: Path, folder: Path) -> list[Path]:
    """Write the page of finished runs to ``out``, and into ``folder`` its figures and numbers, and what the commands
    to reproduce read. Returns the files in ``folder``.

    Raises HwnasError when either cannot be written, and when two runs have the same name.
    """
    names = [run.name for run in runs]
    prefixes = [_file_name(f"{name}-") if len(runs) > 1 else "" for name in names]
    if twice := next((name for name, prefix in zip(names, prefixes, strict=True) if prefixes.count(prefix) > 1), None):
        raise HwnasError(f"two of the runs are called {twice}", "give each folder once, or rename one")
    parts = [
        run_part(run, number, runs, prefix) for number, (run, prefix) in enumerate(zip(runs, prefixes, strict=True), 1)
    ]
    fronts = _pareto_figures(runs, parts)
    reproduce = [commands(run, str(folder), prefix) for run, prefix in zip(runs, prefixes, strict=True)]
    text = _render(
        "run.html",
        title="hwnas: " + ", ".join(names),
        runs=[
            {
                "part": part,
                "commands": lines,
                "versions": versions(run.manifest.versions),
                "manifest": run.raw_manifest,
                "plugin": run.manifest.plugin,
            }
            for part, lines, run in zip(parts, reproduce, runs, strict=True)
        ],
        fronts=fronts,
        files=str(folder),
    )
    written = []
    for figure in [*fronts, *(figure for part in parts for figure in _figures(part))]:
        written += _write_figure(folder, figure)
    for run, prefix in zip(runs, prefixes, strict=True):
        for name, content in inputs(run, prefix).items():
            write_text(folder / name, content)
            written.append(folder / name)
    numbers = [_numbers(run, part, lines) for run, part, lines in zip(runs, parts, reproduce, strict=True)]
    write_json(folder / "report.json", {"hwnas": __version__, "runs": numbers})
    write_text(out, text)
    return [*written, folder / "report.json"]


def write_table_page(table: LatencyTable, name: str, out: Path) -> None:
    """Write a page that shows a latency table. Raises HwnasError when the folder cannot be written."""
    write_text(out, _render("table.html", title=f"hwnas: latency table {name}", part=table_part(table, name, "")))


def _pareto_figures(runs: Sequence[RunContent], parts: Sequence[RunPart]) -> list[Figure]:
    """One for every device and data: only there can latencies and accuracies be compared."""
    panels: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run, part in zip(runs, parts, strict=True):
        for target, shown, name in zip(run.targets, part.targets, target_labels(run), strict=True):
            label = f"{run.name}, {name}" if len(runs) > 1 else name
            for timing in target.timings:
                measured = timing.measured_ms is not None
                ms = timing.predicted_ms if timing.measured_ms is None else timing.measured_ms
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
        made = [Network(r["label"], r["latency_ms"], r["measured"], r["budget_ms"], r["accuracy"]) for r in rows]
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
        yield from _table_figures(table)
    if part.verification_figure:
        yield part.verification_figure


def _table_figures(part: TablePart) -> Iterator[Figure]:
    yield from part.maps
    for proof in part.proofs:
        if proof.figure:
            yield proof.figure


def _write_figure(folder: Path, figure: Figure) -> list[Path]:
    """A figure's SVG, PNG and numbers."""
    stem, svg = _file_name(figure.name), as_file(figure.svg)
    files = [folder / f"{stem}.{suffix}" for suffix in ("svg", "png", "json")]
    write_text(files[0], svg)
    with atomic_path(files[1]) as temporary:
        temporary.write_bytes(png_of(svg))
    write_json(files[2], {"caption": figure.caption, "data": figure.data})
    return files


def _file_name(text: str) -> str:
    """``text`` as a file's name: names of devices and budgets come from files."""
    return re.sub(r"[^\w.-]+", "_", text).lstrip(".")[:120]


def _numbers(run: RunContent, part: RunPart, lines: Sequence[str]) -> dict[str, Any]:
    """Everything that the page says of a run."""
    return {
        "name": run.name,
        "answer": part.answer,
        "finished": run.finished,
        "manifest": run.raw_manifest,
        "targets": run.rows,
        "cells": {
            target.label: {cell.kind: cell.graph.data for cell in target.cells} for target in part.targets
        },
        "epochs": [
            epoch.model_dump(by_alias=True, mode="json") for target in run.targets for epoch in target.epochs
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


def _render(template: str, **content: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    counter = iter(range(1_000_000))

    def figure(shown: Figure, narrow: bool = False) -> Markup:
        svg = shown.narrow if narrow else shown.svg
        return Markup(in_page(svg, f"f{next(counter)}-", shown.caption))

    def finalize(value: Any) -> Any:
        """What hides or moves letters is shown as a question mark."""
        return value if isinstance(value, Markup) else "".join(c if c == "\n" else printable(c) for c in str(value))

    environment = Environment(
        loader=PackageLoader("hwnas.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=finalize,
    )  # fmt: skip
    environment.globals["figure"] = figure
    environment.filters["json"] = lambda value: escape(json.dumps(value, indent=2, sort_keys=True))
    script = _part("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        style=Markup(_style()), script=Markup(script), script_hash=digest, made=today(), version=__version__, **content
    )


def _style() -> str:
    """The style sheet, with the colours of both themes."""
    light, dark = (";".join(f"--{name}:{colour}" for name, colour in theme.items()) for theme in (LIGHT, DARK))
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
        f"@media screen{{:root[data-theme=dark]{{color-scheme:dark;{dark}}}}}\n" + _part("page.css")
    )


@cache
def _part(name: str) -> str:
    return (resources.files("hwnas.report") / "templates" / name).read_text(encoding="utf-8")
