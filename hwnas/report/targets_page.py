"""Write the page of a benchmark of several targets: regret on every device within every budget, beside baselines."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas.benchmark.summary import BASELINES, SHORT, target_footnote, target_table
from hwnas.budgets.budget import format_amount
from hwnas.report.benchmark_page import ACCURACY
from hwnas.report.benchmark_section import Grid
from hwnas.report.charts import strip
from hwnas.report.figure import Figure
from hwnas.report.page import render_page, write_page
from hwnas.report.targets_content import TargetFound, TargetsContent
from hwnas.tables.io import table_text
from hwnas.text import plural

LATENCY = "nb201_latency_ms.csv.gz"  # the measured latencies in the command; their path is not recorded


@dataclass(frozen=True)
class TargetsSection:
    """The content of the page; ``targets`` is a table for each data set."""

    name: str
    answer: str
    settings: list[tuple[str, str]]
    regrets: list[Figure]
    targets: dict[str, Grid]
    cells: Grid
    has_tables: bool


def write_targets_page(content: TargetsContent, out: Path, folder: Path) -> list[Path]:
    """Write the page to ``out``, and its figures, its numbers and the inputs of its command into ``folder``.

    Returns the files in ``folder``. Raises HwnasError when they cannot be written.
    """
    section, line = _section(content), command(content, str(folder))
    text = render_page(
        "targets.html",
        title=f"hwnas: {content.name}",
        section=section,
        summary=content.summary,
        command=line,
        accuracy=ACCURACY,
        latency=LATENCY,
        settings=_settings_of(content),
        files=str(folder),
    )
    numbers = {
        "name": content.name,
        "answer": section.answer,
        "summary": content.raw,
        "results": [found.to_json() for found in content.found],
        "commands": [line],
    }
    return write_page(out, folder, text, section.regrets, _inputs(content), {"benchmark": numbers})


def _section(content: TargetsContent) -> TargetsSection:
    summary = content.summary
    note = target_footnote(content.raw)
    return TargetsSection(
        name=content.name,
        answer=answer(content),
        settings=_facts(content),
        regrets=[_regret_figure(content, data_set) for data_set in summary.data_sets],
        targets={name: Grid(*target_table(content.raw, name), f"{note}.") for name in summary.data_sets},
        cells=_cells(content),
        has_tables=bool(content.tables),
    )


def answer(content: TargetsContent) -> str:
    """Return the outcome on the first data set in one sentence: methods, then baselines, by mean regret."""
    summary, first = content.summary, content.summary.data_sets[0]
    parts = [f"{row.name} {row.regret[first]:.2f}" for row in sorted(summary.overall, key=lambda r: r.regret[first])]
    kept = [found.kept for found in content.found]
    judged = "truly keep" if summary.latency else "keep, as the tables predict,"
    unknown = f" ({kept.count(None)} were not measured)" * (None in kept)
    return (
        f"Mean regret on {first} over {plural(len(summary.targets), 'target')}, in percentage points: "
        f"{', '.join(parts)}. {kept.count(True)} of {len(kept)} cells found {judged} their budgets{unknown}."
    )


def _facts(content: TargetsContent) -> list[tuple[str, str]]:
    summary, first = content.summary, content.found[0]
    seeds = dict.fromkeys(seed for row in summary.targets[0].methods for seed in row.seeds)
    judge = "latencies that were measured" if summary.latency else "the latency tables"
    return [
        ("methods", ", ".join(row.method for row in summary.targets[0].methods)),
        ("seeds of each", ", ".join(map(str, seeds))),
        ("data", f"{summary.data} (fingerprint {first.settings.data_fingerprint})"),
        ("network of the budgets", content.target.describe()),
        ("searched at", content.searched.describe()),
        ("judged by", f"{judge}, and the accuracies of all cells after full training"),
        ("machine", f"{first.machine.name}, {first.machine.cores or 'unknown'} cores; threads: {first.threads}"),
        ("finished", summary.finished),
    ]


def _regret_figure(content: TargetsContent, data_set: str) -> Figure:
    """Return a figure of the regret of every method and baseline: a point a target, a bar at the mean."""
    points: list[dict[str, Any]] = []
    for number, target in enumerate(content.summary.targets):
        rows = [(row.method, row.regret) for row in target.methods]
        rows += [(SHORT[row.name], row.regret) for row in target.references if row.name in BASELINES]
        for label, regret in rows:
            where = f"{label}; {target.device} within {target.budget.text}"
            value = regret[data_set].mean
            tip = f"{where}; regret on {data_set} {value:.2f}"
            points.append({"label": label, "seed": number, "value": value, "href": "#targets", "tip": tip})
    means = [
        {
            "label": SHORT.get(row.name, row.name),
            "value": row.regret[data_set],
            "tip": f"{row.name}; mean regret on {data_set} {row.regret[data_set]:.2f}",
        }
        for row in content.summary.overall
    ]
    names = [str(row["label"]) for row in means]
    caption = f"regret on {data_set}: a point a device and budget, on average over seeds; a bar at the mean"
    svg = strip(points, means, [], "percentage points", names)
    data = {
        "targets": [{name: row[name] for name in ("label", "seed", "value")} for row in points],
        "means": [{name: row[name] for name in ("label", "value")} for row in means],
    }
    return Figure(f"regret-{data_set}", caption, svg, data, by_keyboard=False)


def _cells(content: TargetsContent) -> Grid:
    """Return the table of every cell found."""
    data_sets = content.summary.data_sets
    columns = ["device", "budget", "method", "seed", *(text for name in data_sets for text in (f"{name} %", "regret"))]
    columns += ["cost", "limit", "used", "kept", "cell"]
    targets = {row.target: row for row in content.summary.targets}
    rows = []
    for found in content.found:
        target = targets[found.target]
        row = [target.device, target.budget.text, found.method, str(found.seed)]
        row += [f"{values[name]:.2f}" for name in data_sets for values in (found.accuracy, found.regret)]
        row += [_amounts(found.costs), _amounts(found.limits)]
        row += ["-" if found.share is None else f"{found.share:.0%}", _kept(found)]
        rows.append([*row, found.architecture])
    by = "measured" if content.summary.latency else "predicted by the tables"
    return Grid(columns, rows, f"cost: as {by}; used: cost over limit.")


def _amounts(costs: Any) -> str:
    return ", ".join("not measured" if v is None else format_amount(name, v) for name, v in costs.items())


def _kept(found: TargetFound) -> str:
    return "not measured" if found.kept is None else "yes" if found.kept else "NO"


def command(content: TargetsContent, folder: str) -> str:
    """Return the shell line that repeats the benchmark in a new folder; ``folder`` holds its inputs."""
    summary, first = content.summary, content.found[0]
    target, searched = content.target.setting, content.searched.setting
    options = [
        *(("--method", method) for method in content.recipes),
        ("--seeds", ",".join(str(seed) for seed in summary.targets[0].methods[0].seeds)),
        ("--accuracy", ACCURACY),
        *([("--latency", LATENCY)] if summary.latency else []),
        *(("--latency-column", f"{name}={column}") for name, column in _columns(content).items()),
        ("--data", summary.data),
        ("--channels", str(target.channels)),
        ("--cells", str(target.depth)),
        ("--search-channels", str(searched.channels)),
        ("--search-cells", str(searched.depth)),
        *(("--table", f"{folder}/tables/{name}.json") for name in content.table_hashes),
        *(("--budget", text) for text in dict.fromkeys(row.budget.text for row in summary.targets)),
        ("--recipe", f"{folder}/recipes/{{method}}.yaml"),
        ("--jobs", str(max(1, first.machine.cores // first.threads))),
        ("--out", f"runs/{content.name}-again"),
    ]
    return shlex.join(["hwnas", "benchmark", "nasbench201", *(f"{name}={value}" for name, value in options)])


def _columns(content: TargetsContent) -> dict[str, str]:
    return content.summary.latency.columns if content.summary.latency else {}


def _settings_of(content: TargetsContent) -> dict[str, Any]:
    """Return the settings that all searches share, the hashes of the tables, and the recipe of every method."""
    shared = {name: value for name, value in content.found[0].settings.to_json().items() if name != "recipe"}
    return {**shared, "tables": content.table_hashes, "recipes": content.recipes}


def _inputs(content: TargetsContent) -> dict[str, str]:
    """Return the files that the command reads besides images, accuracies and measured latencies, by name."""
    import yaml

    recipes = {f"recipes/{m}.yaml": yaml.safe_dump(recipe, sort_keys=True) for m, recipe in content.recipes.items()}
    return recipes | {f"tables/{name}.json": table_text(table) for name, table in content.tables.items()}
