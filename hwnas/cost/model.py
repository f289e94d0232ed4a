"""The cost of an architecture: edge costs summed from a table, exact under a factorised distribution.

Two costs follow from the same numbers:

* the decomposable cost C(Z) = base + sum over edges and operations of Z[e, o] * c[e, o], linear in Z, whose exact
  expectation E[C] = base + sum p * c goes into the search loss (Xie et al., SNAS, ICLR 2019, section 2.3);
* the cost of a deployed network, in which dead edges (on no path from an input to an output) have been left out, a
  node with n live inputs makes n - 1 additions, and the runtime's rewrites (hwnas.cost.fusion) apply. Where every node
  has an input it is at most C(Z). Predictions, budgets and derivation use this one.

In a chain whose stages have several widths a layer's cost also depends on the widths before and after it. C(Z) then has
products of these choices' Z and Z[e, o] (hwnas.cost.coupling); its expectation is as exact, because the choices are
independent.

Parameters, multiply-accumulates and memory access cost count every chosen edge, dead or not, as the papers count them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.cost.coupling import Coupling, couplings_of
from hwnas.cost.fusion import (
    FAMILIES,
    begins_with_relu,
    entry_holds_piece,
    family,
    fuses_addition,
    fuses_relu,
    piece_family,
    piece_names,
    piece_of,
    pieces,
)
from hwnas.cost.metric import LATENCY, MACS, PARAMS, Metric
from hwnas.errors import HwnasError
from hwnas.runtimes.runtime import Rewrite
from hwnas.spaces import (
    NONE,
    Architecture,
    Cell,
    CellInstance,
    FixedModule,
    Network,
    SearchSpace,
    SizedSpace,
    Workload,
)
from hwnas.spaces.encoding import encode, live_edges
from hwnas.tables.lacking import lacking_error
from hwnas.tables.network_key import require_same_space
from hwnas.tables.schema import Correction, EdgeCosts, Entry, LatencyTable

RELU = 0  # of the names that hwnas.cost.fusion.piece_names returns
Array = NDArray[np.float64]


@dataclass(frozen=True)
class CellCost:
    """Costs of one cell kind, summed over all its instances in the network.

    ``edges`` [E, K] is the cost of an operation on its own. ``always`` [E, K] is the additional cost of a used edge,
    dead or not (in fitted tables). ``addition`` is the cost of adding two tensors, ``fused_addition`` that of adding an
    operation's output where ``fuses`` [E, K].

    Where the runtime shares, ``piece`` [E, K] is the index of the piece (hwnas.cost.fusion.piece_names) that the
    operation needs in addition, or -1. ``pieces`` [E, P] is the cost of each piece there, paid once by all edges that
    read the same tensor. ``copies`` [E, K] marks operations that return their input. ``written`` [inputs, 2] is the
    share of instances (weighted by the cost of a ReLU there) in which a convolution wrote that input of the cell, and
    the share in which a cell of the same kind did. ``couplings`` are the costs of edges that read others; these cost
    nothing in ``edges``.
    """

    edges: Array
    addition: float
    fused_addition: float
    piece: NDArray[np.intp]
    pieces: Array
    copies: NDArray[np.bool_]
    fuses: NDArray[np.bool_]
    written: Array
    always: Array
    couplings: tuple[Coupling, ...] = ()

    @classmethod
    def of_edges(cls, edges: Array, inputs: int, always: Array | None = None) -> CellCost:
        """Return the costs of a cell with this number of inputs, in which nothing costs but edges [E, K]."""
        return cls(
            edges=edges,
            addition=0.0,
            fused_addition=0.0,
            piece=np.full(edges.shape, -1),
            pieces=np.zeros((len(edges), 1)),
            copies=np.zeros(edges.shape, dtype=bool),
            fuses=np.zeros(edges.shape, dtype=bool),
            written=np.zeros((inputs, 2)),
            always=np.zeros(edges.shape) if always is None else always,
        )


@dataclass(frozen=True)
class CostModel:
    """One metric over a space. ``dead_edges_are_free`` is true for what devices measure, false for counts."""

    space: SearchSpace
    metric: str
    base: float
    cells: Mapping[str, CellCost]
    dead_edges_are_free: bool

    def linear(self) -> tuple[float, dict[str, Array]]:
        """Return the base and c[e, o] of the decomposable C(Z).

        An edge pays for everything it needs, with nothing shared, and for its addition; one fused addition for each
        node is subtracted from the base. Of couplings these are the main effects: C(Z) is then approximated.
        """
        base, edges = self.base, {}
        used = np.array([op != NONE for op in self.space.operations], dtype=float)
        for kind, cell in self.space.cells.items():
            cost = self.cells[kind]
            base -= cost.fused_addition * cell.num_nodes
            shared = np.where(cost.piece >= 0, np.take_along_axis(cost.pieces, cost.piece, axis=1), 0.0)
            added = np.where(cost.fuses, cost.fused_addition, cost.addition)
            edges[kind] = cost.edges + cost.always + shared + added * used
            for coupling in cost.couplings:
                mean, effects = coupling.main_effects()
                edges[kind][coupling.edges[-1], list(coupling.offers[-1])] += mean
                for e, values in effects.items():
                    edges[kind][e] += values
        return base, edges

    def given(self, architecture: Architecture) -> dict[str, Array]:
        """Return c[e, o] of the decomposable C(Z) on every edge while the others are those of ``architecture``."""
        _, edges = self.linear()
        for (kind, found), operations in zip(edges.items(), architecture.cells, strict=True):
            chosen = [self.space.operations.index(op) for op in operations]
            couplings = self.cells[kind].couplings
            for e in {e for coupling in couplings for e in coupling.edges}:
                found[e] = 0.0
            for coupling in couplings:
                for axis, e in enumerate(coupling.edges):
                    at = tuple(slice(None) if n == axis else chosen[other] for n, other in enumerate(coupling.edges))
                    found[e] += coupling.values[at]
        return edges

    def predict(self, architecture: Architecture) -> float:
        """Return the cost of the deployed network of one architecture."""
        return float(self.predict_many(encode(self.space, [architecture]))[0])

    def predict_many(self, choices: NDArray[np.intp]) -> Array:
        """Return costs [N] of the architectures ``choices`` [N, edges of all cells], as operation indices."""
        total = np.full(len(choices), self.base)
        for kind, chosen in self.space.by_cell(choices).items():
            cell = self.space.cells[kind]
            used = chosen != self.space.operations.index(NONE)
            live = live_edges(cell, used) if self.dead_edges_are_free else used
            total += self.cells[kind].always[np.arange(len(cell.edges)), chosen].sum(axis=1)
            total += _cell_cost(cell, self.cells[kind], chosen, live)
            total += sum((coupling.of(chosen) for coupling in self.cells[kind].couplings), np.zeros(len(chosen)))
        return total


def _cell_cost(cell: Cell, cost: CellCost, chosen: NDArray[np.intp], live: NDArray[np.bool_]) -> Array:
    """Return costs [N] of one cell kind with the operations ``chosen`` [N, E], of which ``live`` [N, E] run."""
    every_edge = np.arange(len(cell.edges))
    total = (cost.edges[every_edge, chosen] * live).sum(axis=1)
    fuses, copies = live & cost.fuses[every_edge, chosen], live & cost.copies[every_edge, chosen]
    nodes = cell.num_inputs + cell.num_nodes
    # held: the node whose tensor a node is, another one where it copies. written: whether a convolution wrote it.
    held = np.tile(np.arange(nodes), (len(chosen), 1))
    written = np.zeros((len(chosen), nodes), dtype=bool)
    passes_on = np.zeros_like(live)
    for node in cell.inner_nodes:
        into = cell.edges_into(node)
        inputs = live[:, into].sum(axis=1)
        met = np.zeros(len(chosen), dtype=np.intp)  # number of inputs so far, in the order of summation
        for e in into:
            # The first input needs no addition. A convolution adds its result to the sum so far; if one wrote the
            # first input, it adds the second.
            free = fuses[:, e] | ((met == 1) & written[:, node])
            added = live[:, e] & (met > 0)
            total += cost.addition * (added & ~free) + cost.fused_addition * (added & free)
            written[:, node] = np.where(live[:, e], fuses[:, e] | (free & (met == 1)), written[:, node])
            met += live[:, e]
            passes_on[:, e] = (inputs == 1) & copies[:, e]
            alone = passes_on[:, e]
            held[alone, node] = held[alone, cell.edges[e][0]]
    return total + _shared_cost(cell, cost, chosen, live, held, written, passes_on)


def _shared_cost(
    cell: Cell,
    cost: CellCost,
    chosen: NDArray[np.intp],
    live: NDArray[np.bool_],
    held: NDArray[np.intp],
    written: NDArray[np.bool_],
    passes_on: NDArray[np.bool_],
) -> Array:
    """Return the costs [N] of the pieces that edges share: each once for every tensor that they read.

    A ReLU is free when a convolution wrote the tensor and only the ReLU reads it: the convolution applies it.
    """
    everyone = np.arange(len(chosen))
    needed = np.where(live, cost.piece[np.arange(len(cell.edges)), chosen], -1)
    prices = np.zeros((len(cost.pieces[0]), *held.shape))
    kept = np.zeros(held.shape, dtype=bool)  # read by anything but a ReLU
    for node in cell.outputs:
        kept[everyone, held[:, node]] = True
    for e, (source, _) in enumerate(cell.edges):
        for number in set(np.unique(needed[:, e])) - {-1}:
            rows = np.flatnonzero(needed[:, e] == number)
            prices[number, rows, held[rows, source]] = cost.pieces[e, number]
        other = live[:, e] & (needed[:, e] != RELU) & ~passes_on[:, e]
        kept[everyone[other], held[other, source]] = True
    saved = np.where(written & ~kept, prices[RELU], 0.0)
    for number in range(cell.num_inputs):
        free = cost.written[number, 0] + cost.written[number, 1] * written[:, cell.outputs[-1]]
        saved[:, number] = np.where(kept[:, number], 0.0, prices[RELU, :, number] * free)
    return np.asarray(prices.sum(axis=(0, 2)) - saved.sum(axis=1))


Content = tuple[list[Entry], Correction, EdgeCosts | None]  # of a table, as far as the costs of one network need it
# A search proposes and re-times architectures with the same few tables.
_cached: deque[tuple[SizedSpace, Content, dict[str, CostModel]]] = deque(maxlen=16)


def build_cost_models(table: LatencyTable, sized: SizedSpace) -> dict[str, CostModel]:
    """Build one cost model for every metric: latency_ms, macs (counted by the space's convention), params.

    The last few results are cached by what the table holds for the network. Raises HwnasError that names the sizes that
    differ and lists the workloads of the space that the table lacks.
    """
    require_same_space(table, sized.space)
    correction = table.correction.get(sized.key) or Correction(offset_ms=0, scale=1, networks=0)
    content = list(table.entries), correction, table.edge_costs.get(sized.key)
    for its_space, its_content, models in _cached:
        if its_space == sized and its_content == content:
            return dict(models)
    if found := table.edge_costs.get(sized.key):
        models = _by_edges(sized.space, found)
    else:
        models = _by_entries(table, correction, sized)
    _cached.append((sized, content, models))
    return dict(models)


def _by_entries(table: LatencyTable, correction: Correction, sized: SizedSpace) -> dict[str, CostModel]:
    """Build the models of measured workloads."""
    entries = {entry.workload: entry for entry in table.entries}
    network = sized.network
    needed = network.workloads() + (pieces(network) if "share" in correction.rewrites else [])
    missing = [workload.key for workload in needed if workload not in entries]
    if missing:
        raise lacking_error(table, sized, missing, len(needed))
    latency = _cost_model(sized, LATENCY, entries, "latency_ms", correction)
    return {LATENCY.name: latency, **count_models(sized, entries)}


def count_models(sized: SizedSpace, entries: Mapping[Workload, Entry]) -> dict[str, CostModel]:
    """Build the models of MACs, counted by the space's convention, and of parameters."""
    counted = "macs" if sized.space.macs_convention == "fvcore" else "macs_conv_linear"
    return {
        MACS.name: network_model(sized, MACS, entries, counted),
        PARAMS.name: network_model(sized, PARAMS, entries, "params"),
    }


def network_model(sized: SizedSpace, metric: Metric, entries: Mapping[Workload, Any], field: str) -> CostModel:
    """Build the model that sums ``field`` of ``entries`` over a network's workloads."""
    return _cost_model(sized, metric, entries, field, Correction(offset_ms=0, scale=1, networks=0))


def _by_edges(space: SearchSpace, found: EdgeCosts) -> dict[str, CostModel]:
    """Build the models of fitted edge costs. Raises HwnasError when they are of another space."""
    shapes = {kind: (len(cell.edges), len(space.operations)) for kind, cell in space.cells.items()}
    if found.operations != list(space.operations) or shapes != {
        kind: (len(costs.macs), len(costs.macs[0])) for kind, costs in found.cells.items()
    }:
        raise HwnasError(
            f"the table's edge costs are not of space {space.name}", "fit the table again with 'hwnas table fit'"
        )

    def model(metric: Metric, base: float, live: str, always: str | None) -> CostModel:
        cells = {}
        for kind, costs in found.cells.items():
            edges = np.array(getattr(costs, live), dtype=float)
            used = np.array(getattr(costs, always), dtype=float) if always else None
            cells[kind] = CellCost.of_edges(edges, space.cells[kind].num_inputs, used)
        return CostModel(space, metric.name, float(base), cells, dead_edges_are_free=metric.measured)

    return {
        LATENCY.name: model(LATENCY, found.base_ms, "live_ms", "always_ms"),
        MACS.name: model(MACS, found.base_macs, "macs", None),
        PARAMS.name: model(PARAMS, found.base_params, "params", None),
    }


def family_sums(
    table: LatencyTable, sized: SizedSpace, choices: NDArray[np.intp], rewrites: Sequence[Rewrite]
) -> dict[str, Array]:
    """Return the sums [N] of the entries of each family in the networks ``choices``, and the constant ``fixed``.

    The factors of a correction are fitted on these.
    """
    result = {}
    for name in FAMILIES:
        factors: dict[str, float] = {other: float(other == name) for other in FAMILIES}
        only = Correction(offset_ms=0, scale=1, factors=factors, rewrites=list(rewrites), networks=0)
        model = _by_entries(table, only, sized)[LATENCY.name]
        result["fixed"] = np.full(len(choices), model.base)
        result[name] = model.predict_many(choices) - model.base
    return result


def _cost_model(
    sized: SizedSpace,
    metric: Metric,
    entries: Mapping[Workload, Any],
    field: str,
    correction: Correction,
) -> CostModel:
    space, network = sized.space, sized.network
    share, fuse = "share" in correction.rewrites, "fuse" in correction.rewrites
    fused = "fused_sum" if fuse else "sum"

    def cost(workload: Workload, factor: float) -> float:
        return factor * float(getattr(entries[workload], field))

    names = piece_names(network)
    base = correction.offset_ms + sum(cost(workload, correction.scale) for workload in network.fixed_workloads())
    cells = {}
    for kind, cell in space.cells.items():
        instances = network.cell_instances(kind)
        sums = [instance.node_sum for instance in instances if instance.node_sum]
        shape = (len(cell.edges), len(space.operations))
        edges, shared = np.zeros(shape), np.zeros((len(cell.edges), len(names)))
        piece = np.full(shape, -1)
        copies, fuses = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        for e, candidates in enumerate(instances[0].candidates if instances else ()):
            for o, op in enumerate(space.operations if e not in cell.coupled else ()):
                workload = candidates[op]
                if workload is None:
                    copies[e, o] = share and op != NONE
                    continue
                fuses[e, o] = fuse and fuses_addition(workload)
                timed = [w for instance in instances if (w := instance.candidates[e][op])]
                edges[e, o] = sum(cost(w, correction.factor(family(w))) for w in timed)
                begins = [begun for w in timed if (begun := piece_of(w))]
                if not share or not begins:
                    continue
                piece[e, o] = names.index(begins[0].op)
                first = sum(cost(w, correction.factor(piece_family(w))) for w in begins)
                if entry_holds_piece(workload):
                    edges[e, o] = max(edges[e, o] - first, 0.0)
                shared[e, piece[e, o]] = first
        cells[kind] = CellCost(
            edges=edges,
            addition=sum(cost(w, correction.factor("sum")) for w in sums),
            fused_addition=sum(cost(w, correction.factor(fused)) for w in sums),
            piece=piece,
            pieces=shared,
            copies=copies,
            fuses=fuses,
            written=_written(network, cell, instances, entries, field) if fuse else np.zeros((cell.num_inputs, 2)),
            always=np.zeros(shape),
            couplings=tuple(couplings_of(space, cell, instances, lambda w: cost(w, correction.factor(family(w))))),
        )
    return CostModel(space, metric.name, base, cells, dead_edges_are_free=metric.measured)


def _written(
    network: Network, cell: Cell, instances: Sequence[CellInstance], entries: Mapping[Workload, Entry], field: str
) -> Array:
    """Return CellCost.written: the writers of a cell's inputs, weighted by the cost of a ReLU there."""
    result = np.zeros((cell.num_inputs, 2))
    for number in range(cell.num_inputs):
        edge = cell.edges_from(number)[0]
        total = 0.0
        for instance in instances:
            relu = next((piece_of(w) for w in instance.candidates[edge].values() if w and begins_with_relu(w)), None)
            weight = max(float(getattr(entries[relu], field)), 1e-9) if relu and relu in entries else 1.0
            total += weight
            before, prepared = network.parts[instance.inputs[number]], instance.preprocess[number]
            if prepared:
                result[number, 0] += weight * fuses_relu(prepared)
            elif isinstance(before, FixedModule):
                result[number, 0] += weight * fuses_relu(before.workload)
            elif len(cell.outputs) == 1 and before.kind == instance.kind:
                result[number, 1] += weight
        result[number] /= total
    return result
