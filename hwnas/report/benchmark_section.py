"""The content of a benchmark's page: settings, answer, tables of all numbers, and the cells that were found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hwnas.benchmark.summary import FOOTNOTE, summary_table
from hwnas.budgets.budget import format_amount
from hwnas.cost.metric import BYTES, Metric
from hwnas.report.benchmark_content import BenchmarkContent, Search, Spread
from hwnas.report.benchmark_figures import collapse_figures, cost_figures, regret_figures, section_id
from hwnas.report.cell_graph import cell_graph
from hwnas.report.edges import Choice, Edge
from hwnas.report.figure import Figure
from hwnas.report.table_section import TableSection, table_section
from hwnas.report.theme import GREY, colours
from hwnas.spaces import NONE
from hwnas.spaces.nasbench201 import NASBENCH201

MOST_CELLS = 300  # that a page shows; where there are more, they are files alone


@dataclass(frozen=True)
class Grid:
    """A table of texts. ``links`` are the ids of the sections that its rows are about; ``note`` is the text below."""

    columns: list[str]
    rows: list[list[str]]
    note: str
    links: list[str] | None = None


@dataclass(frozen=True)
class SearchSection:
    """A search and the cell that it found."""

    id: str
    name: str
    seed: int
    facts: list[tuple[str, str]]
    architecture: str
    graph: Figure
    note: str


@dataclass(frozen=True)
class BenchmarkSection:
    """``methods`` are their searches; ``limits`` and ``table`` are None where the benchmark has none."""

    name: str
    answer: str
    settings: list[tuple[str, str]]
    regrets: list[Figure]
    costs: list[Figure]
    collapse: list[Figure]
    summary: Grid
    results: Grid
    methods: dict[str, list[SearchSection]]
    limits: Grid | None
    table: TableSection | None

    @property
    def searches(self) -> list[SearchSection]:
        return [search for searches in self.methods.values() for search in searches]


def benchmark_section(content: BenchmarkContent) -> BenchmarkSection:
    columns, rows = summary_table(content.raw | {"methods": _methods(content)})
    return BenchmarkSection(
        name=content.name,
        answer=answer(content),
        settings=_settings(content),
        regrets=regret_figures(content),
        costs=cost_figures(content),
        collapse=collapse_figures(content),
        summary=Grid(columns, rows, f"{FOOTNOTE}; by regret on {content.summary.data_sets[0]}."),
        results=_results(content),
        methods={
            row.method: [_search(content, search) for search in content.of(row.method)]
            for row in content.summary.methods
        },
        limits=_limits(content) if content.budget.limits else None,
        table=table_section(content.table, content.table.device.name, "") if content.table else None,
    )


def _methods(content: BenchmarkContent) -> list[dict[str, Any]]:
    """Return the rows of the summary with the epochs of their searches, which older summaries do not have."""
    return [
        {**row, "epochs": content.of(row["method"])[0].found.settings.recipe.get("epochs")}
        for row in content.raw["methods"]
    ]


def answer(content: BenchmarkContent) -> str:
    """Return the outcome of the benchmark on its first data set in one sentence."""
    summary = content.summary
    first, best = summary.data_sets[0], min(summary.methods, key=lambda row: row.regret[summary.data_sets[0]].mean)
    number, random = len(summary.methods), summary.random_regret(first)
    found = f"of {number} methods {best.method} finds the best cells" if number > 1 else f"{best.method} finds cells"
    many = len(best.seeds)
    seeds = f"mean of {many} seeds" if many > 1 else f"seed {best.seeds[0]}"
    parts = [
        f"on {first} {found}: {_amount(best.regret[first])} percentage points below the best of {_cells(content)} "
        f"({seeds}), for {best.search.processor_s.mean:.0f} processor seconds a search",
        f"a random cell is {random:.2f} below on average",
    ]
    if number > 1:
        better = sum(row.regret[first].mean < random for row in summary.methods)
        parts[1] += f", and {better} of the methods do better than that"
    if content.budget.limits:
        kept = sum(search.kept(content.budget) for search in content.searches)
        parts.append(f"{kept or 'none'} of the {len(content.searches)} cells found keep the budget, as predicted")
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _amount(spread: Spread) -> str:
    return f"{spread.mean:.2f}" + ("" if spread.std is None else f" ± {spread.std:.2f}")


def _cells(content: BenchmarkContent) -> str:
    within = f" within {content.budget.text}" if content.budget.limits else ""
    return f"{content.summary.cells_within_budget:,} cells{within}"


def _settings(content: BenchmarkContent) -> list[tuple[str, str]]:
    summary, budget = content.summary, content.budget
    seeds = dict.fromkeys(", ".join(map(str, row.seeds)) for row in summary.methods)
    machines = dict.fromkeys(
        f"{m.name}, {m.cores or 'unknown'} cores, {m.os}" for m in (search.found.machine for search in content.searches)
    )
    threads = sorted({search.found.threads for search in content.searches})
    within = " within the budget" if budget.limits else ""
    return [
        ("methods", ", ".join(row.method for row in summary.methods)),
        ("seeds of each", " or ".join(seeds)),
        ("data", f"{summary.data} (fingerprint {content.searches[0].found.settings.data_fingerprint})"),
        ("space", f"{summary.space}: {NASBENCH201.num_architectures:,} cells; {content.sized.setting.describe()}"),
        ("budget", f"{budget.text}: {_bounds(content)}; {_cells(content)}" if budget.limits else "none"),
        (
            "protocol",
            "each search is a process without access to the accuracies; when all had finished, their cells were looked "
            f"up in the table of the accuracies of all cells, each trained in full (sha256 {summary.accuracy_sha256})",
        ),
        ("regret", f"accuracy of the best cell{within} minus that of the cell found, in percentage points"),
        ("machine", f"{'; '.join(machines)}; threads of a search: {' or '.join(map(str, threads))}"),
        ("finished", summary.finished),
    ]


def _bounds(content: BenchmarkContent) -> str:
    return content.budget.describe().replace("<=", "≤")


def _results(content: BenchmarkContent) -> Grid:
    data_sets = content.summary.data_sets
    metrics = list(dict.fromkeys(metric for search in content.searches for metric in search.found.network))
    columns = ["method", "seed", *(text for name in data_sets for text in (f"{name} %", "regret")), "validation"]
    columns += ["wall s", "processor s", "MB", "skip share", "without parameters", *metrics, "cell"]
    rows = []
    for found in (search.found for search in content.searches):
        row = [found.method, str(found.seed)]
        row += [f"{values[name]:.2f}" for name in data_sets for values in (found.accuracy, found.regret)]
        row += [f"{found.validation_accuracy:.1%}", f"{found.search.wall_s:.1f}", f"{found.search.processor_s:.1f}"]
        row += [f"{found.search.peak_memory_mb:.0f}", f"{found.collapse.skip_connect:.2f}"]
        row += [f"{found.collapse.without_parameters:.2f}"]
        row += [format_amount(name, found.network[name]) if name in found.network else "-" for name in metrics]
        rows.append([*row, found.architecture])
    note = "validation: of the cell with the supernet's weights, on images of the search's own data."
    return Grid(columns, rows, note, [section_id(search) for search in content.searches])


def _limits(content: BenchmarkContent) -> Grid:
    """Return the table of the cells' costs and limits."""
    limits = content.budget.limits
    columns = ["method", "seed", *(f"{metric} ≤ {format_amount(metric, bound)}" for metric, bound in limits.items())]
    rows = [
        [
            search.found.method,
            str(search.found.seed),
            *(format_amount(metric, search.found.network[metric]) for metric in limits),
            "yes" if search.kept(content.budget) else "NO",
        ]
        for search in content.searches
    ]
    note = "As the latency table and the counts predict it; hwnas benchmark times nothing."
    return Grid([*columns, "kept"], rows, note, [section_id(search) for search in content.searches])


def _search(content: BenchmarkContent, search: Search) -> SearchSection:
    found, (cell,) = search.found, NASBENCH201.cells.values()
    edges = _edges(content, search)
    ops = colours(op for op in NASBENCH201.operations if op != NONE) | {NONE: GREY}
    facts = [
        (name, f"{found.accuracy[name]:.2f} %, {found.regret[name]:.2f} percentage points below the best")
        for name in content.summary.data_sets
    ]
    facts += [
        ("validation", f"{found.validation_accuracy:.1%} with the supernet's weights"),
        ("search", f"{found.search.processor_s:.1f} processor seconds, {found.search.wall_s:.1f} s by the clock, at "
                   f"most {found.search.peak_memory_mb:.0f} MB"),
        ("network", ", ".join(_cost(name, value) for name, value in found.network.items())),
    ]  # fmt: skip
    if content.budget.limits:
        kept = "kept" if search.kept(content.budget) else "broken"
        facts.append(("limits", f"{_bounds(content)}: {kept}, as predicted"))
    unused = sum(edge.chosen.op == NONE for edge in edges)
    dead = any(edge.chosen.op != NONE and not edge.live for edge in edges)
    note = f"{unused} of {len(edges)} edges are none and not drawn. " * bool(unused)
    note += "Dashed edges lie on no path to the output." * dead
    data = [{"edge": e.label, "op": e.chosen.op, "cost_ms": e.chosen.cost_ms, "live": e.live} for e in edges]
    graph = Figure(
        f"{section_id(search)}-cell", f"{search.name}: the cell", cell_graph(cell, edges, ops), data,
        in_page=len(content.searches) <= MOST_CELLS,
    )  # fmt: skip
    return SearchSection(section_id(search), search.name, found.seed, facts, found.architecture, graph, note)


def _cost(metric: str, value: float) -> str:
    """Return a cost with its unit, and its metric where the unit is that of several metrics."""
    return format_amount(metric, value) + f" {metric}" * (Metric.parse(metric).unit == BYTES)


def _edges(content: BenchmarkContent, search: Search) -> list[Edge]:
    """Return the edges of the cell, with their costs if there is a latency table."""
    ((kind, cell),), (chosen,) = NASBENCH201.cells.items(), search.cell.cells
    live, edges = cell.live_edges(chosen), []
    for number, ((source, sink), op) in enumerate(zip(cell.edges, chosen, strict=True)):
        costs = {}
        if content.table and content.edge_costs is not None:
            costs[content.table.device.name] = float(content.edge_costs[number, NASBENCH201.operations.index(op)])
        choice = Choice(op, None, costs)
        edges.append(Edge(kind, number, source, sink, choice, None, live[number], ruled=False, selection="probable"))
    return edges
