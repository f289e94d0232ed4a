"""Lay out a cell as a graph: nodes below each other, every edge with its operation, cost and probability.

An edge runs from its source to its label and from there to its target. Labels are in one column above their target, so
that no label covers another in any cell. The template ``cell.svg`` draws the layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hwnas.report.edges import Edge
from hwnas.report.templating import render
from hwnas.report.theme import FONT, GREY, GRID, INK, MUTED, PAPER
from hwnas.spaces import NONE, Cell

WIDTH, NODE_X, LABEL_X, ROW, NODE_ROW, RADIUS = 364, 58, 138, 30, 42, 13  # pixels
CONCATENATION = -1  # the number of the node that joins the outputs
Heights = dict[int, float]


@dataclass(frozen=True)
class _DrawnEdge:
    """An edge: paths to its label, from there to its target, and the arrow head; ``y`` is the height of the label."""

    y: float
    to_label: str
    from_label: str
    arrow: str
    width: float
    colour: str
    live: bool
    op: str
    costs: str
    tip: str


@dataclass(frozen=True)
class _DrawnNode:
    """A node; ``role`` is the text beside it, empty for inner nodes."""

    name: str
    y: float
    role: str
    role_x: int
    anchor: str


def cell_graph(cell: Cell, edges: Sequence[Edge], colours: Mapping[str, str]) -> str:
    """Return the SVG of a cell with the operations of ``edges``, without those that are ``none``."""
    drawn = [edge for edge in edges if edge.chosen.op != NONE]
    nodes, labels, height = _heights(cell, drawn)
    most = max((_cost(edge) for edge in drawn), default=0.0)
    joins = [_join(nodes[node], nodes[CONCATENATION]) for node in cell.outputs] if len(cell.outputs) > 1 else []
    return render(
        "cell.svg",
        edges=[_edge(edge, nodes, labels[edge.number], colours[edge.chosen.op], most) for edge in drawn],
        joins=joins,
        nodes=[_node(cell, node, y) for node, y in nodes.items()],
        width=WIDTH,
        height=height,
        label_x=LABEL_X,
        node_x=NODE_X,
        radius=RADIUS,
        font=FONT,
        ink=INK,
        muted=MUTED,
        grid=GRID,
        paper=PAPER,
        grey=GREY,
    )


def _heights(cell: Cell, drawn: Sequence[Edge]) -> tuple[Heights, Heights, float]:
    """Return the heights of the nodes, of the labels by edge, and of the whole graph."""
    nodes: Heights = {}
    labels: Heights = {}
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
        nodes[CONCATENATION] = y
        y += NODE_ROW
    return nodes, labels, y - NODE_ROW + RADIUS + 8


def _edge(edge: Edge, nodes: Heights, y: float, colour: str, most: float) -> _DrawnEdge:
    top, bottom = nodes[edge.source], nodes[edge.target]
    start, tip, bend = NODE_X + RADIUS - 1, NODE_X + RADIUS + 2, (NODE_X + LABEL_X) / 2 + 16
    return _DrawnEdge(
        y=y,
        to_label=f"M{start},{top} C{bend},{top + 4} {bend - 10},{y} {LABEL_X},{y}",
        from_label=f"M{LABEL_X},{y + 5} C{bend},{y + 7} {bend - 6},{bottom} {tip + 4},{bottom}",
        arrow=f"M{tip - 1},{bottom} l8,-4.5 v9 Z",
        width=round(1.4 + 3.6 * (_cost(edge) / most if most > 0 else 0), 2),
        colour=colour,
        live=edge.live,
        op=edge.chosen.op,
        costs=_costs(edge),
        tip=_tip(edge),
    )


def _join(top: float, bottom: float) -> str:
    """Return the path from an output to the concatenation, on the left, where no edge runs."""
    x = NODE_X - RADIUS
    return f"M{x},{top} C{x - 18},{top + 10} {x - 18},{bottom - 12} {x},{bottom}"


def _node(cell: Cell, node: int, y: float) -> _DrawnNode:
    name, role = str(node), ""
    if node == CONCATENATION:
        name, role = "∥", "output: the nodes joined"
    elif node < cell.num_inputs:
        role = "input" if cell.num_inputs == 1 else f"c(k−{cell.num_inputs - node})"
    elif cell.outputs == (node,):
        role = "output"
    # Edges run on the right of the nodes, except for the concatenation, whose edges are on the left.
    on_right = node == CONCATENATION
    x, anchor = (NODE_X + RADIUS + 7, "start") if on_right else (NODE_X - RADIUS - 7, "end")
    return _DrawnNode(name, y, role, x, anchor)


def _cost(edge: Edge) -> float:
    return max(0.0, next(iter(edge.chosen.cost_ms.values()), 0.0))


def _costs(edge: Edge) -> str:
    """Return the costs on the devices, empty where none is known."""
    return " | ".join(f"{ms:.3g}" for ms in edge.chosen.cost_ms.values()) + " ms" * bool(edge.chosen.cost_ms)


def _tip(edge: Edge) -> str:
    chosen, second = edge.chosen, edge.runner_up
    costs = [f"{ms:.4g} ms" + f" on {device}" * (len(chosen.cost_ms) > 1) for device, ms in chosen.cost_ms.items()]
    texts = [f"{edge.label}: {chosen.op}", *[", ".join(costs)] * bool(costs)]
    if chosen.probability is not None:
        texts.append(f"probability {chosen.probability:.3f}")
    if second and second.probability is not None:
        texts.append(f"runner-up {second.op}, probability {second.probability:.3f}")
    if not edge.live:
        texts.append("dead: on no path from an input to the output")
    return "; ".join(texts)
