"""A cell drawn as a graph: nodes below each other, every edge with its operation, cost and probability, if known.

An edge leaves its source, runs to its label and from there to its target. Labels stand in one column above their
target, so that none covers another, whatever the cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from hwnas.report.edges import Edge
from hwnas.report.svg import FONT, GREY, GRID, INK, MUTED, PAPER, element, to_text
from hwnas.spaces import NONE, Cell

WIDTH, NODE_X, LABEL_X, ROW, NODE_ROW, RADIUS = 364, 58, 138, 30, 42, 13
Y = dict[int, float]


def cell_graph(cell: Cell, edges: Sequence[Edge], colours: Mapping[str, str]) -> str:
    """SVG of a cell with the operations of ``edges``; those that are ``none`` are left out."""
    drawn = [edge for edge in edges if edge.chosen.op != NONE]
    nodes, labels, height = _places(cell, drawn)
    root = element("svg", width=WIDTH, height=height, viewBox=f"0 0 {WIDTH} {height}", font_family=FONT, font_size=12)
    element("rect", root, width=WIDTH, height=height, fill=PAPER)
    most = max((_cost(edge) for edge in drawn), default=0.0)
    for edge in drawn:
        _draw_edge(root, edge, nodes, labels[edge.number], colours[edge.chosen.op], most)
    if len(cell.outputs) > 1:
        for node in cell.outputs:
            _concatenate(root, nodes[node], nodes[-1])
    for node, y in nodes.items():
        _draw_node(root, cell, node, y)
    return to_text(root)


def _places(cell: Cell, drawn: Sequence[Edge]) -> tuple[Y, Y, float]:
    """Heights of nodes (the concatenation is -1) and, by edge, of labels; and of the whole."""
    nodes: Y = {}
    labels: Y = {}
    y = 24.0
    for node in range(cell.num_inputs + cell.num_nodes):
        into = [edge for edge in drawn if edge.target == node]
        for edge in into:
            labels[edge.number] = y
            y += ROW
        y += 4 * bool(into)
        nodes[node] = y
        y += NODE_ROW
    if len(cell.outputs) > 1:
        nodes[-1] = y
        y += NODE_ROW
    return nodes, labels, y - NODE_ROW + RADIUS + 8


def _draw_edge(root: Element, edge: Edge, nodes: Y, y: float, colour: str, most: float) -> None:
    group = element("g", root, aria_label=_tip(edge))
    dead: dict[str, Any] = {} if edge.live else {"stroke_dasharray": "3 4"}
    width = 1.4 + 3.6 * (_cost(edge) / most if most > 0 else 0)
    top, bottom = nodes[edge.source], nodes[edge.target]
    start, tip, bend = NODE_X + RADIUS - 1, NODE_X + RADIUS + 2, (NODE_X + LABEL_X) / 2 + 16
    into_label = f"M{start},{top} C{bend},{top + 4} {bend - 10},{y} {LABEL_X},{y}"
    out_of_it = f"M{LABEL_X},{y + 5} C{bend},{y + 7} {bend - 6},{bottom} {tip + 4},{bottom}"
    for path in (into_label, out_of_it):
        element("path", group, d=path, fill="none", stroke=colour, stroke_width=round(width, 2), **dead)
    element("path", group, d=f"M{tip - 1},{bottom} l8,-4.5 v9 Z", fill=colour)
    box: dict[str, Any] = {"x": LABEL_X, "y": y - 12, "width": WIDTH - LABEL_X - 4, "height": 24, "rx": 6}
    element("rect", group, **box, fill=PAPER, stroke=colour, stroke_width=1.4, **dead)
    element("text", group, edge.chosen.op, x=LABEL_X + 8, y=y + 4, fill=INK)
    element("text", group, _costs(edge), x=WIDTH - 12, y=y + 4, fill=MUTED, text_anchor="end", font_size=11)


def _concatenate(root: Element, top: float, bottom: float) -> None:
    """An output joins the cell's: along the left, where no edge runs."""
    x = NODE_X - RADIUS
    path = f"M{x},{top} C{x - 18},{top + 10} {x - 18},{bottom - 12} {x},{bottom}"
    element("path", root, d=path, fill="none", stroke=GREY, stroke_width=1.2)


def _draw_node(root: Element, cell: Cell, node: int, y: float) -> None:
    element("circle", root, cx=NODE_X, cy=y, r=RADIUS, fill=GRID, stroke=MUTED, stroke_width=1.2)
    name, beside = str(node), ""
    if node == -1:
        name, beside = "∥", "output: the nodes joined"
    elif node < cell.num_inputs:
        beside = "input" if cell.num_inputs == 1 else f"c(k−{cell.num_inputs - node})"
    elif cell.outputs == (node,):
        beside = "output"
    element("text", root, name, x=NODE_X, y=y + 4, fill=INK, text_anchor="middle")
    # Edges run on the right, except to the joint output, which is joined on the left.
    x, anchor = (NODE_X + RADIUS + 7, "start") if node == -1 else (NODE_X - RADIUS - 7, "end")
    if beside:
        element("text", root, beside, x=x, y=y + 4, fill=MUTED, font_size=11, text_anchor=anchor)


def _cost(edge: Edge) -> float:
    return max(0.0, next(iter(edge.chosen.cost_ms.values()), 0.0))


def _costs(edge: Edge) -> str:
    """Empty where no device's costs are known."""
    return " | ".join(f"{ms:.3g}" for ms in edge.chosen.cost_ms.values()) + " ms" * bool(edge.chosen.cost_ms)


def _tip(edge: Edge) -> str:
    chosen, second = edge.chosen, edge.runner_up
    costs = [f"{ms:.4g} ms" + f" on {device}" * (len(chosen.cost_ms) > 1) for device, ms in chosen.cost_ms.items()]
    parts = [f"{edge.label}: {chosen.op}", *[", ".join(costs)] * bool(costs)]
    if chosen.probability is not None:
        parts.append(f"probability {chosen.probability:.3f}")
    if second and second.probability is not None:
        parts.append(f"runner-up {second.op}, probability {second.probability:.3f}")
    if not edge.live:
        parts.append("dead: on no path from an input to the output")
    return "; ".join(parts)
