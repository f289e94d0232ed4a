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

ACCURACY = "nb201_accuracy.csv.gz"  # the accuracy table in the command to reproduce; its path is not recorded


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
        table_sha256=content.searches[0].found.settings.table,
        versions=_versions(content),
        manifest=made,
        files=str(folder),
    )
    return write_page(
        out, folder, text, _figures(section), _inputs(content), {"benchmark": _numbers(content, section, line)}
    )


def command(content: BenchmarkContent, folder: str) -> str:
    """Return the shell line that repeats the benchmark in a new folder; ``folder`` holds its inputs."""
    summary, setting, first = content.summary, content.sized.setting, content.searches[0].found
    options = [
        *(("--method", row.method) for row in summary.methods),
        ("--seeds", ",".join(str(seed) for seed in summary.methods[0].seeds)),
        ("--accuracy", ACCURACY),
        ("--data", summary.data),
        ("--channels", str(setting.channels)),
        ("--cells", str(setting.depth)),
        ("--recipe", f"{folder}/recipes/{{method}}.yaml"),
        # This many searches in parallel give each search the threads that it had.
        ("--jobs", str(max(1, first.machine.cores // first.threads))),
        ("--out", f"runs/{content.name}-again"),
    ]
    if content.budget.limits:
        options += [("--table", f"{folder}/table.json"), ("--budget", content.budget.text)]
    return shlex.join(["hwnas", "benchmark", "nasbench201", *(f"{name}={value}" for name, value in options)])


def _inputs(content: BenchmarkContent) -> dict[str, str]:
    """Return the files that the command reads besides the images and the accuracies, by name."""
    import yaml

    files = {
        f"recipes/{row.method}.yaml": yaml.safe_dump(content.of(row.method)[0].found.settings.recipe, sort_keys=True)
        for row in content.summary.methods
    }
    return files | ({"table.json": table_text(content.table)} if content.table else {})


def _manifest(content: BenchmarkContent) -> dict[str, Any]:
    """Return the settings that all searches share, the recipe of every method, and the manifest of every search."""
    shared = {name: value for name, value in content.searches[0].raw["settings"].items() if name != "recipe"}
    return {
        "settings": shared | {"accuracy_sha256": content.summary.accuracy_sha256},
        "recipes": {
            row.method: content.of(row.method)[0].found.settings.recipe for row in content.summary.methods
        },
        "searches": [search.manifest for search in content.searches],
    }  # fmt: skip


def _versions(content: BenchmarkContent) -> str:
    """Return the recorded versions."""
    manifests = [search.manifest for search in content.searches]
    recorded = {f"{name} {known[name]}" for known in manifests for name in ("hwnas", "torch") if name in known}
    return ", ".join(sorted(recorded))


def _figures(section: BenchmarkSection) -> Iterator[Figure]:
    yield from (*section.regrets, *section.costs, *section.collapse, *(search.graph for search in section.searches))
    if section.table:
        yield from table_figures(section.table)


def _numbers(content: BenchmarkContent, section: BenchmarkSection, line: str) -> dict[str, Any]:
    """Return everything that the page shows, as JSON."""
    return {
        "name": content.name,
        "answer": section.answer,
        "summary": content.raw,
        "results": [search.raw for search in content.searches],
        "kept": {search.name: search.kept(content.budget) for search in content.searches},
        "cells": {search.name: search.graph.data for search in section.searches},
        "manifest": _manifest(content),
        "commands": [line],
    }
