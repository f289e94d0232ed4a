"""One cell of the supernet: all candidates of every edge, mixed by weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor, nn

from hwnas.compute.device import CPU, to_device
from hwnas.errors import HwnasError
from hwnas.networks.drop_path import DropPath
from hwnas.networks.shared_blocks import Key, Sharing, shared_blocks
from hwnas.operations import build_operation
from hwnas.spaces import NONE, Cell, CellInstance, Workload


@dataclass(frozen=True)
class Mixed:
    """The mixture of a cell: on edge e the candidates ``active[e]`` (None: all), weighted by ``weights[e]``.

    ``weights`` is [E, K]. ``edges`` [E] weights whole edges, bypassed channels included (PC-DARTS). With ``ghosts``
    every candidate that does not run adds its weight, as if its output were ones: where weights are one-hot samples
    this changes gradients and no value (GDAS).
    """

    weights: Tensor
    active: list[list[int]] | None = None
    edges: Tensor | None = None
    ghosts: bool = False

    def on(self, device: torch.device) -> Mixed:
        """Return the mixture with its tensors on ``device``."""
        edges = None if self.edges is None else to_device(self.edges, device)
        return replace(self, weights=to_device(self.weights, device), edges=edges)

    def detached(self) -> Mixed:
        """Return the mixture with tensors that carry no gradient."""
        return replace(self, weights=self.weights.detach(), edges=None if self.edges is None else self.edges.detach())


class MixedCell(nn.Module):
    """One cell instance in the supernet: node j = sum over edges (i, j) of ``Z[i, j] . O[i, j](x_i)``.

    Batch norms of candidates have no learnable scale and shift, which would undo the mixture's weights, unless they are
    ``affine``, as those of a pretrained network are. With
    ``partial`` = k the first 1/k of an edge's channels go through the candidates, the others bypass them (max-pooled
    where the edge halves the resolution), and the channels are shuffled in k groups (PC-DARTS, Xu et al., ICLR 2020).
    With ``shared`` the edges that leave a node share one module, and one output, per candidate (EnTranNAS). With
    ``sharing`` the kernels and expansions of a layer share one block (hwnas.networks.shared_blocks).

    An edge that reads others has variants of its candidates (CandidateVariants). The edges that it reads, which choose
    a width, compute nothing; the weight of a chosen width goes to the output of the first layer of that width.

    ``evaluation`` makes the object that computes one forward pass; ``hwnas.networks.fast`` sets a faster one.
    """

    def __init__(
        self,
        cell: Cell,
        instance: CellInstance,
        operations: tuple[str, ...],
        partial: int = 1,
        shared: bool = False,
        sharing: Sharing | None = None,
        affine: bool = False,
    ) -> None:
        super().__init__()
        self.cell, self.operations, self.partial, self.shared = cell, operations, partial, shared
        sources = [source for source, _ in cell.edges]
        first_edges = {source: sources.index(source) for source in sources}
        self.slots = [list(first_edges).index(source) for source in sources] if shared else list(range(len(sources)))
        self.preprocess = nn.ModuleList(build_operation(workload, affine) for workload in instance.preprocess)
        built = first_edges.values() if shared else range(len(sources))
        offered = [cell.offered(e, operations) for e in built]
        workloads = [
            {
                (op, read): narrow(w, partial)
                for read, candidates in instance.variants_of(e).items()
                for op, w in candidates.items()
                if op in ops and op != NONE
            }
            for e, ops in zip(built, offered, strict=True)
        ]
        self.shared_blocks = nn.ModuleList()
        sliced = [self._share(candidates, sharing, affine) for candidates in workloads]
        self.edges = nn.ModuleList(
            _modules(candidates, views, affine) for candidates, views in zip(workloads, sliced, strict=True)
        )
        self.carries = {read[-2]: e for e, read in reversed(cell.coupled.items())}
        self.out_channels, height, width = instance.node_shape
        self.out_size = () if cell.recurrent else (height, width)
        # Depthwise convolutions in bfloat16 are slow on a CPU, and their gradients wrong in torch 2.13.
        self.has_depthwise = any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in self.modules())
        self.evaluation: Callable[[MixedCell, Mixed, Sequence[Tensor], DropPath | None], CellEvaluation] = (
            CellEvaluation
        )

    def forward(self, mixed: Mixed, *inputs: Tensor, drop: DropPath | None = None) -> Tensor:
        if self.has_depthwise and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self(mixed, *(x.float() for x in inputs), drop=drop)
        return self.evaluation(self, mixed, inputs, drop).output()

    def _share(
        self, candidates: Mapping[Key, Workload | None], sharing: Sharing | None, affine: bool
    ) -> dict[Key, nn.Module]:
        """Return the candidates of an edge that share a block, and keep the blocks."""
        views: dict[Key, nn.Module] = {}
        for block, members in shared_blocks({key: w for key, w in candidates.items() if w}, sharing, affine):
            self.shared_blocks.append(block)
            views |= members
        return views

    def offers(self, e: int, o: int) -> bool:
        """Return whether an edge can have the operation of this index."""
        return self.operations[o] in self.cell.offered(e, self.operations)

    def candidate(self, e: int, op: str, read: tuple[str, ...] = ()) -> nn.Module:
        """Return the module of an operation on an edge; ``read`` are the operations of the edges that it reads."""
        module: nn.Module = self.edges[self.slots[e]][op]  # type: ignore[index]
        return module.of(read) if isinstance(module, CandidateVariants) else module

    def zeros(self, x: Tensor, channels: int) -> Tensor:
        """Return a node's value without inputs, for the batch of ``x``."""
        return x.new_zeros(x.shape[0], channels, *self.out_size)


class CandidateVariants(nn.ModuleDict):
    """The modules of an operation on an edge, one for each combination of operations on the edges that it reads."""

    def of(self, read: tuple[str, ...]) -> nn.Module:
        """Return the module for the operations ``read``."""
        return self["-".join(read)]


def _modules(workloads: Mapping[Key, Workload | None], views: Mapping[Key, nn.Module], affine: bool) -> nn.ModuleDict:
    """Return the modules of an edge's candidates by operation; ``views`` are those that exist."""
    modules = {key: views[key] if key in views else build_operation(w, affine) for key, w in workloads.items()}
    if all((op, ()) in modules for op, _ in modules):
        return nn.ModuleDict({op: module for (op, _), module in modules.items()})
    variants: dict[str, dict[str, nn.Module]] = {}
    for (op, read), module in modules.items():
        variants.setdefault(op, {})["-".join(read)] = module
    return nn.ModuleDict({op: CandidateVariants(found) for op, found in variants.items()})


class CellEvaluation:
    """One forward pass of a cell, one candidate after the other: the reference that faster evaluations must match.

    ``nodes`` holds the values of the nodes so far, ``active[e]`` the candidates that run on edge e.
    """

    def __init__(self, cell: MixedCell, mixed: Mixed, inputs: Sequence[Tensor], drop: DropPath | None) -> None:
        self.cell, self.mixed, self.inputs = cell, mixed, inputs
        self.drop = None if cell.cell.is_chain else drop  # nothing would pass a dropped layer
        self.nodes: list[Tensor] = []
        self.shared_outputs: dict[tuple[int, int], Tensor] = {}  # by slot and operation
        every = list(range(len(cell.operations)))
        listed = mixed.active or [[o for o in every if cell.offers(e, o)] for e in range(len(mixed.weights))]
        self.inactive = [[o for o in every if o not in row] for row in listed]
        self.active = [[o for o in row if cell.operations[o] != NONE] for row in listed]
        if not mixed.weights.requires_grad and mixed.weights.device == CPU:
            # A weight that is exactly 0 and gets no gradient needs no output. (Reading a GPU's weights would wait.)
            pairs = zip(self.active, mixed.weights.tolist(), strict=True)
            self.active = [[o for o in row if weight[o] != 0] for row, weight in pairs]

    def output(self) -> Tensor:
        """Return the cell's output [N, C, H, W]."""
        self.nodes = self.preprocessed()
        for node in self.cell.cell.inner_nodes:
            total = self.node_sum(self.cell.cell.edges_into(node))
            self.nodes.append(self.cell.zeros(self.inputs[0], self.cell.out_channels) if total is None else total)
        return self.joined([self.nodes[node] for node in self.cell.cell.outputs])

    def joined(self, outputs: list[Tensor]) -> Tensor:
        """Return the cell's output from its output nodes."""
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)

    def preprocessed(self) -> list[Tensor]:
        return [prepare(x) for prepare, x in zip(self.cell.preprocess, self.inputs, strict=True)]

    def node_sum(self, edges: list[int]) -> Tensor | None:
        """Return the sum over the edges into a node; None if no candidate runs and no channel is bypassed."""
        total: Tensor | None = None
        for e in edges:
            value = self.edge(e)
            if value is not None:
                value = value if self.mixed.edges is None else self.mixed.edges[e] * value
                value = self.drop(value) if self.drop else value
                total = value if total is None else total + value
        return total

    def edge(self, e: int) -> Tensor | None:
        """Return the mixture on one edge, bypassed channels included; None if there is nothing."""
        x, partial = self.source(e), self.cell.partial
        channels = x.shape[1] // partial
        if e in self.cell.cell.width_edges:
            total: Tensor | None = x
        else:
            total = self.weighted_candidates(e) if self.active[e] else None
        if total is not None and self.mixed.weights.requires_grad:
            for width_edge in (w for w, first in self.cell.carries.items() if first == e):
                total = self.mixed.weights[width_edge, self.active[width_edge][0]] * total
        if self.mixed.ghosts:
            ghosts = torch.stack([self.mixed.weights[e, o] for o in self.inactive[e]])
            total = ghosts.sum() + (self.cell.zeros(x, channels) if total is None else total)
        if partial == 1:
            return total
        bypassed = x[:, channels:]
        if bypassed.shape[2:] != self.cell.out_size:
            bypassed = nn.functional.max_pool2d(bypassed, 2, 2, ceil_mode=True)
        mixed = self.cell.zeros(x, channels) if total is None else self.separate(total)
        return shuffled(torch.cat([mixed, bypassed], dim=1), partial)

    def weighted_candidates(self, e: int) -> Tensor:
        """Return the weighted sum over the active candidates of an edge, of which there is at least one."""
        return reduce(torch.add, [self.mixed.weights[e, o] * self.candidate(e, o) for o in self.active[e]])

    def candidate(self, e: int, o: int) -> Tensor:
        """Return a candidate's output; one that edges share is computed once."""
        if not self.cell.shared:
            return self.run(e, o)
        key = self.cell.slots[e], o
        if key not in self.shared_outputs:
            self.shared_outputs[key] = self.run(e, o)
        return self.shared_outputs[key]

    def run(self, e: int, o: int) -> Tensor:
        """Compute a candidate on its edge's channels."""
        x = self.source(e)
        return self.module(e, o)(x[:, : x.shape[1] // self.cell.partial])

    def module(self, e: int, o: int) -> nn.Module:
        """Return the module of a candidate."""
        return self.cell.candidate(e, self.cell.operations[o], self.read(e))

    def read(self, e: int) -> tuple[str, ...]:
        """Return the operations of the edges that an edge reads. Raises HwnasError where one of them mixes several."""
        found = [self.active[other] for other in self.cell.cell.coupled.get(e, ())[:-1]]
        if any(len(active) != 1 for active in found):
            raise one_width_needed()
        return tuple(self.cell.operations[active[0]] for active in found)

    def source(self, e: int) -> Tensor:
        """Return the value of the node that an edge leaves."""
        return self.nodes[self.cell.cell.edges[e][0]]

    def separate(self, x: Tensor) -> Tensor:
        """Return ``x``; an evaluation whose sums are slices of larger tensors copies it."""
        return x


def one_width_needed() -> HwnasError:
    """Return the error for a search that would mix the widths of a stage."""
    return HwnasError(
        "the widths of a stage cannot be mixed: tensors of different numbers of channels have no weighted sum",
        "use a method that draws one operation a layer, such as --method snas, or one number of channels a stage",
    )


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Deal the channels [N, C, H, W] out in turn from ``groups`` equal blocks (ShuffleNet, Zhang et al., CVPR 2018)."""
    count, channels, height, width = x.shape
    return x.view(count, groups, channels // groups, height, width).transpose(1, 2).reshape(x.shape)


def narrow(workload: Workload | None, partial: int) -> Workload | None:
    """Return ``workload`` with 1/``partial`` of its channels.

    Raises HwnasError when ``partial`` does not divide them.
    """
    if workload is None or partial == 1:
        return workload
    if workload.in_channels % partial or workload.out_channels % partial:
        raise HwnasError(
            f"{workload.in_channels} channels cannot be divided into {partial} parts",
            f"choose a number of channels that {partial} divides, or another recipe",
        )
    return replace(workload, in_channels=workload.in_channels // partial, out_channels=workload.out_channels // partial)
