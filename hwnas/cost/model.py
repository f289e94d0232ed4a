"""The cost of an architecture: edge costs summed from a table, exact under a factorised distribution.

Two readings of the same numbers:

* the decomposable cost C(Z) = base + sum over edges and operations of Z[e, o] * c[e, o], linear in Z, whose exact
  expectation E[C] = base + sum p * c goes into the search loss (Xie et al., SNAS, ICLR 2019, section 2.3);
* the cost of a deployed network, in which dead edges (on no path from an input to an output) have been left out and a
  node with n live inputs makes n - 1 additions. It is never above C(Z) plus its additions; predictions, budgets and
  derivation use this one.

Parameters and multiply-accumulates count every chosen edge, dead or not, as the papers count them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.cost.networks import network_key, profile_command
from hwnas.errors import HwnasError
from hwnas.spaces import NONE, Architecture, Cell, Network, SearchSpace, Setting, Workload
from hwnas.tables.schema import Entry, LatencyTable

METRICS = ("latency_ms", "macs", "params")
Array = NDArray[np.float64]


@dataclass(frozen=True)
class CellCost:
    """Costs of one cell kind, summed over all its places: ``edges`` [E, K], one ``addition`` of two tensors."""

    edges: Array
    addition: float


@dataclass(frozen=True)
class CostModel:
    """One metric over a space. ``dead_edges_are_free`` is true of latency, false of counts."""

    space: SearchSpace
    metric: str
    base: float
    cells: Mapping[str, CellCost]
    dead_edges_are_free: bool

    def linear(self) -> tuple[float, dict[str, Array]]:
        """base and c[e, o] of the decomposable C(Z): every used edge pays its addition, every node gets one back."""
        base, edges = self.base, {}
        used = np.array([op != NONE for op in self.space.operations], dtype=float)
        for kind, cell in self.space.cells.items():
            base -= self.cells[kind].addition * cell.num_nodes
            edges[kind] = self.cells[kind].edges + self.cells[kind].addition * used
        return base, edges

    def predict(self, architecture: Architecture) -> float:
        """The cost of the deployed network of one architecture."""
        return float(self.predict_many(encode(self.space, [architecture]))[0])

    def predict_many(self, choices: NDArray[np.intp]) -> Array:
        """Costs of many architectures: ``choices`` [N, edges of all cells] are indices into the operations."""
        total = np.full(len(choices), self.base)
        start = 0
        for kind, cell in self.space.cells.items():
            chosen = choices[:, start : start + len(cell.edges)]
            start += len(cell.edges)
            used = chosen != self.space.operations.index(NONE)
            live = live_edges(cell, used) if self.dead_edges_are_free else used
            cost = self.cells[kind]
            total += (cost.edges[np.arange(len(cell.edges)), chosen] * live).sum(axis=1)
            for node in cell.inner_nodes:
                inputs = live[:, cell.edges_into(node)].sum(axis=1)
                total += cost.addition * np.maximum(inputs - 1, 0)
        return total


def live_edges(cell: Cell, used: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the used edges [N, E] lie on a path from an input to an output."""
    count = cell.num_inputs + cell.num_nodes
    reached = np.zeros((len(used), count), dtype=bool)
    needed = np.zeros((len(used), count), dtype=bool)
    reached[:, : cell.num_inputs] = True
    needed[:, list(cell.outputs)] = True
    for node in cell.inner_nodes:
        for e in cell.edges_into(node):
            reached[:, node] |= used[:, e] & reached[:, cell.edges[e][0]]
    for node in reversed(cell.inner_nodes):
        for e in cell.edges_into(node):
            needed[:, cell.edges[e][0]] |= used[:, e] & needed[:, node]
    sources, targets = np.array(cell.edges).T
    return used & reached[:, sources] & needed[:, targets]


def encode(space: SearchSpace, architectures: list[Architecture]) -> NDArray[np.intp]:
    """Operation indices [N, edges of all cells]."""
    index = {op: number for number, op in enumerate(space.operations)}
    return np.array([[index[op] for cell in a.cells for op in cell] for a in architectures], dtype=np.intp)


def decode(space: SearchSpace, choices: NDArray[np.intp]) -> Architecture:
    """The architecture of one row of operation indices."""
    cells, start = [], 0
    for cell in space.cells.values():
        cells.append(tuple(space.operations[int(o)] for o in choices[start : start + len(cell.edges)]))
        start += len(cell.edges)
    return Architecture(space.name, tuple(cells))


def build_cost_models(table: LatencyTable, space: SearchSpace, setting: Setting) -> dict[str, CostModel]:
    """One cost model for every metric: latency_ms, macs (counted by the space's convention), params.

    Raises HwnasError that lists the workloads of the space that the table lacks.
    """
    entries = {entry.workload: entry for entry in table.entries}
    network = space.network(setting)
    missing = [workload.key for workload in network.workloads() if workload not in entries]
    if missing:
        shown = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
        raise HwnasError(
            f"the table lacks {len(missing)} of {len(network.workloads())} workloads of space {space.name} "
            f"({setting.describe()}): {shown}",
            profile_command(space, setting),
        )
    correction = table.correction.get(network_key(space, setting))
    offset, scale = (correction.offset_ms, correction.scale) if correction else (0.0, 1.0)
    counted = "macs" if space.macs_convention == "fvcore" else "macs_conv_linear"
    return {
        "latency_ms": _cost_model(space, network, "latency_ms", entries, "latency_ms", True, offset, scale),
        "macs": _cost_model(space, network, "macs", entries, counted, False),
        "params": _cost_model(space, network, "params", entries, "params", False),
    }


def _cost_model(
    space: SearchSpace,
    network: Network,
    metric: str,
    entries: Mapping[Workload, Entry],
    field: str,
    dead_edges_are_free: bool,
    offset: float = 0.0,
    scale: float = 1.0,
) -> CostModel:
    def cost(workload: Workload | None) -> float:
        return scale * float(getattr(entries[workload], field)) if workload else 0.0

    base = offset + sum(cost(workload) for workload in network.fixed_workloads())
    cells = {}
    for kind in space.cells:
        places = network.places(kind)
        edges = sum(
            (np.array([[cost(c[op]) for op in space.operations] for c in place.candidates]) for place in places),
            start=np.zeros((len(space.cells[kind].edges), len(space.operations))),
        )
        cells[kind] = CellCost(edges, sum(cost(place.node_sum) for place in places))
    return CostModel(space, metric, base, cells, dead_edges_are_free)
