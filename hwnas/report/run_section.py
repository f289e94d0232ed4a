"""What a page says of one run: question, answer, networks, how the search went, verification."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hwnas.budgets.budget import Budget
from hwnas.cost.devices import names_devices
from hwnas.report.cell_graph import cell_graph
from hwnas.report.charts import lines, probabilities, verification
from hwnas.report.edges import Edge, edges_of
from hwnas.report.run_content import RunContent, Target
from hwnas.report.svg import GREY, Figure, colours
from hwnas.report.table_section import TablePart, table_part
from hwnas.runs.plots import limit_histories
from hwnas.runs.schema import DeviceTiming
from hwnas.search.epoch_row import EpochRow
from hwnas.spaces import NONE

MOST_PATH_POINTS = 75_000  # of all areas of a page's probabilities together
FEWEST_EPOCHS, MOST_EPOCHS = 15, 80  # that a probability is drawn at; where they do not fit, it is a file alone


@dataclass(frozen=True)
class CellPart:
    """A cell kind of a network: drawn, its edges one by one, and how their probabilities went."""

    kind: str
    graph: Figure
    edges: list[Edge]
    note: str
    learnt: Figure | None


@dataclass(frozen=True)
class TargetPart:
    id: str
    label: str
    architecture: str
    verdict: str
    facts: list[tuple[str, str]]
    devices: list[str]
    cells: list[CellPart]


@dataclass(frozen=True)
class RunPart:
    """``verification`` has a row of texts for every network and device; ``unverified`` says why some were not timed."""

    id: str
    name: str
    answer: str
    question: list[tuple[str, str]]
    targets: list[TargetPart]
    charts: list[Figure]
    no_probabilities: bool
    tables: list[TablePart]
    verification: list[list[str]]
    verification_figure: Figure | None
    unverified: str


def run_part(run: RunContent, number: int, runs: Sequence[RunContent], prefix: str) -> RunPart:
    """``number`` is the run's among ``runs``; ``prefix`` begins the names of its figures."""
    labels = target_labels(run)
    ops = colours(op for op in run.space.operations if op != NONE) | {NONE: GREY}
    epochs_drawn = _epochs_drawn(runs)
    targets = [
        _target_part(run, target, label, f"r{number}t{place}", f"{prefix}{_stem(target, place)}-", ops, epochs_drawn)
        for place, (target, label) in enumerate(zip(run.targets, labels, strict=True), start=1)
    ]
    rows, figure = _verification(run, labels, prefix)
    untimed = [label for target, label in zip(run.targets, labels, strict=True) if target.kept is None]
    return RunPart(
        id=f"r{number}",
        name=run.name,
        answer=answer(run),
        question=_question(run),
        targets=targets,
        charts=_charts(run, labels, prefix),
        no_probabilities=all(target.probabilities is None for target in run.targets),
        tables=[_table(run, device, place, prefix) for place, device in enumerate(run.tables, start=1)],
        verification=rows,
        verification_figure=figure,
        unverified=f"Not timed: {', '.join(untimed)}." if untimed else "",
    )


def _table(run: RunContent, device: str, place: int, prefix: str) -> TablePart:
    table = run.tables[device]
    part = table_part(table, device, f"{prefix}{place}-{device}-" if len(run.tables) > 1 else prefix, run.space)
    if run.manifest.tables[device] != table.sha256:
        part.warnings.append("The run's manifest names a table with another sha256 than that of this one.")
    return part


def target_labels(run: RunContent) -> list[str]:
    """A target is its budget, with its device where there are several and the budget does not name it."""
    many = len({target.row.device for target in run.targets}) > 1
    return [
        f"{target.row.device}: {target.row.budget}"
        if many and not names_devices(target.row.budget)
        else target.row.budget
        for target in run.targets
    ]


def answer(run: RunContent) -> str:
    """The run's outcome in one sentence."""
    timed = [target for target in run.targets if target.kept is not None]
    kept = [target for target in timed if target.kept]
    number, where = len(run.targets), "the device" if len(run.tables) == 1 else "their devices"
    networks = f"{number} network{'s' * (number > 1)} found"
    if not timed:
        verdict = f"{networks}, within the limits as predicted; none was timed"
    elif len(timed) < number:
        verdict = f"{networks}; of the {len(timed)} that were timed on {where} {_keep(len(kept))} limits"
    elif number == 1:
        verdict = f"{networks}; timed on {where} it {'keeps' if kept else 'breaks'} its limits"
    else:
        verdict = f"{networks}; timed on {where} {'all keep their' if len(kept) == number else _keep(len(kept))} limits"
    # Of those that are known to keep their limits; where none is, of those of which it is not known.
    wanted = True if kept else None
    named = zip(run.targets, target_labels(run), strict=True)
    candidates = [(target, label) for target, label in named if target.kept is wanted]
    if not candidates:
        return f"{verdict}."
    best, label = max(candidates, key=lambda candidate: candidate[0].row.accuracy)
    which = "the most accurate of these" if len(candidates) > 1 else "the network"
    right = f"is right on {best.row.accuracy:.1%} of the test images at {_latencies(best)}"
    return f"{verdict}; {which} ({label}) {right}."


def _keep(number: int) -> str:
    return "1 keeps its" if number == 1 else f"{number or 'none'} keep their"


def latency_of(timing: DeviceTiming) -> str:
    """Measured where it was, else predicted."""
    if timing.measured_ms is None:
        return f"{timing.predicted_ms:.4g} ms (predicted)"
    error = f" ± {timing.measured_error_ms:.2g}" if timing.measured_error_ms is not None else ""
    return f"{timing.measured_ms:.4g}{error} ms (measured)"


def _latencies(target: Target) -> str:
    joint = len(target.timings) > 1
    return " and ".join(latency_of(timing) + f" on {timing.device}" * joint for timing in target.timings)


def _question(run: RunContent) -> list[tuple[str, str]]:
    manifest = run.manifest
    facts = [("device" + "s" * (len(run.tables) > 1), "; ".join(f"{d}: {t.describe()}" for d, t in run.tables.items()))]
    budgets = [f"{label}: {_limits(target)}" for target, label in zip(run.targets, target_labels(run), strict=True)]
    facts.append(("budgets", "; ".join(budgets)))
    facts.append(("data", f"{manifest.data} (fingerprint {manifest.data_fingerprint})"))
    edges = f"{run.space.num_edges} edges, {len(run.space.operations)} operations"
    facts.append(("space", f"{run.space.name}: {edges}; {run.sized.setting.describe()}"))
    recipe = manifest.recipe
    facts.append(
        ("search", f"{recipe.method}, {recipe.epochs} epochs, seed {recipe.seed}; finished {run.summary.finished}")
    )
    return facts


def _limits(target: Target) -> str:
    return Budget(target.row.budget, target.row.limits).describe().replace("<=", "≤")


def _stem(target: Target, place: int) -> str:
    return f"{place}-{Budget(target.row.budget, target.row.limits).name}"


def _target_part(
    run: RunContent, target: Target, label: str, id_: str, prefix: str, ops: Mapping[str, str], epochs_drawn: int
) -> TargetPart:
    row = target.row
    facts = [
        ("test accuracy", f"{row.accuracy:.2%}"),
        ("latency", _latencies(target)),
        *[
            ("predicted", f"{timing.predicted_ms:.4g} ms" + f" on {timing.device}" * (len(target.timings) > 1))
            for timing in target.timings
            if timing.measured_ms is not None
        ],
        ("limits", _limits(target)),
        ("MACs", f"{row.macs:,} ({run.space.macs_convention} convention)"),
        ("parameters", f"{row.params:,}"),
        (
            "validation",
            f"{row.validation_accuracy_before_training:.1%} before training, {row.validation_accuracy:.1%} "
            f"after {row.child_epochs} epochs of training",
        ),
    ]
    if target.stopped:
        facts.append(("logits stopped", target.stopped))
    if row.parity:
        facts.append(
            ("ONNX against torch", f"same class on {row.parity.same_class:.0%} of {row.parity.images} images, greatest "
             f"difference of a score {row.parity.greatest_difference:.2g}")
        )  # fmt: skip
    verdict = {True: "keeps its budget as timed", False: "breaks its budget as timed", None: "not timed"}[target.kept]
    cells = []
    for kind, edges in edges_of(run, target).items():
        stem = f"{prefix}{kind}"
        unused = sum(edge.chosen.op == NONE for edge in edges)
        places = len(run.sized.network.places(kind))
        note = (
            f"{places} such cell{'s' * (places > 1)} in the network; an edge's cost is for all of them. "
            + f"{unused} of {len(edges)} edges are none and not drawn. " * bool(unused)
            + "Dashed edges lie on no path to the output: the network leaves them out." * _any_dead(edges)
        )
        caption = f"{label}, {kind} cell" if kind != "cell" else f"{label}: the cell"
        graph = Figure(
            f"{stem}-graph", caption, cell_graph(run.space.cells[kind], edges, ops), [_as_json(e) for e in edges]
        )
        learnt = _learnt(run, target, kind, edges, ops, f"{stem}-probabilities", epochs_drawn)
        cells.append(CellPart(kind, graph, edges, note, learnt))
    devices = [timing.device for timing in target.timings]
    return TargetPart(id_, label, row.architecture, verdict, facts, devices, cells)


def _any_dead(edges: Sequence[Edge]) -> bool:
    return any(edge.chosen.op != NONE and not edge.live for edge in edges)


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


def _epochs_drawn(runs: Sequence[RunContent]) -> int:
    """At how many epochs probabilities are drawn, so that a page of many searches stays small."""
    areas = sum(len(run.targets) * run.space.num_edges * len(run.space.operations) for run in runs)
    return min(MOST_EPOCHS, MOST_PATH_POINTS // areas)


def _learnt(
    run: RunContent, target: Target, kind: str, edges: Sequence[Edge], ops: Mapping[str, str], name: str, most: int
) -> Figure | None:
    told = [(epoch.epoch, epoch.probabilities[kind]) for epoch in target.epochs if epoch.probabilities is not None]
    if not told:
        return None
    in_page = most >= min(FEWEST_EPOCHS, len(told))
    stride = -(-len(told) // (most if in_page else MOST_EPOCHS))
    shown = [item for place, item in enumerate(told) if place % stride == 0 or place == len(told) - 1]
    order = [op for op in ops if op in run.space.operations]
    titles = [f"{edge.label}: {edge.chosen.op}" for edge in edges]
    rows = [
        {
            "edge": titles[edge.number],
            "op": op,
            "order": order.index(op),
            "epoch": epoch,
            "probability": learnt[edge.number][o],
            "tip": f"{edge.label}: {op}; probability {shown[0][1][edge.number][o]:.3f} in epoch {shown[0][0]}, "
            f"{shown[-1][1][edge.number][o]:.3f} in epoch {shown[-1][0]}",
        }
        for epoch, learnt in shown
        for edge in edges
        for o, op in enumerate(run.space.operations)
    ]
    data = {
        "operations": list(run.space.operations),
        "edges": [edge.label for edge in edges],
        "epochs": [epoch for epoch, _ in told],
        "probabilities": [learnt for _, learnt in told],
    }
    caption = f"{kind}: probability of every operation on every edge over the epochs; the title says what was derived"
    return Figure(name, caption, probabilities(rows, {op: ops[op] for op in order}, titles), data)


def _charts(run: RunContent, labels: Sequence[str], prefix: str) -> list[Figure]:
    """How the search went, over its epochs."""
    told: dict[str, tuple[str, str, bool, Callable[[EpochRow], float | None]]] = {
        "loss": ("training loss, cross-entropy", "loss", False, lambda epoch: epoch.train_loss),
        "validation": (
            "validation accuracy of the epoch's network, with the supernet's weights",
            "validation accuracy",
            True,
            lambda epoch: epoch.validation_accuracy,
        ),
        "entropy": (
            "entropy of the operations' probabilities, mean over the edges",
            "entropy, nats",
            False,
            lambda epoch: epoch.entropy,
        ),
    }
    figures = []
    for name, (caption, y_title, percent, value) in told.items():
        series = {
            label: [(epoch.epoch, value(epoch)) for epoch in target.epochs]
            for target, label in zip(run.targets, labels, strict=True)
        }
        figures.append(_line_chart(f"{prefix}{name}", caption, y_title, series, None, percent))
    limits = limit_histories([epoch for target in run.targets for epoch in target.epochs])
    if limits:
        over = {line.label: list(zip(line.epochs, line.over_budget, strict=True)) for line in limits}
        weight = {line.label: list(zip(line.epochs, line.multiplier, strict=True)) for line in limits}
        caption = "expected cost over the budget, E[C]/B; dashed: the budget"
        figures.append(_line_chart(f"{prefix}over-budget", caption, "E[C] / B", over, 1.0, False))
        caption = "weight of the cost in the loss, lambda"
        figures.append(_line_chart(f"{prefix}lambda", caption, "lambda", weight, None, False))
    return figures


def _line_chart(
    name: str,
    caption: str,
    y_title: str,
    series: Mapping[str, Sequence[tuple[int, float | None]]],
    at: float | None,
    percent: bool,
) -> Figure:
    rows = [
        {"label": label, "epoch": epoch, "y": y, "tip": f"{label}; epoch {epoch}; {y_title} {_number(y, percent)}"}
        for label, points in series.items()
        for epoch, y in points
    ]
    data = {
        label: {"epochs": [e for e, _ in points], "values": [y for _, y in points]} for label, points in series.items()
    }
    return Figure(name, caption, lines(rows, y_title, colours(series), at, percent), data)


def _number(value: float | None, percent: bool) -> str:
    if value is None:
        return "is no number"
    return f"{value:.1%}" if percent else f"{value:.4g}"


def _verification(run: RunContent, labels: Sequence[str], prefix: str) -> tuple[list[list[str]], Figure | None]:
    timed = [
        (label + f" on {timing.device}" * (len(target.timings) > 1), timing, timing.measured_ms)
        for target, label in zip(run.targets, labels, strict=True)
        for timing in target.timings
        if timing.measured_ms is not None
    ]
    if not timed:
        return [], None
    rows = [
        [
            name,
            "–" if timing.budget_ms is None else f"{timing.budget_ms:.4g} ms",
            f"{timing.predicted_ms:.4g} ms",
            latency_of(timing).removesuffix(" (measured)"),
            f"{measured_ms / timing.predicted_ms - 1:+.1%}" if timing.predicted_ms else "–",
            "–" if timing.measured_raw_ms is None else f"{timing.measured_raw_ms:.4g} ms",
            {True: "yes", False: "NO", None: "–"}[timing.kept],
            timing.timed_on or "–",
        ]
        for name, timing, measured_ms in timed
    ]
    drawn = [
        {
            "label": name,
            "what": what,
            "ms": ms,
            "least_ms": None if error is None else ms - error,
            "most_ms": None if error is None else ms + error,
            "tip": f"{name}; {what} {ms:.4g} ms" + ("" if error is None else f" ± {error:.2g} ms"),
        }
        for name, timing, measured_ms in timed
        for what, ms, error in (
            ("budget", timing.budget_ms, None),
            ("predicted", timing.predicted_ms, None),
            ("measured", measured_ms, timing.measured_error_ms),
        )
        if ms is not None
    ]
    caption = "budget, prediction and measurement of every network that was timed; the bar is the measurement's error"
    data = [{key: value for key, value in row.items() if key != "tip"} for row in drawn]
    picture = verification(drawn, [name for name, _, _ in timed])
    return rows, Figure(f"{prefix}verification", caption, picture, data)
