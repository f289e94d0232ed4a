"""The edges of a derived network: probability and cost of the operation of each, and of the runner-up."""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.report.run_content import RunContent, Target
from hwnas.spaces import NONE


@dataclass(frozen=True)
class Choice:
    """An operation on an edge; ``cost_ms`` is by device, ``probability`` None where the run did not record it."""

    op: str
    probability: float | None
    cost_ms: dict[str, float]


@dataclass(frozen=True)
class Edge:
    """The derived operation on an edge of a cell, and the most probable other operation.

    ``live`` is true on a path from an input to an output; the exported network has no other edges. ``ruled`` is true
    where rules limit the number of inputs of every node. ``selection`` is the name of the search's way to
    select its architecture.
    """

    kind: str
    number: int
    source: int
    target: int
    chosen: Choice
    runner_up: Choice | None
    live: bool
    ruled: bool
    selection: str

    @property
    def label(self) -> str:
        return f"{self.source}→{self.target}"

    @property
    def why(self) -> str:
        """The reason for the operation, in words; empty where the probabilities are not known."""
        chosen, other = self.chosen, self.runner_up
        if other is None or chosen.probability is None or other.probability is None:
            return ""
        if self.selection != "probable":
            return f"part of the network that {self.selection} took"
        dead = "; on no path to the output, left out of the network" if chosen.op != NONE and not self.live else ""
        if chosen.probability >= other.probability:
            return f"the most probable{dead}"
        dearer = [ms - chosen.cost_ms[device] for device, ms in other.cost_ms.items()]
        cheaper = "cheaper, " if all(ms > 0 for ms in dearer) else ""
        rule = " and its nodes' inputs" * self.ruled
        return f"{cheaper}taken to keep the whole network's limits{rule}{dead}"


def edges_of(run: RunContent, target: Target) -> dict[str, list[Edge]]:
    """Return the edges of every cell kind of a target's network."""
    devices = [timing.device for timing in target.timings]
    edge_costs = {device: run.latency_models[device].given(target.architecture) for device in devices}
    fixed = run.manifest.recipe.inputs_per_node is not None
    selection = run.manifest.recipe.selection.name
    result: dict[str, list[Edge]] = {}
    for (kind, cell), chosen in zip(run.space.cells.items(), target.architecture.cells, strict=True):
        live, ruled = cell.live_edges(chosen), fixed or cell.least_inputs > 0
        probabilities = target.probabilities[kind] if target.probabilities else None

        def choice(
            number: int, op: str, kind: str = kind, probabilities: list[list[float]] | None = probabilities
        ) -> Choice:
            o = run.space.operations.index(op)
            costs = {device: float(edge_costs[device][kind][number, o]) for device in devices}
            return Choice(op, probabilities[number][o] if probabilities else None, costs)

        result[kind] = []
        for number, (source, sink) in enumerate(cell.edges):
            others = [op for op in run.space.operations if op != chosen[number]]
            second = None
            if probabilities:
                row = dict(zip(run.space.operations, probabilities[number], strict=True))
                second = choice(number, max(others, key=row.__getitem__))
            first = choice(number, chosen[number])
            result[kind].append(Edge(kind, number, source, sink, first, second, live[number], ruled, selection))
    return result
