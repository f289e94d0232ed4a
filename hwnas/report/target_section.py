"""The section of a page about one network of a run: its figures, and its cells with the reasons for every edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hwnas.budgets.budget import Budget
from hwnas.report.cell_graph import cell_graph
from hwnas.report.edges import Edge, edges_of
from hwnas.report.figure import Figure
from hwnas.report.finalists_section import FinalistsSection, finalists_section
from hwnas.report.labels import latencies_text, limits_text
from hwnas.report.run_content import RunContent, Target
from hwnas.report.search_charts import probability_figure
from hwnas.runs.schema import ProxyResult, SummaryRow
from hwnas.spaces import NONE
from hwnas.text import describe_quality, quality_number

WIDTHS_NOTE = (
    "Operations such as w24 choose the width of the layers after them. The cost of a width is that of the layers that "
    "depend on it, and the cost of a layer that at the chosen widths."
)
VERDICTS = {True: "keeps its budget as timed", False: "breaks its budget as timed", None: "not timed"}


@dataclass(frozen=True)
class CellSection:
    """A cell kind of a network: its graph, its edges, and their probabilities over the epochs."""

    kind: str
    graph: Figure
    edges: list[Edge]
    note: str
    probabilities: Figure | None


@dataclass(frozen=True)
class TargetSection:
    id: str
    label: str
    architecture: str
    verdict: str
    facts: list[tuple[str, str]]
    devices: list[str]
    cells: list[CellSection]
    finalists: FinalistsSection | None


@dataclass(frozen=True)
class CellStyle:
    """The colours of the operations, and the number of epochs at which probabilities are drawn."""

    colours: Mapping[str, str]
    most_epochs: int


def target_section(
    run: RunContent, target: Target, number: int, label: str, run_id: str, prefix: str, style: CellStyle
) -> TargetSection:
    """Return the section of the target that is ``number`` in its run; ``prefix`` starts the names of its figures."""
    stem = f"{prefix}{number}-{Budget(target.row.budget, target.row.limits).name}"
    cells = [
        _cell_section(run, target, kind, edges, label, f"{stem}-{kind}", style)
        for kind, edges in edges_of(run, target).items()
    ]
    devices = [timing.device for timing in target.timings]
    id_, row = f"{run_id}t{number}", target.row
    verdict = VERDICTS[target.kept] + ", untrained" * (not row.trained)
    finalists = finalists_section(run, target, label, stem)
    return TargetSection(id_, label, row.architecture, verdict, _facts(run, target), devices, cells, finalists)


def _facts(run: RunContent, target: Target) -> list[tuple[str, str]]:
    row, joint = target.row, len(target.timings) > 1
    quality = "perplexity" if run.space.is_recurrent else "accuracy"
    tested = "untrained" if row.accuracy is None else quality_number(row.accuracy, row.perplexity, 2)
    facts = [
        (f"test {quality}", tested),
        ("latency", latencies_text(target)),
        *[
            ("predicted", f"{timing.predicted_ms:.4g} ms" + f" on {timing.device}" * joint)
            for timing in target.timings
            if timing.measured_ms is not None
        ],
        ("limits", limits_text(target)),
        ("MACs", f"{row.macs:,} ({run.space.macs_convention} convention)"),
        ("parameters", f"{row.params:,}"),
        *([("validation", _validation_text(row))] if row.trained else []),
    ]
    if row.proxy:
        tested = quality_number(row.proxy.accuracy, row.proxy.perplexity, 2)
        facts.append(("proxy", f"test {quality} {tested}; validation {_validation_text(row.proxy)}"))
    if target.stopped:
        facts.append(("logits stopped", target.stopped))
    if row.parity:
        scored, kind = ("words", "next word") if run.space.is_recurrent else ("images", "class")
        examples = f"{row.parity.images}{' random' * row.parity.random_images} {scored}"
        parity = f"same {kind} on {row.parity.same_class:.0%} of {examples}"
        difference = f"greatest difference of a score {row.parity.greatest_difference:.2g}"
        facts.append(("ONNX against torch", f"{parity}, {difference}"))
    return facts


def _validation_text(row: SummaryRow | ProxyResult) -> str:
    before = describe_quality(row.validation_accuracy_before_training, row.validation_perplexity_before_training)
    after = describe_quality(row.validation_accuracy, row.validation_perplexity)
    return f"{before} before training, {after} after {row.child_epochs} epochs of training"


def _cell_section(
    run: RunContent, target: Target, kind: str, edges: list[Edge], label: str, stem: str, style: CellStyle
) -> CellSection:
    caption = f"{label}, {kind} cell" if kind != "cell" else f"{label}: the cell"
    picture = cell_graph(run.space.cells[kind], edges, style.colours)
    graph = Figure(f"{stem}-graph", caption, picture, [_as_json(edge) for edge in edges])
    name = f"{stem}-probabilities"
    probabilities = probability_figure(run, target, kind, edges, style.colours, name, style.most_epochs)
    return CellSection(kind, graph, edges, _note(run, kind, edges), probabilities)


def _note(run: RunContent, kind: str, edges: Sequence[Edge]) -> str:
    unused = sum(edge.chosen.op == NONE for edge in edges)
    dead = any(edge.chosen.op != NONE and not edge.live for edge in edges)
    instances = len(run.sized.network.cell_instances(kind))
    return (
        f"{instances} such cell{'s' * (instances > 1)} in the network; an edge's cost is for all of them. "
        + f"{unused} of {len(edges)} edges are none and not drawn. " * bool(unused)
        + "Dashed edges lie on no path to the output: the network leaves them out. " * dead
        + WIDTHS_NOTE * bool(run.space.cells[kind].width_edges)
    )


def _as_json(edge: Edge) -> dict[str, Any]:
    chosen, other = edge.chosen, edge.runner_up
    return {
        "edge": edge.label,
        "op": chosen.op,
        "probability": chosen.probability,
        "cost_ms": chosen.cost_ms,
        "live": edge.live,
        "runner_up": other and {"op": other.op, "probability": other.probability, "cost_ms": other.cost_ms},
    }
