"""Write the page of a benchmark of ``hwnas benchmark``."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hwnas.report.benchmark_content import BenchmarkContent
from hwnas.report.benchmark_section import BenchmarkSection, benchmark_section
from hwnas.report.figure import Figure
from hwnas.report.page import render_page, write_page
from hwnas.report.table_section import table_figures
from hwnas.tables.io import table_text

# The files of accuracies and latencies in the command to reproduce; their paths are not recorded.
ACCURACY, LATENCY = "nb201_accuracy.csv.gz", "nb201_latency_ms.csv.gz"


def write_benchmark_page(content: BenchmarkContent, out: Path, folder: Path) -> list[Path]:
    """Write the page to ``out``, and its figures, its numbers and the inputs of its command into ``folder``.

    Returns the files in ``folder``. Raises HwnasError when they cannot be written.
    """
    section, line, made = benchmark_section(content), command(content, str(folder)), _manifest(content)
    text = render_page(
        "benchmark.html",
        title=f"hwnas: {content.name}",
        section=section,
        command=line,
        accuracy=ACCURACY,
        accuracy_sha256=content.summary.accuracy_sha256,
        latency=LATENCY,
        latency_sha256=content.summary.latency.sha256 if content.summary.latency else "",
        table_hashes=content.table_hashes,
        versions=_versions(content),
        manifest=made,
        files=str(folder),
    )
    return write_page(
        out, folder, text, _figures(section), _inputs(content), {"benchmark": _numbers(content, section, line)}
    )


def command(content: BenchmarkContent, folder: str) -> str:
    """Return the shell line that repeats the benchmark in a new folder; ``folder`` holds its inputs."""
    summary, first = content.summary, content.cells[0].result
    target, searched = content.target.setting, content.searched.setting
    columns = summary.latency.columns if summary.latency else {}
    budgets = dict.fromkeys(row.budget.text for row in content.targets if row.budget.limits)
    options = [
        *(("--method", row.method) for row in content.methods),
        ("--seeds", ",".join(str(seed) for seed in content.methods[0].seeds)),
        ("--accuracy", ACCURACY),
        *([("--latency", LATENCY)] if columns else []),
        *(("--latency-column", f"{name}={column}") for name, column in columns.items()),
        ("--data", summary.data),
        ("--channels", str(target.channels)),
        ("--cells", str(target.depth)),
        ("--search-channels", str(searched.channels)),
        ("--search-cells", str(searched.depth)),
        *(("--table", f"{folder}/tables/{name}.json") for name in content.table_hashes),
        *(("--budget", text) for text in budgets),
        ("--recipe", f"{folder}/recipes/{{method}}.yaml"),
        # This many searches in parallel give each search the threads that it had.
        ("--jobs", str(max(1, first.machine.cores // first.threads))),
        ("--out", f"runs/{content.name}-again"),
    ]
    return shlex.join(["hwnas", "benchmark", "nasbench201", *(f"{name}={value}" for name, value in options)])


def _inputs(content: BenchmarkContent) -> dict[str, str]:
    """Return the files that the command reads besides images, accuracies and measured latencies, by name."""
    import yaml

    recipes = {f"recipes/{m}.yaml": yaml.safe_dump(recipe, sort_keys=True) for m, recipe in content.recipes.items()}
    return recipes | {f"tables/{name}.json": table_text(table) for name, table in content.tables.items()}


def _manifest(content: BenchmarkContent) -> dict[str, Any]:
    """Return the settings that all searches share, the recipe of every method, and the manifest of every search."""
    settings = content.cells[0].result.settings.to_json()
    shared = {name: value for name, value in settings.items() if name != "recipe"}
    searches = {(found.result.method, found.result.seed): found.manifest for found in content.cells}
    return {
        "settings": shared | {"accuracy_sha256": content.summary.accuracy_sha256},
        "recipes": content.recipes,
        "searches": list(searches.values()),
    }


def _versions(content: BenchmarkContent) -> str:
    """Return the recorded versions."""
    manifests = [found.manifest for found in content.cells]
    recorded = {f"{name} {known[name]}" for known in manifests for name in ("hwnas", "torch") if name in known}
    return ", ".join(sorted(recorded))


def _figures(section: BenchmarkSection) -> Iterator[Figure]:
    yield from (*section.regrets, *section.costs, *section.collapse, *(cell.graph for cell in section.cells))
    for table in section.tables:
        yield from table_figures(table)


def _numbers(content: BenchmarkContent, section: BenchmarkSection, line: str) -> dict[str, Any]:
    """Return everything that the page shows, as JSON."""
    return {
        "name": content.name,
        "answer": section.answer,
        "summary": content.summary.to_json(),
        "results": [found.result.to_json() for found in content.cells],
        "kept": {cell.name: found.result.keeps for cell, found in zip(section.cells, content.cells, strict=True)},
        "cells": {cell.name: cell.graph.data for cell in section.cells},
        "manifest": _manifest(content),
        "commands": [line],
    }
