"""The supernet: every candidate on every edge, mixed by the architecture's one-hot (or relaxed) variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.networks.child import ChildCell, ChildNetwork
from hwnas.operations import build_operation
from hwnas.spaces import NONE, Architecture, Cell, CellPlace, FixedPart, Network, SearchSpace, Setting, Workload


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


class MixedCell(nn.Module):
    """One occurrence of a cell in the supernet: node j = sum over edges (i, j) of ``Z[i, j] . O[i, j](x_i)``.

    Candidates' batch norms have no learnt factors (they would undo the mixture's weights). With ``partial`` = k the
    first 1/k of an edge's channels go through the candidates, the others pass by (max-pooled where the edge halves the
    resolution), and the channels are shuffled in k groups (PC-DARTS, Xu et al., ICLR 2020). With ``shared`` a candidate
    applied to a node is one module, and one output, for all edges that leave the node (EnTranNAS).
    """

    def __init__(
        self, cell: Cell, place: CellPlace, operations: tuple[str, ...], partial: int = 1, shared: bool = False
    ) -> None:
        super().__init__()
        self.cell, self.operations, self.partial = cell, operations, partial
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

    def forward(self, mixed: Mixed, *inputs: Tensor, drop: DropPath | None = None) -> Tensor:
        nodes = [prepare(x) for prepare, x in zip(self.preprocess, inputs, strict=True)]
        kept: dict[tuple[int, int], Tensor] = {}
        for node in self.cell.inner_nodes:
            total: Tensor | None = None
            for e in self.cell.edges_into(node):
                value = self._edge(e, nodes[self.cell.edges[e][0]], mixed, kept)
                if value is not None:
                    value = value if mixed.edges is None else mixed.edges[e] * value
                    value = drop(value) if drop else value
                    total = value if total is None else total + value
            nodes.append(self._zeros(inputs[0], self.out_channels) if total is None else total)
        outputs = [nodes[node] for node in self.cell.outputs]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)

    def _edge(self, e: int, x: Tensor, mixed: Mixed, kept: dict[tuple[int, int], Tensor]) -> Tensor | None:
        """The mixture on one edge; None where nothing runs and nothing passes by."""
        active = range(len(self.operations)) if mixed.active is None else mixed.active[e]
        narrow = x[:, : x.shape[1] // self.partial] if self.partial > 1 else x
        total: Tensor | None = None
        for o in active:
            if self.operations[o] != NONE:
                term = mixed.weights[e, o] * self._candidate(e, o, narrow, kept)
                total = term if total is None else total + term
        if mixed.ghosts:
            ghosts = mixed.weights[e, [o for o in range(len(self.operations)) if o not in active]].sum()
            total = ghosts + (self._zeros(x, narrow.shape[1]) if total is None else total)
        if self.partial == 1:
            return total
        rest = x[:, narrow.shape[1] :]
        if rest.shape[2:] != self.out_size:
            rest = nn.functional.max_pool2d(rest, 2, 2, ceil_mode=True)
        mine = self._zeros(x, narrow.shape[1]) if total is None else total
        return shuffled(torch.cat([mine, rest], dim=1), self.partial)

    def _candidate(self, e: int, o: int, x: Tensor, kept: dict[tuple[int, int], Tensor]) -> Tensor:
        slot = self.slots[e]
        if not self.shared:
            return self.candidate(e, self.operations[o])(x)
        if (slot, o) not in kept:
            kept[slot, o] = self.candidate(e, self.operations[o])(x)
        return kept[slot, o]

    def candidate(self, e: int, op: str) -> nn.Module:
        """The module of an operation on an edge."""
        return self.edges[self.slots[e]][op]  # type: ignore[index]

    def _zeros(self, x: Tensor, channels: int) -> Tensor:
        """What a node without inputs holds."""
        return x.new_zeros(x.shape[0], channels, *self.out_size)


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channels [N, C, H, W] dealt out in turn from ``groups`` equal blocks (ShuffleNet, Zhang et al., CVPR 2018)."""
    count, channels, height, width = x.shape
    return x.view(count, groups, channels // groups, height, width).transpose(1, 2).reshape(x.shape)


def require_divisible(network: Network, partial: int) -> None:
    """Raises HwnasError when a supernet with 1/``partial`` of the channels in its mixtures cannot be built."""
    for part in network.parts:
        for candidates in part.candidates if isinstance(part, CellPlace) else ():
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

    What it sees is the ``share`` of a batch of ``images``, by default all of it: the random numbers are the batch's.
    """

    def __init__(
        self, probability: float, generator: torch.Generator, images: int | None = None, share: slice = slice(None)
    ) -> None:
        self.probability, self.generator = probability, generator
        self.images, self.share = images, share

    def __call__(self, x: Tensor) -> Tensor:
        keep = 1 - self.probability
        mask = torch.rand(self.images or x.shape[0], 1, 1, 1, generator=self.generator)[self.share].to(x) < keep
        return x * mask / keep


class Supernet(nn.Module):
    """All architectures of a space at once, at the sizes of ``setting``: images [N, C, H, W] -> scores [N, classes].

    ``partial`` and ``shared`` are those of its cells. Raises HwnasError when ``partial`` does not divide the channels.
    """

    def __init__(self, space: SearchSpace, setting: Setting, partial: int = 1, shared: bool = False) -> None:
        super().__init__()
        self.space, self.setting, self.partial, self.shared = space, setting, partial, shared
        self.network = space.network(setting)
        self.parts = nn.ModuleList(
            build_operation(part.workload)
            if isinstance(part, FixedPart)
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
        for index, (part, module) in enumerate(zip(self.network.parts, self.parts, strict=True)):
            inputs = [values[source] for source in part.inputs]
            if isinstance(part, FixedPart):
                values[index] = module(*inputs)
            else:
                values[index] = module((places or {}).get(index, mixture[part.kind]), *inputs, drop=drop)
        return values[len(self.parts) - 1]

    def run_architecture(self, x: Tensor, architecture: Architecture) -> Tensor:
        """The scores of one architecture with the supernet's weights; only its operations run."""
        return self(x, only(self.space, architecture))

    def child(self, architecture: Architecture) -> ChildNetwork:
        """The child network with this supernet's weights, dead edges left out.

        The child's batch norms have learnt factors, which start at one and zero: the same function. A supernet of
        partial channels has no weights for a child's edges: these start afresh.
        """
        child = ChildNetwork(self.space, architecture, self.setting, prune=True)
        chosen = dict(zip(self.space.cells, architecture.cells, strict=True))
        for part, mine, its in zip(self.network.parts, self.parts, child.parts, strict=True):
            if isinstance(part, FixedPart):
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
