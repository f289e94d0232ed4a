"""Write the page of finished runs of ``hwnas search``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwnas.errors import HwnasError
from hwnas.report.page import file_name, render_page, write_page
from hwnas.report.pareto_figures import pareto_figures
from hwnas.report.reproduce import commands, inputs, versions
from hwnas.report.run_content import RunContent
from hwnas.report.run_section import RunSection, run_section


def write_run_page(runs: Sequence[RunContent], out: Path, folder: Path) -> list[Path]:
    """Write the page to ``out``, and its figures, its numbers and the inputs of its commands into ``folder``.

    Returns the files in ``folder``. Raises HwnasError when they cannot be written, and when two runs have the same
    name.
    """
    names = [run.name for run in runs]
    prefixes = [file_name(f"{name}-") if len(runs) > 1 else "" for name in names]
    if twice := next((name for name, prefix in zip(names, prefixes, strict=True) if prefixes.count(prefix) > 1), None):
        raise HwnasError(f"two of the runs are called {twice}", "give each folder once, or rename one")
    sections = [
        run_section(run, number, runs, prefix)
        for number, (run, prefix) in enumerate(zip(runs, prefixes, strict=True), start=1)
    ]
    fronts = pareto_figures(runs, sections)
    command_lines = [commands(run, str(folder), prefix) for run, prefix in zip(runs, prefixes, strict=True)]
    contents = [
        {
            "section": section,
            "commands": lines,
            "versions": versions(run.manifest.versions),
            "manifest": run.manifest.to_json(),
            "plugin": run.manifest.plugin,
        }
        for section, lines, run in zip(sections, command_lines, runs, strict=True)
    ]
    title = "hwnas: " + ", ".join(names)
    text = render_page("run.html", title=title, runs=contents, fronts=fronts, files=str(folder))
    figures = [*fronts, *(figure for section in sections for figure in section.figures())]
    input_files = {
        name: content
        for run, prefix in zip(runs, prefixes, strict=True)
        for name, content in inputs(run, prefix).items()
    }
    numbers = [_numbers(run, section, lines) for run, section, lines in zip(runs, sections, command_lines, strict=True)]
    return write_page(out, folder, text, figures, input_files, {"runs": numbers})


def _numbers(run: RunContent, section: RunSection, lines: Sequence[str]) -> dict[str, Any]:
    """Return everything that the page shows of a run, as JSON."""
    return {
        "name": run.name,
        "answer": section.answer,
        "finished": run.summary.finished,
        "manifest": run.manifest.to_json(),
        "targets": [target.to_json() for target in run.summary.targets],
        "cells": {
            target.label: {cell.kind: cell.graph.data for cell in target.cells} for target in section.targets
        },
        "finalists": run.finalists and run.finalists.to_json(),
        "epochs": [epoch.to_json() for target in run.targets for epoch in target.epochs],
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
