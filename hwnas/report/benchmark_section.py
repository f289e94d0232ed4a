"""The content of a benchmark's page: answer, settings, figures, tables of all numbers, and the cells found."""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.benchmark.schema import AT_RANDOM, TargetRow, TargetsSummary
from hwnas.benchmark.summary import FOOTNOTE, method_table, target_footnote, target_table
from hwnas.report.benchmark_cells import (
    CellSection,
    as_judged,
    bounds_text,
    cell_section,
    results_grid,
    table_label,
    where,
)
from hwnas.report.benchmark_content import BenchmarkContent
from hwnas.report.benchmark_figures import collapse_figures, cost_figures, regret_figures
from hwnas.report.figure import Figure
from hwnas.report.grid import Grid
from hwnas.report.table_section import TableSection, table_section
from hwnas.spaces.nasbench201 import NASBENCH201


@dataclass(frozen=True)
class BenchmarkSection:
    """The content of the page. ``costs`` and ``collapse`` are empty for several targets.

    ``summary`` are tables of methods or, for several targets, of targets; ``groups`` are the cells by method and
    target.
    """

    name: str
    answer: str
    settings: list[tuple[str, str]]
    regrets: list[Figure]
    costs: list[Figure]
    collapse: list[Figure]
    summary: list[Grid]
    results: Grid
    groups: dict[str, list[CellSection]]
    tables: list[TableSection]

    @property
    def cells(self) -> list[CellSection]:
        return [cell for cells in self.groups.values() for cell in cells]


def benchmark_section(content: BenchmarkContent) -> BenchmarkSection:
    """Return the content of the page of a benchmark of one target or of several."""
    groups: dict[str, list[CellSection]] = {}
    for found in content.cells:
        groups.setdefault(where(content, found) + found.result.method, []).append(cell_section(content, found))
    return BenchmarkSection(
        name=content.name,
        answer=_answer_of_targets(content) if content.one is None else _answer(content, content.one),
        settings=_settings(content),
        regrets=regret_figures(content),
        costs=cost_figures(content) if content.one else [],
        collapse=collapse_figures(content) if content.one else [],
        summary=_summary(content),
        results=results_grid(content),
        groups=groups,
        tables=[
            table_section(table, table_label(content, name), f"{name}-" if len(content.tables) > 1 else "")
            for name, table in content.tables.items()
        ],
    )


def _summary(content: BenchmarkContent) -> list[Grid]:
    """Return the table of the methods or, for several targets, a table of the targets for each data set."""
    summary, data_sets = content.summary, content.summary.data_sets
    if isinstance(summary, TargetsSummary) and not content.one:
        note = f"{target_footnote(summary)}."
        return [Grid(f"Targets, {name}", *target_table(summary, name), note) for name in data_sets]
    # Older summaries do not have the epochs of the searches.
    methods = [row.model_copy(update={"epochs": content.recipes[row.method].get("epochs")}) for row in content.methods]
    columns, rows = method_table(content.targets[0].model_copy(update={"methods": methods}), data_sets)
    return [Grid("Every method", columns, rows, f"{FOOTNOTE}; by regret on {data_sets[0]}.")]


def _answer(content: BenchmarkContent, target: TargetRow) -> str:
    """Return the outcome of the benchmark on its first data set in one sentence."""
    first = content.summary.data_sets[0]
    best = min(target.methods, key=lambda row: row.regret[first].mean)
    number, random = len(target.methods), target.reference(AT_RANDOM).regret[first].mean
    found = f"of {number} methods {best.method} finds the best cells" if number > 1 else f"{best.method} finds cells"
    many = len(best.seeds)
    seeds = f"mean of {many} seeds" if many > 1 else f"seed {best.seeds[0]}"
    regret = best.regret[first]
    amount = f"{regret.mean:.2f}" + ("" if regret.std is None else f" ± {regret.std:.2f}")
    parts = [
        f"on {first} {found}: {amount} percentage points below the best of {_number_of_cells(target)} "
        f"({seeds}), for {best.search.processor_s.mean:.0f} processor seconds a search",
        f"a random cell is {random:.2f} below on average",
    ]
    if number > 1:
        better = sum(row.regret[first].mean < random for row in target.methods)
        parts[1] += f", and {better} of the methods do better than that"
    if target.budget.limits:
        parts.append(f"{_kept(content)} the budget, {as_judged(content)}")
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _answer_of_targets(content: BenchmarkContent) -> str:
    """Return the outcome on the first data set in two sentences: methods and baselines by their mean regret."""
    summary, first = content.summary, content.summary.data_sets[0]
    assert isinstance(summary, TargetsSummary)
    parts = [f"{row.name} {row.regret[first]:.2f}" for row in sorted(summary.overall, key=lambda r: r.regret[first])]
    return (
        f"Mean regret on {first} over {len(content.targets)} targets, in percentage points: {', '.join(parts)}. "
        f"{_kept(content)} their budgets, {as_judged(content)}."
    )


def _kept(content: BenchmarkContent) -> str:
    kept = [found.result.keeps for found in content.cells]
    unknown = f" ({kept.count(None)} were not measured)" * (None in kept)
    return f"{kept.count(True) or 'none'} of the {len(kept)} cells found{unknown} keep"


def _number_of_cells(target: TargetRow) -> str:
    within = f" within {target.budget.text}" if target.budget.limits else ""
    return f"{target.cells_within_budget:,} cells{within}"


def _settings(content: BenchmarkContent) -> list[tuple[str, str]]:
    summary, results = content.summary, [found.result for found in content.cells]
    seeds = dict.fromkeys(", ".join(map(str, row.seeds)) for row in content.methods)
    machines = dict.fromkeys(f"{m.name}, {m.cores or 'unknown'} cores, {m.os}" for m in (r.machine for r in results))
    threads = sorted({result.threads for result in results})
    latencies = " and the measured latencies" * bool(summary.latency)
    within = " within the budget" * content.limited
    searched = [("searched at", content.searched.setting.describe())] * (content.searched != content.target)
    return [
        ("methods", ", ".join(row.method for row in content.methods)),
        ("seeds of each", " or ".join(seeds)),
        ("data", f"{summary.data} (fingerprint {results[0].settings.data_fingerprint})"),
        ("space", f"{summary.space}: {NASBENCH201.num_architectures:,} cells; {content.target.setting.describe()}"),
        *searched,
        _budgets(content),
        (
            "protocol",
            f"each search is a process without access to the accuracies{latencies}; when all had finished, their cells "
            "were looked up in the table of the accuracies of all cells, each trained in full (sha256 "
            f"{summary.accuracy_sha256})",
        ),
        ("regret", f"accuracy of the best cell{within} minus that of the cell found, in percentage points"),
        ("machine", f"{'; '.join(machines)}; threads of a search: {' or '.join(map(str, threads))}"),
        ("finished", summary.finished),
    ]


def _budgets(content: BenchmarkContent) -> tuple[str, str]:
    """Return the budgets, and what decides whether a cell keeps one."""
    if not content.limited:
        return "budget", "none"
    judge = "measured latencies decide" if content.summary.latency else "the latency tables decide"
    if target := content.one:
        return "budget", f"{target.budget.text}: {bounds_text(target)}; {_number_of_cells(target)}; {judge}"
    texts, devices = (
        dict.fromkeys(values)
        for values in ([t.budget.text for t in content.targets], [t.device for t in content.targets])
    )
    return "budgets", f"{', '.join(texts)} on {', '.join(devices)}; {judge} which cells keep them"
