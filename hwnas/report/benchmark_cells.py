"""The cells that the searches of a benchmark found: a section for each, and a table of all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwnas.benchmark.schema import TargetRow
from hwnas.budgets.budget import Budget, format_amount
from hwnas.cost.metric import BYTES, Metric
from hwnas.report.benchmark_content import ONLY_TABLE, BenchmarkContent, FoundCell
from hwnas.report.benchmark_figures import section_id
from hwnas.report.cell_graph import cell_graph
from hwnas.report.edges import Choice, Edge
from hwnas.report.figure import Figure
from hwnas.report.grid import Grid
from hwnas.report.theme import GREY, colours
from hwnas.spaces import NONE
from hwnas.spaces.nasbench201 import NASBENCH201

MOST_CELLS = 300  # that a page shows; where there are more, they are files alone
KEPT = {True: "yes", False: "NO", None: "not measured"}


@dataclass(frozen=True)
class CellSection:
    """A search and the cell that it found for a target."""

    id: str
    name: str
    seed: int
    facts: list[tuple[str, str]]
    architecture: str
    graph: Figure
    note: str


def cell_section(content: BenchmarkContent, found: FoundCell) -> CellSection:
    result, (cell,) = found.result, NASBENCH201.cells.values()
    edges, name = _edges(content, found), where(content, found) + found.search
    ops = colours(op for op in NASBENCH201.operations if op != NONE) | {NONE: GREY}
    facts = [
        (data_set, f"{result.accuracy[data_set]:.2f} %, {result.regret[data_set]:.2f} percentage points below the best")
        for data_set in content.summary.data_sets
    ]
    facts += [
        ("validation", f"{result.validation_accuracy:.1%} with the supernet's weights"),
        ("search", f"{result.search.processor_s:.1f} processor seconds, {result.search.wall_s:.1f} s by the clock, at "
                   f"most {result.search.peak_memory_mb:.0f} MB"),
        ("network", ", ".join(_cost(metric, value) for metric, value in result.network.items())),
    ]  # fmt: skip
    if result.bounds:
        facts.append(("limits", f"{bounds_text(found.target)}: {_verdict(content, found)}"))
    unused = sum(edge.chosen.op == NONE for edge in edges)
    dead = any(edge.chosen.op != NONE and not edge.live for edge in edges)
    note = f"{unused} of {len(edges)} edges are none and not drawn. " * bool(unused)
    note += "Dashed edges lie on no path to the output." * dead
    data = [{"edge": e.label, "op": e.chosen.op, "cost_ms": e.chosen.cost_ms, "live": e.live} for e in edges]
    graph = Figure(
        f"{section_id(found)}-cell", f"{name}: the cell", cell_graph(cell, edges, ops), data,
        in_page=len(content.cells) <= MOST_CELLS,
    )  # fmt: skip
    return CellSection(section_id(found), name, result.seed, facts, result.architecture, graph, note)


def where(content: BenchmarkContent, found: FoundCell) -> str:
    """Return the target of a cell, to precede the name of its search; empty where there is only one."""
    return "" if content.one else f"{found.target.device} within {found.target.budget.text}: "


def bounds_text(target: TargetRow) -> str:
    return Budget(target.budget.text, target.budget.limits).describe().replace("<=", "≤")


def table_label(content: BenchmarkContent, name: str) -> str:
    """Return the name of a table, for people; that of its device where the benchmark does not name it."""
    return content.tables[name].device.name if name == ONLY_TABLE else name


def results_grid(content: BenchmarkContent) -> Grid:
    """Return the table of every cell found, with its costs and limits where there is a budget."""
    data_sets = content.summary.data_sets
    metrics = list(dict.fromkeys(metric for found in content.cells for metric in found.result.network))
    columns = [*(() if content.one else ("device", "budget")), "method", "seed"]
    columns += [text for name in data_sets for text in (f"{name} %", "regret")]
    columns += ["cost", "limit", "used", "kept"] * content.limited
    columns += ["validation", "wall s", "processor s", "MB", "skip share", "without parameters", *metrics, "cell"]
    rows = []
    for found in content.cells:
        result, search = found.result, found.result.search
        row = [] if content.one else [found.target.device, found.target.budget.text]
        row += [result.method, str(result.seed)]
        row += [f"{values[name]:.2f}" for name in data_sets for values in (result.accuracy, result.regret)]
        row += _judged(found) if content.limited else []
        row += [f"{result.validation_accuracy:.1%}", f"{search.wall_s:.1f}", f"{search.processor_s:.1f}"]
        row += [f"{search.peak_memory_mb:.0f}", f"{result.collapse.skip_connect:.2f}"]
        row += [f"{result.collapse.without_parameters:.2f}"]
        row += [format_amount(name, result.network[name]) if name in result.network else "-" for name in metrics]
        rows.append([*row, result.architecture])
    by = "measured" if content.summary.latency else "the latency table and the counts predict it"
    budget = f"cost: as {by}; used: cost over limit" if content.limited else "There was no budget"
    note = f"{budget}; validation: of the cell with the supernet's weights, on images of the search's own data."
    return Grid("Every cell", columns, rows, note, [section_id(found) for found in content.cells])


def _judged(found: FoundCell) -> list[str]:
    """Return cost, limit, share of the limit, and whether it is kept; costs of older results are the predicted ones."""
    result = found.result
    costs: Mapping[str, float | None] = result.costs or {name: result.network[name] for name in result.bounds}
    used = "-" if result.share is None else f"{result.share:.0%}"
    return [_amounts(costs), _amounts(result.bounds), used, KEPT[result.keeps]]


def _amounts(costs: Mapping[str, float | None]) -> str:
    return ", ".join("not measured" if v is None else format_amount(name, v) for name, v in costs.items())


def _verdict(content: BenchmarkContent, found: FoundCell) -> str:
    kept = {True: "kept", False: "broken", None: "not measured"}[found.result.keeps]
    return kept if found.result.keeps is None else f"{kept}, {as_judged(content)}"


def as_judged(content: BenchmarkContent) -> str:
    return "as measured" if content.summary.latency else "as predicted"


def _cost(metric: str, value: float) -> str:
    """Return a cost with its unit, and its metric where the unit is that of several metrics."""
    return format_amount(metric, value) + f" {metric}" * (Metric.parse(metric).unit == BYTES)


def _edges(content: BenchmarkContent, found: FoundCell) -> list[Edge]:
    """Return the edges of the cell, with their costs by the tables of its target's devices."""
    ((kind, cell),), (chosen,) = NASBENCH201.cells.items(), found.cell.cells
    devices = found.target.device.split(", ") if found.target.device else [ONLY_TABLE]
    tables = [name for name in content.tables if name in devices]
    live, edges = cell.live_edges(chosen), []
    for number, ((source, sink), op) in enumerate(zip(cell.edges, chosen, strict=True)):
        column = NASBENCH201.operations.index(op)
        costs = {table_label(content, name): float(content.edge_costs[name][number, column]) for name in tables}
        choice = Choice(op, None, costs)
        edges.append(Edge(kind, number, source, sink, choice, None, live[number], ruled=False, selection="probable"))
    return edges
