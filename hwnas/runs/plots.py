"""Two pictures of a run: its networks by latency and accuracy, or perplexity of text, and the search for its budgets.

DIR/targets.png   a panel for each device: every target's network, its budget, and the Pareto front of the networks
DIR/search.png    E[C] / B and lambda over the epochs, a line for each target and limit
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.plotting import can_draw, colours_and_dashes, colours_and_markers, save, style, without_frame
from hwnas.runs.folder import PICTURES
from hwnas.runs.records import read_epochs, read_summary
from hwnas.runs.schema import SummaryRow
from hwnas.search.epoch_row import METRICS, EpochRow, Number
from hwnas.text import quoted
from hwnas.training.quality import Quality

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY = "#999999"
OWN, PROXY = "the ONNX file", "the proxy, a network of the search's sizes"
Look = tuple[str, str]


@dataclass(frozen=True)
class PlottedNetwork:
    """One network on one device; ``latency_ms`` is measured or else predicted, ``quality`` that on the test split."""

    budget: str
    latency_ms: float
    measured: bool
    budget_ms: float | None
    quality: Quality


@dataclass(frozen=True)
class LimitHistory:
    """E[C] / B and lambda over the epochs, for one target's limit on one metric."""

    label: str
    epochs: tuple[int, ...]
    over_budget: tuple[Number, ...]
    multiplier: tuple[Number, ...]


def comparable_qualities(rows: Sequence[SummaryRow]) -> tuple[str, list[Quality]]:
    """Return OWN or PROXY and the networks' qualities on the test split: the proxies' if a network is untrained."""
    proxies = [Quality(row.proxy.accuracy, row.proxy.perplexity) for row in rows if row.proxy]
    own = [Quality(row.accuracy, row.perplexity) for row in rows if row.accuracy is not None]
    return (OWN, own) if len(own) == len(rows) else (PROXY, proxies)


def quality_title(quality: Quality, tested: str) -> str:
    """Return the title of an axis: "test accuracy of the ONNX file"; ``tested`` is OWN or PROXY."""
    return f"test {quality.name}{', the less the better,' * (quality.name == 'perplexity')} of {tested}"


def networks_by_device(rows: Sequence[SummaryRow]) -> dict[str, list[PlottedNetwork]]:
    """Return the networks of each device; a network for several devices is in the list of each."""
    panels: dict[str, list[PlottedNetwork]] = {}
    for row, quality in zip(rows, comparable_qualities(rows)[1], strict=True):
        for timing in row.timings:
            measured = timing.measured_ms is not None
            network = PlottedNetwork(row.budget, timing.latency_ms, measured, timing.budget_ms, quality)
            panels.setdefault(timing.device, []).append(network)
    return panels


def pareto_front(networks: Sequence[PlottedNetwork]) -> list[PlottedNetwork]:
    """Return the networks that no other beats in latency and quality, the fastest first."""
    front: list[PlottedNetwork] = []
    for network in sorted(networks, key=lambda n: (n.latency_ms, -n.quality.value)):
        if not front or network.quality.value > front[-1].quality.value:
            front.append(network)
    return front


def limit_histories(rows: Sequence[EpochRow]) -> list[LimitHistory]:
    """Return one history for each target and limit in the loss."""
    points: dict[tuple[str, str, str], list[tuple[int, Number, Number]]] = {}
    for row in rows:
        for metric, over in row.expected_over_budget.items():
            numbers = (row.epoch, over, row.multipliers[metric])
            points.setdefault((row.device, row.budget, metric), []).append(numbers)
    many_devices = len({row.device for row in rows}) > 1
    targets = [(device, budget) for device, budget, _ in points]
    result = []
    for (device, budget, metric), history in points.items():
        label = f"{device}, {budget}" if many_devices else budget
        label += f": {metric}" * (targets.count((device, budget)) > 1)
        epochs, over_budget, multipliers = zip(*history, strict=True)
        result.append(LimitHistory(label, epochs, over_budget, multipliers))
    return result


def draw_run(folder: Path, log: Callable[[str], None] = lambda line: None) -> None:
    """Draw both pictures of a run from its ``summary.json`` and ``metrics.jsonl``, in place of older ones.

    Without matplotlib, logs one line that names the extra to install, and draws nothing.
    """
    if not can_draw(log):
        return
    fix = f"search again with --out {quoted(folder)}"
    targets_file, search_file = (folder / name for name in PICTURES)
    rows = read_summary(folder, fix).targets
    tested, qualities = comparable_qualities(rows)
    draw_targets(networks_by_device(rows), quality_title(qualities[0], tested), targets_file)
    if (folder / METRICS).exists():
        draw_search(limit_histories(read_epochs(folder, fix)), search_file)


def draw_targets(panels: Mapping[str, Sequence[PlottedNetwork]], title: str, out: Path) -> None:
    """Draw a panel for each device; ``title`` names the qualities, which are drawn upwards.

    Networks of the same budget have the same colour in all panels.
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(network.budget for networks in panels.values() for network in networks))
    looks = dict(zip(names, colours_and_markers(len(names)), strict=True))
    with style():
        figure = Figure(figsize=(0.8 + 3.6 * len(panels), 3.6 + 0.18 * len(names)), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axis, (device, networks) in zip(axes, panels.items(), strict=True):
            _draw_panel(axis, device, networks, looks)
        axes[0].set_ylabel(title)
        for name, (colour, marker) in looks.items():
            axes[0].plot([], [], marker, color=colour, label=f"{name}: network, and its budget dashed")
        axes[0].plot([], [], color=GREY, label="Pareto front of these networks")
        legend = figure.legend(loc="outside lower left", frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
        save(figure, out)


def _draw_panel(axis: Axes, device: str, networks: Sequence[PlottedNetwork], looks: Mapping[str, Look]) -> None:
    from matplotlib.ticker import PercentFormatter

    front = pareto_front(networks)
    axis.step([n.latency_ms for n in front], [n.quality.number for n in front], where="post", color=GREY, linewidth=1)
    for network in networks:
        colour, marker = looks[network.budget]
        if network.budget_ms is not None:
            axis.axvline(network.budget_ms, color=colour, linewidth=1, linestyle=(0, (4, 3)), alpha=0.8)
        face = colour if network.measured else "none"
        axis.plot(network.latency_ms, network.quality.number, marker, color=colour, markerfacecolor=face, ms=7)
    sources = sorted({"measured" if network.measured else "predicted" for network in networks})
    axis.set_xlabel(f"latency, ms ({' or '.join(sources)})")
    axis.set_title(device, fontsize=9, loc="left", parse_math=False)
    axis.margins(0.12)
    axis.set_xlim(left=max(axis.get_xlim()[0], 0.0))
    axis.grid(alpha=0.25)
    if networks[0].quality.name == "accuracy":
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    without_frame(axis)


def draw_search(histories: Sequence[LimitHistory], out: Path) -> None:
    """Draw E[C] / B above and lambda below."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with style():
        figure = Figure(figsize=(6.4, 4.4 + 0.18 * len(histories)), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        upper.axhline(1.0, color=GREY, linewidth=1)
        for (colour, dashes), history in zip(colours_and_dashes(len(histories)), histories, strict=True):
            look = {"color": colour, "linestyle": dashes, "linewidth": 1.4, "marker": ".", "markersize": 4}
            upper.plot(history.epochs, history.over_budget, label=history.label, **look)
            lower.plot(history.epochs, history.multiplier, **look)
        upper.set_ylabel("E[C] / budget")
        lower.set_ylabel("lambda")
        lower.set_xlabel("epoch")
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axis in (upper, lower):
            axis.grid(alpha=0.25)
            without_frame(axis)
        if histories:
            legend = figure.legend(loc="outside lower left", frameon=False, ncols=1 if len(histories) < 6 else 2)
            for text in legend.get_texts():
                text.set_parse_math(False)
        else:
            upper.set_title("no limit is in the loss", fontsize=9, loc="left")
        save(figure, out)
