"""Two pictures of a run: its networks by latency and accuracy, and how its budgets were found.

DIR/targets.png   a panel a device: every target's network, its budget, and the Pareto front of the networks
DIR/search.png    E[C] / B and lambda over the epochs, a line a target and limit
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas.files import read_json
from hwnas.plotting import colours_and_dashes, colours_and_markers, save, style, without_frame


@dataclass(frozen=True)
class Network:
    """One network on one device; ``latency_ms`` as measured where it was, else as predicted. ``accuracy`` of the test
    split, 0 to 1.
    """

    budget: str
    latency_ms: float
    measured: bool
    budget_ms: float | None
    accuracy: float


@dataclass(frozen=True)
class Line:
    """A number over the epochs, of one target's limit on one metric."""

    label: str
    epochs: tuple[int, ...]
    over_budget: tuple[float, ...]
    multiplier: tuple[float, ...]


def networks_by_device(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Network]]:
    """From the rows of ``summary.json``; a network for several devices is in each of their panels."""
    panels: dict[str, list[Network]] = {}
    for row in rows:
        for there in row.get("devices", [row]):
            measured = there.get("measured_ms")
            panels.setdefault(there["device"], []).append(
                Network(
                    row["budget"],
                    there["predicted_ms"] if measured is None else measured,
                    measured is not None,
                    there["budget_ms"],
                    row["accuracy"],
                )
            )
    return panels


def pareto_front(networks: Sequence[Network]) -> list[Network]:
    """Those that no other is both as fast as and more accurate than, from the fastest on."""
    front: list[Network] = []
    for network in sorted(networks, key=lambda n: (n.latency_ms, -n.accuracy)):
        if not front or network.accuracy > front[-1].accuracy:
            front.append(network)
    return front


def search_lines(rows: Sequence[Mapping[str, Any]]) -> list[Line]:
    """From the lines of ``metrics.jsonl``."""
    lines: dict[tuple[str, str, str], list[tuple[int, float, float]]] = {}
    many = len({row["device"] for row in rows}) > 1
    for row in rows:
        for metric, over in row["expected_over_budget"].items():
            points = lines.setdefault((row["device"], row["budget"], metric), [])
            points.append((row["epoch"], over, row["lambda"][metric]))
    several = {key[:2] for key in lines if sum(other[:2] == key[:2] for other in lines) > 1}
    result = []
    for (device, budget, metric), points in lines.items():
        label = f"{device}, {budget}" if many else budget
        label += f": {metric}" * ((device, budget) in several)
        epochs, over, multipliers = zip(*points, strict=True)
        result.append(Line(label, epochs, over, multipliers))
    return result


def draw_run(folder: Path) -> None:
    """Draw, or draw again, both pictures of a run folder from its ``summary.json`` and ``metrics.jsonl``."""
    rows = read_json(folder / "summary.json", f"search again with --out {folder}")["targets"]
    draw_targets(networks_by_device(rows), folder / "targets.png")
    metrics = folder / "metrics.jsonl"
    if metrics.exists():
        lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
        draw_search(search_lines(lines), folder / "search.png")


def draw_targets(panels: Mapping[str, Sequence[Network]], out: Path) -> None:
    """A panel a device. Networks of the same budget have one colour in all of them."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    names = list(dict.fromkeys(network.budget for networks in panels.values() for network in networks))
    looks = dict(zip(names, colours_and_markers(len(names)), strict=True))
    with style():
        figure = Figure(figsize=(0.8 + 3.6 * len(panels), 3.6 + 0.18 * len(names)), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axis, (device, networks) in zip(axes, panels.items(), strict=True):
            front = pareto_front(networks)
            axis.step(
                [n.latency_ms for n in front], [n.accuracy for n in front], where="post", color="#999999", linewidth=1
            )
            for network in networks:
                colour, marker = looks[network.budget]
                if network.budget_ms is not None:
                    axis.axvline(network.budget_ms, color=colour, linewidth=1, linestyle=(0, (4, 3)), alpha=0.8)
                face = colour if network.measured else "none"
                axis.plot(network.latency_ms, network.accuracy, marker, color=colour, markerfacecolor=face, ms=7)
            how = {True: "measured", False: "predicted"}
            kinds = sorted({how[n.measured] for n in networks})
            axis.set_xlabel(f"latency, ms ({' or '.join(kinds)})")
            axis.set_title(device, fontsize=9, loc="left", parse_math=False)
            axis.margins(0.12)
            axis.set_xlim(left=max(axis.get_xlim()[0], 0.0))
            axis.grid(alpha=0.25)
            axis.yaxis.set_major_formatter(PercentFormatter(1.0))
            without_frame(axis)
        axes[0].set_ylabel("test accuracy of the ONNX file")
        for name, (colour, marker) in looks.items():
            axes[0].plot([], [], marker, color=colour, label=f"{name}: network, and its budget dashed")
        axes[0].plot([], [], color="#999999", label="Pareto front of these networks")
        legend = figure.legend(loc="outside lower left", frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
        save(figure, out)


def draw_search(lines: Sequence[Line], out: Path) -> None:
    """E[C] / B above, lambda below."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with style():
        figure = Figure(figsize=(6.4, 4.4 + 0.18 * len(lines)), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        upper.axhline(1.0, color="#999999", linewidth=1)
        for (colour, dashes), line in zip(colours_and_dashes(len(lines)), lines, strict=True):
            shown = {"color": colour, "linestyle": dashes, "linewidth": 1.4, "marker": ".", "markersize": 4}
            upper.plot(line.epochs, line.over_budget, label=line.label, **shown)
            lower.plot(line.epochs, line.multiplier, **shown)
        upper.set_ylabel("E[C] / budget")
        lower.set_ylabel("lambda")
        lower.set_xlabel("epoch")
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axis in (upper, lower):
            axis.grid(alpha=0.25)
            without_frame(axis)
        if lines:
            legend = figure.legend(loc="outside lower left", frameon=False, ncols=1 if len(lines) < 6 else 2)
            for text in legend.get_texts():
                text.set_parse_math(False)
        else:
            upper.set_title("no limit is in the loss", fontsize=9, loc="left")
        save(figure, out)
