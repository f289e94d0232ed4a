"""A faster evaluation of a supernet's cell: the same values and gradients, with work that edges share done once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property, reduce

import torch
from torch import Tensor, nn

from hwnas.networks.drop_path import DropPath
from hwnas.networks.fast.fused_edges import Layers, own_memory, weighted_sums
from hwnas.networks.fast.kernel_layers import branches
from hwnas.networks.fast.native import usable
from hwnas.networks.fast.steps import FirstOutputs, Steps, steps_of
from hwnas.networks.fast.weighted_sum import Term, weighted_sum
from hwnas.networks.mixed_cell import CellEvaluation, Mixed, MixedCell


class FastCell:
    """The faster evaluations of one cell. ``compiled``: with the compiled kernels where these can be used."""

    def __init__(self, cell: MixedCell, compiled: bool) -> None:
        self.compiled = compiled
        self.preprocess = [steps_of(module) for module in cell.preprocess]
        self.norms = [m for m in cell.modules() if isinstance(m, nn.BatchNorm2d)]
        self._steps: dict[tuple[object, ...], tuple[nn.Module, Steps]] = {}

    def __call__(
        self, cell: MixedCell, mixed: Mixed, inputs: Sequence[Tensor], drop: DropPath | None
    ) -> FastEvaluation:
        return FastEvaluation(cell, mixed, inputs, drop, self)

    def fusible(self, cell: MixedCell) -> bool:
        """Return whether all batch norms use the statistics of this process's batch: only then can they be fused."""
        return cell.training and all(type(norm) is nn.BatchNorm2d and norm.training for norm in self.norms)

    def steps(self, cell: MixedCell, e: int, op: str, read: tuple[str, ...]) -> Steps:
        """Return the steps of a candidate."""
        module, key = cell.candidate(e, op, read), (cell.slots[e], op, read)
        if key not in self._steps or self._steps[key][0] is not module:
            self._steps[key] = module, steps_of(module)
        return self._steps[key][1]


class FastEvaluation(CellEvaluation):
    """One forward pass of a cell, with shared results and fused operations.

    With the compiled kernels (``compiled``) a node's sum is one call; in plain torch an operation is fused over all
    edges that leave a node. ``fusible`` is ``FastCell.fusible``.
    """

    def __init__(
        self, cell: MixedCell, mixed: Mixed, inputs: Sequence[Tensor], drop: DropPath | None, fast: FastCell
    ) -> None:
        super().__init__(cell, mixed, inputs, drop)
        self.fast, self.fusible = fast, fast.fusible(cell)
        self.compiled = fast.compiled and self.fusible and usable(inputs[0])
        self._first_outputs: dict[int, FirstOutputs] = defaultdict(FirstOutputs)  # by source node
        self._fused: dict[int, dict[int, dict[int, Layers]]] = {}  # by source node, operation and edge
        self._sums: dict[int, Tensor] = {}  # of the fused candidates, by edge, until they are read
        self._steps_of: dict[tuple[int, int], Steps] = {}  # by edge and operation
        self._inputs_of: dict[int, dict[int, Tensor]] = {}  # of the candidates, by source node and edge

    def preprocessed(self) -> list[Tensor]:
        pairs = zip(self.fast.preprocess, self.inputs, strict=True)
        return [steps.output(x, FirstOutputs(), self.compiled) for steps, x in pairs]

    def node_sum(self, edges: list[int]) -> Tensor | None:
        if self.compiled and self.cell.partial == 1 and not self.mixed.ghosts and not self.cell.cell.reads:
            return self._kernel_node_sum(edges)
        total = super().node_sum(edges)
        return None if total is None else self.separate(total)

    def _kernel_node_sum(self, edges: list[int]) -> Tensor | None:
        """Sum all edges into a node in one call of the kernels."""
        edges = [e for e in edges if self.active[e]]
        if not edges:
            return None
        weights = self.mixed.weights
        weights = weights if self.mixed.edges is None else weights * self.mixed.edges[:, None]
        pairs = [(e, o) for e in edges for o in self.active[e]]
        return self._kernel_sum(pairs, weights, {e: self.drop.factors() for e in edges} if self.drop else None)

    def _kernel_sum(
        self, pairs: list[tuple[int, int]], weights: Tensor, factors: dict[int, Tensor] | None = None
    ) -> Tensor:
        """Sum candidates (edge, operation). ``factors`` [N] are those of the images, by edge."""
        rows = sorted(((self._term(e, o), e, o) for e, o in pairs), key=lambda row: not row[0].normed)
        terms, edges, operations = map(list, zip(*rows, strict=True))
        stacked = None if factors is None else torch.stack([factors[e] for e in edges])
        return weighted_sum(terms, weights[edges, operations], stacked)

    def weighted_candidates(self, e: int) -> Tensor:
        weights = self.mixed.weights
        if self.compiled:
            return self._kernel_sum([(e, o) for o in self.active[e]], weights)
        source = self.cell.cell.edges[e][0]
        if source not in self._fused:
            self._fused[source] = self._fusible_candidates(source)
            x, first_outputs = self._candidate_input(e)
            self._sums |= weighted_sums(self._fused[source], x, first_outputs.by_layer, weights)
        alone = [o for o in self.active[e] if e not in self._fused[source].get(o, ())]
        terms = [weights[e, o] * self.candidate(e, o) for o in alone]
        return reduce(torch.add, terms + ([self._sums.pop(e)] if e in self._sums else []))

    def _fusible_candidates(self, source: int) -> dict[int, dict[int, Layers]]:
        """Return what can be fused of the edges that leave a node: layers by operation, then by edge."""
        found: dict[int, dict[int, Layers]] = defaultdict(dict)
        kinds: dict[int, str] = {}
        for e, (start, target) in enumerate(self.cell.cell.edges):
            for o in self.active[e] if self.fusible and start == source and target in self._live_nodes else ():
                steps = self._steps(e, o)
                if steps.layers and steps.kind == kinds.setdefault(o, steps.kind):
                    found[o][e] = steps.layers
        return found

    @cached_property
    def _live_nodes(self) -> set[int]:
        """The nodes that the output depends on. Edges into others get no gradient; fused they would get zeros."""
        cell, live = self.cell.cell, set(self.cell.cell.outputs)
        for node in reversed(cell.inner_nodes):
            if node in live:
                runs = [e for e in cell.edges_into(node) if self.active[e] or self.cell.partial > 1]
                live.update(cell.edges[e][0] for e in runs)
        return live

    def run(self, e: int, o: int) -> Tensor:
        return self._steps(e, o).output(*self._candidate_input(e), self.compiled)

    def separate(self, x: Tensor) -> Tensor:
        return x if self.compiled else own_memory(x)

    def _term(self, e: int, o: int) -> Term:
        if self.cell.shared:
            return Term(self.candidate(e, o))
        return self._steps(e, o).term(*self._candidate_input(e))

    def _steps(self, e: int, o: int) -> Steps:
        if (e, o) not in self._steps_of:
            self._steps_of[e, o] = self.fast.steps(self.cell, e, self.cell.operations[o], self.read(e))
        return self._steps_of[e, o]

    def _candidate_input(self, e: int) -> tuple[Tensor, FirstOutputs]:
        """Return the channels that go through an edge's candidates, and the outputs of first layers on them."""
        source = self.cell.cell.edges[e][0]
        if source not in self._inputs_of:
            x = self.nodes[source]
            x = x[:, : x.shape[1] // self.cell.partial] if self.cell.partial > 1 else x
            edges = [e for e, (start, _) in enumerate(self.cell.cell.edges) if start == source and self.active[e]]
            each = [x] * len(edges)
            if self.compiled:
                rectified = sum(self._steps(e, o).rectifies(x) for e in edges for o in self.active[e])
                each, self._first_outputs[source].rectified = branches(x, len(edges), rectified)
            self._inputs_of[source] = dict(zip(edges, each, strict=True))
        return self._inputs_of[source][e], self._first_outputs[source]
