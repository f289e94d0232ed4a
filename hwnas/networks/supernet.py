"""The supernet: every candidate on every edge, mixed by the architecture's one-hot (or relaxed) variables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import torch
from torch import Tensor, nn

from hwnas.compute.device import CPU, to_device
from hwnas.errors import HwnasError
from hwnas.networks.child import ChildCell, ChildNetwork
from hwnas.networks.fast.mixture import Term, branches, mix, usable
from hwnas.networks.fast.steps import Firsts, Steps, steps_of
from hwnas.networks.fast.wide import Layers, compact, weighed_sums
from hwnas.operations import build_operation
from hwnas.spaces import NONE, Architecture, Cell, CellInstance, FixedModule, Network, SearchSpace, SizedSpace, Workload


@dataclass(frozen=True)
class Mixed:
    """What runs in a cell: on edge e the candidates ``active[e]`` (all of them without it), weighed by ``weights[e]``.

    ``weights`` is [E, K]; ``edges`` [E] weighs whole edges, what passes a partial edge by included (PC-DARTS). With
    ``ghosts`` every candidate that does not run adds its weight, as if its output were ones: where weights are one-hot
    samples this changes no value, only gradients (GDAS).
    """

    weights: Tensor
    active: list[list[int]] | None = None
    edges: Tensor | None = None
    ghosts: bool = False

    def on(self, device: torch.device) -> Mixed:
        """The same for a supernet on ``device``."""
        edges = None if self.edges is None else to_device(self.edges, device)
        return replace(self, weights=to_device(self.weights, device), edges=edges)


class MixedCell(nn.Module):
    """One occurrence of a cell in the supernet: node j = sum over edges (i, j) of ``Z[i, j] . O[i, j](x_i)``.

    Candidates' batch norms have no learnt factors (they would undo the mixture's weights). With ``partial`` = k the
    first 1/k of an edge's channels go through the candidates, the others pass by (max-pooled where the edge halves the
    resolution), and the channels are shuffled in k groups (PC-DARTS, Xu et al., ICLR 2020). With ``shared`` a candidate
    applied to a node is one module, and one output, for all edges that leave the node (EnTranNAS).
    """

    def __init__(
        self, cell: Cell, place: CellInstance, operations: tuple[str, ...], partial: int = 1, shared: bool = False
    ) -> None:
        super().__init__()
        self.cell, self.operations, self.partial = cell, operations, partial
        self.compiled = False
        sources = [source for source, _ in cell.edges]
        firsts = {source: sources.index(source) for source in sources}
        self.shared = shared
        self.slots = [list(firsts).index(source) for source in sources] if shared else list(range(len(sources)))
        self.preprocess = nn.ModuleList(build_operation(workload, affine=False) for workload in place.preprocess)
        self.edges = nn.ModuleList(
            nn.ModuleDict(
                {
                    op: build_operation(_narrow(workload, partial), affine=False)
                    for op, workload in place.candidates[e].items()
                    if op != NONE
                }
            )
            for e in (firsts.values() if shared else range(len(sources)))
        )
        self.out_channels, self.out_size = place.node_sum.out_channels, (place.node_sum.height, place.node_sum.width)
        self.prepares = [steps_of(module) for module in self.preprocess]
        self.norms = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]
        self._steps: dict[tuple[int, str], tuple[nn.Module, Steps]] = {}
        # Depthwise convolutions in bfloat16 are slow on a CPU, and their gradients wrong in torch 2.13.
        self.depthwise = any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in self.modules())

    def forward(self, mixed: Mixed, *inputs: Tensor, drop: DropPath | None = None) -> Tensor:
        if self.depthwise and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self(mixed, *(x.float() for x in inputs), drop=drop)
        fused = self.compiled and self.plain and usable(inputs[0])
        nodes = [steps.output(x, Firsts(), fused) for steps, x in zip(self.prepares, inputs, strict=True)]
        run = _Run(self, nodes, mixed, drop, fused)
        for node in self.cell.inner_nodes:
            total = run.node(self.cell.edges_into(node))
            nodes.append(self.zeros(inputs[0], self.out_channels) if total is None else total)
        outputs = [nodes[node] for node in self.cell.outputs]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)

    @property
    def plain(self) -> bool:
        """Whether batch norms take the statistics of this batch alone (those that processes share do not)."""
        return self.training and all(type(norm) is nn.BatchNorm2d and norm.training for norm in self.norms)

    def candidate(self, e: int, op: str) -> nn.Module:
        """The module of an operation on an edge."""
        return self.edges[self.slots[e]][op]  # type: ignore[index]

    def steps(self, e: int, op: str) -> Steps:
        """The candidate taken apart."""
        module, key = self.candidate(e, op), (self.slots[e], op)
        if key not in self._steps or self._steps[key][0] is not module:
            self._steps[key] = module, steps_of(module)
        return self._steps[key][1]

    def zeros(self, x: Tensor, channels: int) -> Tensor:
        """What a node without inputs holds."""
        return x.new_zeros(x.shape[0], channels, *self.out_size)


class _Run:
    """A cell at work: what its nodes hold so far, and what is computed once for several edges.

    ``fused``: by the compiled kernels.
    """

    def __init__(self, cell: MixedCell, nodes: list[Tensor], mixed: Mixed, drop: DropPath | None, fused: bool) -> None:
        self.cell, self.nodes, self.mixed, self.drop, self.fused = cell, nodes, mixed, drop, fused
        self.firsts: dict[int, Firsts] = defaultdict(Firsts)  # of every source node
        self.wide: dict[int, dict[int, dict[int, Layers]]] = {}  # what runs wide from every source
        self.sums: dict[int, Tensor] = {}  # of that what edges give, until it is taken
        self.plain = cell.plain
        self.outputs: dict[tuple[int, int], Tensor] = {}  # of every shared candidate
        self.taken_apart: dict[tuple[int, int], Steps] = {}  # candidates, by edge and operation
        self.narrow: dict[int, dict[int, Tensor]] = {}  # what goes through candidates, by source node and edge
        every = list(range(len(cell.operations)))
        listed = mixed.active or [every] * len(mixed.weights)
        self.active = [[o for o in row if cell.operations[o] != NONE] for row in listed]
        if not mixed.weights.requires_grad and mixed.weights.device == CPU:
            # A weight that is exactly 0 and learns nothing needs no output. (A GPU's are not known here and now.)
            pairs = zip(self.active, mixed.weights.tolist(), strict=True)
            self.active = [[o for o in row if weight[o] != 0] for row, weight in pairs]
        self.silent = [[o for o in every if o not in row] for row in listed]

    def node(self, edges: list[int]) -> Tensor | None:
        """The sum over the edges into a node; None where nothing runs and nothing passes by."""
        if self.fused and self.cell.partial == 1 and not self.mixed.ghosts:
            return self._at_once(edges)
        total: Tensor | None = None
        for e in edges:
            value = self._edge(e)
            if value is not None:
                value = value if self.mixed.edges is None else self.mixed.edges[e] * value
                value = self.drop(value) if self.drop else value
                total = value if total is None else total + value
        return total if total is None or self.fused else compact(total)

    def _at_once(self, edges: list[int]) -> Tensor | None:
        """All edges into a node in one sum."""
        edges = [e for e in edges if self.active[e]]
        if not edges:
            return None
        weights = self.mixed.weights
        weights = weights if self.mixed.edges is None else weights * self.mixed.edges[:, None]
        pairs = [(e, o) for e in edges for o in self.active[e]]
        return self._mix(pairs, weights, {e: self.drop.factors() for e in edges} if self.drop else None)

    def _mix(self, pairs: list[tuple[int, int]], weights: Tensor, factors: dict[int, Tensor] | None = None) -> Tensor:
        """``factors`` [N] are those of every edge."""
        rows = sorted(((self._term(e, o), e, o) for e, o in pairs), key=lambda row: not row[0].normed)
        terms, edges, operations = map(list, zip(*rows, strict=True))
        stacked = None if factors is None else torch.stack([factors[e] for e in edges])
        return mix(terms, weights[edges, operations], stacked)

    def _edge(self, e: int) -> Tensor | None:
        """The mixture on one edge, what passes by included; None where there is nothing."""
        x, partial, weights = self._source(e), self.cell.partial, self.mixed.weights
        channels = x.shape[1] // partial
        total: Tensor | None = None
        if self.fused and self.active[e]:
            total = self._mix([(e, o) for o in self.active[e]], weights)
        elif self.active[e]:
            total = self._sum(e)
        if self.mixed.ghosts:
            silent = torch.stack([weights[e, o] for o in self.silent[e]])
            total = silent.sum() + (self.cell.zeros(x, channels) if total is None else total)
        if partial == 1:
            return total
        rest = x[:, channels:]
        if rest.shape[2:] != self.cell.out_size:
            rest = nn.functional.max_pool2d(rest, 2, 2, ceil_mode=True)
        mine = self.cell.zeros(x, channels) if total is None else total if self.fused else compact(total)
        return shuffled(torch.cat([mine, rest], dim=1), partial)

    def _sum(self, e: int) -> Tensor:
        """An edge's candidates, weighed, in plain torch: wide ones are computed for all edges that leave its source."""
        source = self.cell.cell.edges[e][0]
        if source not in self.wide:
            self.wide[source] = self._leaving(source)
            x, firsts = self._narrow(e)
            self.sums |= weighed_sums(self.wide[source], x, firsts.made, self.mixed.weights)
        alone = [o for o in self.active[e] if e not in self.wide[source].get(o, ())]
        terms = [self.mixed.weights[e, o] * self._output(e, o) for o in alone]
        return reduce(torch.add, terms + ([self.sums.pop(e)] if e in self.sums else []))

    def _leaving(self, source: int) -> dict[int, dict[int, Layers]]:
        """What can run wide on the edges that leave a node: by operation, then by edge."""
        found: dict[int, dict[int, Layers]] = defaultdict(dict)
        kinds: dict[int, str] = {}
        for e, (start, target) in enumerate(self.cell.cell.edges):
            for o in self.active[e] if self.plain and start == source and target in self._live else ():
                steps = self._steps(e, o)
                if steps.layers and steps.kind == kinds.setdefault(o, steps.kind):
                    found[o][e] = steps.layers
        return found

    @cached_property
    def _live(self) -> set[int]:
        """The nodes that the output depends on: what leads to others has no gradient, beside these it would be zero."""
        cell, live = self.cell.cell, set(self.cell.cell.outputs)
        for node in reversed(cell.inner_nodes):
            if node in live:
                runs = [e for e in cell.edges_into(node) if self.active[e] or self.cell.partial > 1]
                live.update(cell.edges[e][0] for e in runs)
        return live

    def _source(self, e: int) -> Tensor:
        return self.nodes[self.cell.cell.edges[e][0]]

    def _term(self, e: int, o: int) -> Term:
        if self.cell.shared:
            return Term(self._output(e, o))
        return self._steps(e, o).term(*self._narrow(e))

    def _output(self, e: int, o: int) -> Tensor:
        """What a candidate gives on an edge; a shared one computes it once."""
        if not self.cell.shared:
            return self._steps(e, o).output(*self._narrow(e), self.fused)
        key = self.cell.slots[e], o
        if key not in self.outputs:
            self.outputs[key] = self._steps(e, o).output(*self._narrow(e), self.fused)
        return self.outputs[key]

    def _steps(self, e: int, o: int) -> Steps:
        if (e, o) not in self.taken_apart:
            self.taken_apart[e, o] = self.cell.steps(e, self.cell.operations[o])
        return self.taken_apart[e, o]

    def _narrow(self, e: int) -> tuple[Tensor, Firsts]:
        """What goes through the candidates of an edge, and what is known of it."""
        source = self.cell.cell.edges[e][0]
        if source not in self.narrow:
            x = self.nodes[source]
            x = x[:, : x.shape[1] // self.cell.partial] if self.cell.partial > 1 else x
            edges = [e for e, (start, _) in enumerate(self.cell.cell.edges) if start == source and self.active[e]]
            each = [x] * len(edges)
            if self.fused:
                rectified = sum(self._steps(e, o).rectifies(x) for e in edges for o in self.active[e])
                each, self.firsts[source].rectified = branches(x, len(edges), rectified)
            self.narrow[source] = dict(zip(edges, each, strict=True))
        return self.narrow[source][e], self.firsts[source]


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channels [N, C, H, W] dealt out in turn from ``groups`` equal blocks (ShuffleNet, Zhang et al., CVPR 2018)."""
    count, channels, height, width = x.shape
    return x.view(count, groups, channels // groups, height, width).transpose(1, 2).reshape(x.shape)


def require_divisible(network: Network, partial: int) -> None:
    """Raises HwnasError when a supernet with 1/``partial`` of the channels in its mixtures cannot be built."""
    for part in network.parts:
        for candidates in part.candidates if isinstance(part, CellInstance) else ():
            for workload in candidates.values():
                _narrow(workload, partial)


def _narrow(workload: Workload | None, partial: int) -> Workload | None:
    if workload is None or partial == 1:
        return workload
    if workload.in_channels % partial or workload.out_channels % partial:
        raise HwnasError(
            f"{workload.in_channels} channels cannot be divided into {partial} parts",
            f"give channels that {partial} divides, or another recipe",
        )
    return replace(workload, in_channels=workload.in_channels // partial, out_channels=workload.out_channels // partial)


class DropPath:
    """Drops a whole edge for some images of a batch and scales the others up (Larsson et al., FractalNet, 2017).

    ``rows`` [edges, N] are 0 where an edge is dropped for an image, else what it is scaled by; every call takes the
    next edge's.
    """

    def __init__(self, rows: Tensor) -> None:
        self.rows, self._next = rows, 0

    def __call__(self, x: Tensor) -> Tensor:
        return x * self.factors().to(x)[:, None, None, None]

    def factors(self) -> Tensor:
        """[N], of the next edge."""
        self._next += 1
        return self.rows[self._next - 1]


def drop_path(
    probability: float,
    generator: torch.Generator,
    edges: int,
    images: int,
    share: slice = slice(None),
    device: torch.device = CPU,
) -> DropPath:
    """Of ``edges`` edges, each dropped with ``probability``, for the ``share`` of a batch of ``images`` on ``device``.

    The random numbers are the whole batch's.
    """
    keep = 1 - probability
    drawn = torch.rand(edges, images, generator=generator)[:, share]
    return DropPath(to_device((drawn < keep).double() / keep, device))


class Supernet(nn.Module):
    """All architectures of a sized space at once: images [N, C, H, W] -> scores [N, classes].

    ``partial`` and ``shared`` are those of its cells. Raises HwnasError when ``partial`` does not divide the channels.
    """

    def __init__(self, sized: SizedSpace, partial: int = 1, shared: bool = False) -> None:
        super().__init__()
        self.sized, self.partial, self.shared = sized, partial, shared
        self.network, space = sized.network, sized.space
        self.parts = nn.ModuleList(
            build_operation(part.workload)
            if isinstance(part, FixedModule)
            else MixedCell(space.cells[part.kind], part, space.operations, partial, shared)
            for part in self.network.parts
        )

    def forward(
        self,
        x: Tensor,
        mixture: Mapping[str, Mixed],
        places: Mapping[int, Mixed] | None = None,
        drop: DropPath | None = None,
    ) -> Tensor:
        """``mixture[kind]`` is what runs in all cells of that kind, except in those parts that ``places`` names."""
        values = {-1: x}
        mixture = {kind: mixed.on(x.device) for kind, mixed in mixture.items()}
        places = {index: mixed.on(x.device) for index, mixed in (places or {}).items()}
        for index, (part, module) in enumerate(zip(self.network.parts, self.parts, strict=True)):
            inputs = [values[source] for source in part.inputs]
            if isinstance(part, FixedModule):
                values[index] = module(*inputs)
            else:
                values[index] = module(places.get(index, mixture[part.kind]), *inputs, drop=drop)
        return values[len(self.parts) - 1]

    @property
    def num_edges(self) -> int:
        """Of all cells."""
        return sum(len(part.cell.edges) for part in self.parts if isinstance(part, MixedCell))

    def compute_with(self, compiled: bool) -> None:
        """Compute cells with the compiled kernels (hwnas.networks.fast.kernels) where possible, or with plain torch."""
        for part in self.parts:
            if isinstance(part, MixedCell):
                part.compiled = compiled

    def run_architecture(self, x: Tensor, architecture: Architecture) -> Tensor:
        """The scores of one architecture with the supernet's weights; only its operations run."""
        return self(x, only(self.sized.space, architecture))

    def child(self, architecture: Architecture) -> ChildNetwork:
        """The child network with this supernet's weights, dead edges left out.

        The child's batch norms have learnt factors, which start at one and zero: the same function. A supernet of
        partial channels has no weights for a child's edges: these start afresh.
        """
        child = ChildNetwork(self.sized, architecture, prune=True)
        chosen = dict(zip(self.sized.space.cells, architecture.cells, strict=True))
        for part, mine, its in zip(self.network.parts, self.parts, child.parts, strict=True):
            if isinstance(part, FixedModule):
                its.load_state_dict(mine.state_dict())
                continue
            assert isinstance(mine, MixedCell)
            assert isinstance(its, ChildCell)
            _copy(mine.preprocess, its.preprocess)
            for e, module in its.edges.items() if self.partial == 1 else ():
                _copy(mine.candidate(int(e), chosen[part.kind][int(e)]), module)
        return child


def only(space: SearchSpace, architecture: Architecture) -> dict[str, Mixed]:
    """The mixture that is one architecture."""
    return {
        kind: Mixed(torch.ones(len(chosen), len(space.operations)), [[space.operations.index(op)] for op in chosen])
        for kind, chosen in zip(space.cells, architecture.cells, strict=True)
    }


def _copy(source: nn.Module, target: nn.Module) -> None:
    """Copy a state; only the learnt factors of batch norms, which a supernet lacks, may be missing."""
    missing, unexpected = target.load_state_dict(source.state_dict(), strict=False)
    norms = {name for name, m in target.named_modules() if isinstance(m, nn.BatchNorm2d)}
    extra = [key for key in missing if key.rpartition(".")[0] not in norms]
    assert not unexpected, unexpected
    assert not extra, extra
