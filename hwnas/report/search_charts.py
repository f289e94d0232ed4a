"""Charts of a search over its epochs: losses, limits and the probabilities of the operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hwnas.report.charts import lines, probabilities
from hwnas.report.edges import Edge
from hwnas.report.figure import Figure
from hwnas.report.run_content import RunContent, Target
from hwnas.report.theme import colours
from hwnas.runs.plots import limit_histories
from hwnas.search.epoch_row import EpochRow, Number

MOST_PATH_POINTS = 75_000  # of all areas of a page's probabilities together
FEWEST_EPOCHS, MOST_EPOCHS = 15, 80  # at which a probability is drawn; with room for fewer the figure is only a file


@dataclass(frozen=True)
class _Quantity:
    """A number of every epoch."""

    name: str
    caption: str
    y_title: str
    value: Callable[[EpochRow], Number]
    percent: bool = False


LOSS = _Quantity("loss", "training loss, cross-entropy", "loss", lambda epoch: epoch.train_loss)
ACCURACY = _Quantity(
    "validation",
    "validation accuracy of the epoch's network, with the supernet's weights",
    "validation accuracy",
    lambda epoch: epoch.validation_accuracy,
    percent=True,
)
PERPLEXITY = _Quantity(  # of text, in place of the accuracy
    "validation",
    "validation perplexity of the epoch's network, with the supernet's weights",
    "validation perplexity",
    lambda epoch: epoch.validation_perplexity,
)
ENTROPY = _Quantity(
    "entropy",
    "entropy of the operations' probabilities, mean over the edges",
    "entropy, nats",
    lambda epoch: epoch.entropy,
)


def search_charts(run: RunContent, labels: Sequence[str], prefix: str) -> list[Figure]:
    """Return a chart for every quantity, a line for each target; ``prefix`` starts the names of the figures."""
    figures = []
    for quantity in (LOSS, PERPLEXITY if run.space.is_recurrent else ACCURACY, ENTROPY):
        series = {
            label: [(epoch.epoch, quantity.value(epoch)) for epoch in target.epochs]
            for target, label in zip(run.targets, labels, strict=True)
        }
        figures.append(
            _line_chart(
                f"{prefix}{quantity.name}", quantity.caption, quantity.y_title, series, percent=quantity.percent
            )
        )
    limits = limit_histories([epoch for target in run.targets for epoch in target.epochs])
    if limits:
        over = {limit.label: list(zip(limit.epochs, limit.over_budget, strict=True)) for limit in limits}
        weight = {limit.label: list(zip(limit.epochs, limit.multiplier, strict=True)) for limit in limits}
        caption = "expected cost over the budget, E[C]/B; dashed: the budget"
        figures.append(_line_chart(f"{prefix}over-budget", caption, "E[C] / B", over, level=1.0))
        caption = "weight of the cost in the loss, lambda"
        figures.append(_line_chart(f"{prefix}lambda", caption, "lambda", weight))
    return figures


def _line_chart(
    name: str,
    caption: str,
    y_title: str,
    series: Mapping[str, Sequence[tuple[int, Number]]],
    level: float | None = None,
    percent: bool = False,
) -> Figure:
    rows = [
        {"label": label, "epoch": epoch, "y": y, "tip": f"{label}; epoch {epoch}; {y_title} {_number(y, percent)}"}
        for label, points in series.items()
        for epoch, y in points
    ]
    data = {
        label: {"epochs": [e for e, _ in points], "values": [y for _, y in points]} for label, points in series.items()
    }
    return Figure(name, caption, lines(rows, y_title, colours(series), level, percent), data)


def _number(value: Number, percent: bool) -> str:
    if value is None:
        return "is unknown"
    return f"{value:.1%}" if percent else f"{value:.4g}"


def epochs_to_draw(runs: Sequence[RunContent]) -> int:
    """Return the number of epochs at which probabilities are drawn; it is smaller on a page of many searches."""
    areas = sum(len(run.targets) * run.space.num_edges * len(run.space.operations) for run in runs)
    return min(MOST_EPOCHS, MOST_PATH_POINTS // areas)


def probability_figure(
    run: RunContent,
    target: Target,
    kind: str,
    edges: Sequence[Edge],
    ops: Mapping[str, str],
    name: str,
    most_epochs: int,
) -> Figure | None:
    """Return the probabilities of every edge of a cell kind over the epochs; None where the run did not record them.

    ``ops`` are the colours of the operations, ``most_epochs`` the number of epochs to draw.
    """
    recorded = [(epoch.epoch, epoch.probabilities[kind]) for epoch in target.epochs if epoch.probabilities is not None]
    if not recorded:
        return None
    in_page = most_epochs >= min(FEWEST_EPOCHS, len(recorded))
    stride = -(-len(recorded) // (most_epochs if in_page else MOST_EPOCHS))
    shown = [item for number, item in enumerate(recorded) if number % stride == 0 or number == len(recorded) - 1]
    (first_epoch, first), (last_epoch, last) = shown[0], shown[-1]
    order = [op for op in ops if op in run.space.operations]
    titles = [f"{edge.label}: {edge.chosen.op}" for edge in edges]
    rows = [
        {
            "edge": titles[edge.number],
            "op": op,
            "order": order.index(op),
            "epoch": epoch,
            "probability": p[edge.number][o],
            "tip": f"{edge.label}: {op}; probability {first[edge.number][o]:.3f} in epoch {first_epoch}, "
            f"{last[edge.number][o]:.3f} in epoch {last_epoch}",
        }
        for epoch, p in shown
        for edge in edges
        for o, op in enumerate(run.space.operations)
    ]
    data = {
        "operations": list(run.space.operations),
        "edges": [edge.label for edge in edges],
        "epochs": [epoch for epoch, _ in recorded],
        "probabilities": [p for _, p in recorded],
    }
    caption = f"{kind}: probability of every operation on every edge over the epochs; titles show the derived operation"
    picture = probabilities(rows, {op: ops[op] for op in order}, titles)
    return Figure(name, caption, picture, data, in_page=in_page)
