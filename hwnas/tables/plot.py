"""Draw a table as heat maps: the latency of every operation at every size, and on every edge."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from hwnas.errors import HwnasError
from hwnas.plotting import require_picture, save, style
from hwnas.spaces import NONE, Workload, builtin_space
from hwnas.tables.diff import edge_amounts
from hwnas.tables.schema import CellCosts, Entry, LatencyTable
from hwnas.text import printable, short_number, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

CELL, LETTER = (0.52, 0.27), 0.075  # inches
COLUMNS = 40  # of one heat map; further sizes go into the next
MOST_ROWS = 500  # in all
ANNOTATED = 1_500  # most cells with numbers in them; more would make a large file
AXIS = "channels (in→out), height×width of the input, /stride"
Grid = list[list[float | None]]  # ms; None where there is no entry


@dataclass(frozen=True)
class Panel:
    """One heat map. Panels with the same ``scale`` share their colours."""

    title: str
    scale: str
    rows: list[str]
    columns: list[str]
    ms: Grid
    below: str = ""


def plot_table(table: LatencyTable, out: Path) -> None:
    """Draw a table into a PNG or SVG file.

    Raises HwnasError for another suffix, a table that is empty or too large for a picture, and a folder that cannot be
    written.
    """
    require_picture(out)
    panels = table_panels(table)
    if not panels:
        raise HwnasError("the table holds no entries", "measure some with 'hwnas profile'")
    if sum(len(panel.rows) for panel in panels) > MOST_ROWS or any(len(panel.columns) > COLUMNS for panel in panels):
        raise HwnasError("the table is too large for one picture", "draw it from 'hwnas table export'")
    with style():
        save(_figure(table, panels), out)


def table_panels(table: LatencyTable) -> list[Panel]:
    """Return the heat maps of a table: its entries and its edge costs."""
    return [*_entry_panels(table.entries), *_edge_panels(table)]


def _entry_panels(entries: Sequence[Entry]) -> list[Panel]:
    """Return heat maps of operations by sizes, large images first, with at most COLUMNS sizes each."""

    def size(workload: Workload) -> tuple[int, ...]:
        area = workload.height * workload.width
        return -area, workload.height, workload.stride, workload.in_channels, workload.out_channels

    latencies = {(entry.op, size(entry.workload)): entry.latency_ms for entry in entries}
    labels = {size(entry.workload): _size_label(entry.workload) for entry in entries}
    sizes = sorted(labels)
    panels = []
    for start in range(0, len(sizes), COLUMNS):
        part = sizes[start : start + COLUMNS]
        ops = sorted({op for op, where in latencies if where in part})
        ms: Grid = [[latencies.get((op, where)) for where in part] for op in ops]
        panels.append(Panel("", "entries", ops, [labels[where] for where in part], ms, AXIS))
    return panels


def _size_label(workload: Workload) -> str:
    channels = str(workload.in_channels)
    if workload.out_channels != workload.in_channels:
        channels += f"→{workload.out_channels}"
    stride = f" /{workload.stride}" if workload.stride > 1 else ""
    return f"{channels}, {workload.height}×{workload.width}{stride}"


def _edge_panels(table: LatencyTable) -> list[Panel]:
    panels = []
    for network, costs in table.edge_costs.items():
        ops = [op for op in costs.operations if op != NONE]
        for kind, cell in costs.cells.items():
            if not cell.macs or not ops:
                continue
            ms: Grid = [[None] * len(ops) for _ in cell.macs]
            for edge, op, amount in edge_amounts(costs, cell):
                ms[edge][ops.index(op)] = amount.ms
            title = f"{network}, {kind}: costs of live edges"
            panels.append(Panel(title, network, edge_labels(network, kind, cell), ops, ms))
    return panels


def positive_ms(panels: Iterable[Panel]) -> list[float]:
    """Return the positive latencies of panels, which a logarithmic scale can show."""
    return [ms for panel in panels for row in panel.ms for ms in row if ms is not None and ms > 0]


def unit_of(positive: Sequence[float]) -> tuple[str, float]:
    """Return the unit for such latencies, and how many of it are in a millisecond."""
    return ("ms", 1.0) if positive and median(positive) >= 0.5 else ("µs", 1e3)


def edge_labels(network: str, kind: str, cell: CellCosts) -> list[str]:
    """Return labels of a cell's edges: ``0→1`` by their nodes if the space is known, else their numbers."""
    space = builtin_space(network.split("/")[0])
    edges = space.cells[kind].edges if space and kind in space.cells else ()
    if len(edges) != len(cell.macs):
        return [f"edge {number}" for number in range(len(cell.macs))]
    return [f"{source}→{target}" for source, target in edges]


def _figure(table: LatencyTable, panels: Sequence[Panel]) -> Figure:
    from matplotlib.figure import Figure

    widest = max(len(panel.columns) for panel in panels)
    width = max(CELL[0] * widest + 2.6, 7.5)
    heights = [CELL[1] * len(panel.rows) + 0.2 for panel in panels]
    title = _title(table, width)
    labels = sum(_label_height(panel, width) + 0.35 + 0.2 * bool(panel.below) for panel in panels)
    figure = Figure(figsize=(width, sum(heights) + labels + 0.2 * title.count("\n") + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=10, parse_math=False)
    axes: list[Axes] = list(figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0])
    annotated = sum(len(panel.rows) * len(panel.columns) for panel in panels) <= ANNOTATED
    for scale in dict.fromkeys(panel.scale for panel in panels):
        chosen = [(axis, panel) for axis, panel in zip(axes, panels, strict=True) if panel.scale == scale]
        _draw(figure, chosen, annotated)
    return figure


def _label_height(panel: Panel, width: float) -> float:
    """Return the height in inches of a panel's column labels, which are rotated when they do not fit side by side."""
    longest = LETTER * max(map(len, panel.columns))
    return 0.15 if longest < (width - 2) / len(panel.columns) else longest


def _title(table: LatencyTable, width: float) -> str:
    lines = textwrap.wrap(_label(table.describe(), 1_000), int(width * 13)) or [""]
    if table.warnings:
        lines.append("unreliable: hwnas table show says why")
    return "\n".join(lines)


def _draw(figure: Figure, panels: Sequence[tuple[Axes, Panel]], annotated: bool) -> None:
    """Draw heat maps with one logarithmic colour scale; latencies of zero or less are grey."""
    import matplotlib
    from matplotlib.cm import ScalarMappable

    positive = positive_ms(panel for _, panel in panels)
    unit, per_ms = unit_of(positive)
    norm = _norm(positive, per_ms)
    colours = ScalarMappable(norm, matplotlib.colormaps["viridis"])
    for axis, panel in panels:
        pixels = [[_colour(ms, per_ms, colours) for ms in row] for row in panel.ms]
        axis.imshow(pixels, aspect="auto", interpolation="nearest")
        axis.set_title(_label(panel.title), fontsize=9, loc="left", parse_math=False)
        rotation = 90 if _label_height(panel, figure.get_figwidth()) > 0.15 else 0
        axis.set_xticks(range(len(panel.columns)), [_label(label) for label in panel.columns], rotation=rotation)
        axis.set_yticks(range(len(panel.rows)), [_label(label) for label in panel.rows])
        for label in (*axis.get_xticklabels(), *axis.get_yticklabels()):
            label.set_parse_math(False)
        axis.set_xlabel(panel.below)
        axis.tick_params(length=0)
        axis.set_xticks([number - 0.5 for number in range(1, len(panel.columns))], minor=True)
        axis.set_yticks([number - 0.5 for number in range(1, len(panel.rows))], minor=True)
        axis.grid(which="minor", color="white", linewidth=1)
        axis.tick_params(which="minor", length=0)
        axis.spines[:].set_visible(False)
        if annotated:
            _annotate(axis, panel, pixels, per_ms)
    bar = figure.colorbar(colours, ax=[axis for axis, _ in panels], aspect=30, pad=0.01, fraction=0.04)
    bar.set_label(f"latency, {unit}")
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    bar.ax.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if _few_decades(norm) else "")
    bar.outline.set_visible(False)


def _norm(positive: Sequence[float], per_ms: float) -> LogNorm:
    from matplotlib.colors import LogNorm

    least, most = (min(positive) * per_ms, max(positive) * per_ms) if positive else (1.0, 10.0)
    if most < least * 1.01:  # a scale needs two values
        least, most = least / 2, most * 2
    return LogNorm(max(least, most / 1_000), most)  # tiny latencies must not use up the colours


def _few_decades(norm: LogNorm) -> bool:
    return bool(norm.vmin and norm.vmax and norm.vmax / norm.vmin < 20)


def _colour(ms: float | None, per_ms: float, colours: Any) -> tuple[float, ...]:
    if ms is None:
        return (0.965, 0.965, 0.965, 1.0)
    if ms <= 0:
        return (0.78, 0.78, 0.78, 1.0)
    return tuple(colours.to_rgba(ms * per_ms))


def _annotate(axis: Axes, panel: Panel, pixels: Sequence[Sequence[Sequence[float]]], per_ms: float) -> None:
    for row, (line, colours) in enumerate(zip(panel.ms, pixels, strict=True)):
        for column, (ms, (red, green, blue, _)) in enumerate(zip(line, colours, strict=True)):
            if ms is not None:
                bright = 0.299 * red + 0.587 * green + 0.114 * blue > 0.55
                text = short_number(ms * per_ms)
                axis.text(column, row, text, ha="center", va="center", fontsize=6, color="black" if bright else "white")


def _label(text: str, longest: int = 100) -> str:
    """Return one printable line of bounded length: names are untrusted."""
    return shorten(printable(text), longest)
