"""The supernet: every candidate on every edge, mixed by the architecture's one-hot (or relaxed) variables."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hwnas.networks.child import ChildCell, ChildNetwork
from hwnas.operations import build_operation
from hwnas.spaces import NONE, Architecture, Cell, CellPlace, FixedPart, SearchSpace, Setting


class MixedCell(nn.Module):
    """One occurrence of a cell in the supernet: node j = sum over edges (i, j) of Z[i, j] . O[i, j](x_i).

    Candidates' batch norms have no learnt factors (they would undo the mixture's weights).
    """

    def __init__(self, cell: Cell, place: CellPlace, operations: tuple[str, ...]) -> None:
        super().__init__()
        self.cell = cell
        self.operations = operations
        self.preprocess = nn.ModuleList(build_operation(workload, affine=False) for workload in place.preprocess)
        self.edges = nn.ModuleList(
            nn.ModuleDict(
                {op: build_operation(workload, affine=False) for op, workload in candidates.items() if op != NONE}
            )
            for candidates in place.candidates
        )

    def forward(
        self, mixture: Tensor, active: list[list[int]], *inputs: Tensor, drop: DropPath | None = None
    ) -> Tensor:
        """``mixture`` [E, K] weighs the candidates; only those in ``active[e]`` are run."""
        nodes = [prepare(x) for prepare, x in zip(self.preprocess, inputs, strict=True)]
        for node in self.cell.inner_nodes:
            total: Tensor | None = None
            for e in self.cell.edges_into(node):
                x = nodes[self.cell.edges[e][0]]
                mixed: Tensor | None = None
                for o in active[e]:
                    op = self.operations[o]
                    if op == NONE:
                        continue
                    term = mixture[e, o] * self.edges[e][op](x)  # type: ignore[index]
                    mixed = term if mixed is None else mixed + term
                if mixed is not None:
                    mixed = drop(mixed) if drop else mixed
                    total = mixed if total is None else total + mixed
            nodes.append(self._zeros(nodes, node) if total is None else total)
        outputs = [nodes[node] for node in self.cell.outputs]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)

    def _zeros(self, nodes: list[Tensor], node: int) -> Tensor:
        """A node all of whose edges are ``none``: zeros of the shape that a pooling edge would give."""
        edge = self.cell.edges_into(node)[0]
        candidates = self.edges[edge]
        assert isinstance(candidates, nn.ModuleDict)
        probe = next(iter(candidates.values()))
        with torch.no_grad():
            return torch.zeros_like(probe(nodes[self.cell.edges[edge][0]]))


class DropPath:
    """Drops a whole edge for some images of a batch and scales the others up (Larsson et al., FractalNet, 2017)."""

    def __init__(self, probability: float, generator: torch.Generator) -> None:
        self.probability = probability
        self.generator = generator

    def __call__(self, x: Tensor) -> Tensor:
        keep = 1 - self.probability
        mask = torch.rand(x.shape[0], 1, 1, 1, generator=self.generator).to(x) < keep
        return x * mask / keep


class Supernet(nn.Module):
    """All architectures of a space at once, at the sizes of ``setting``: images [N, C, H, W] -> scores [N, classes]."""

    def __init__(self, space: SearchSpace, setting: Setting) -> None:
        super().__init__()
        self.space = space
        self.setting = setting
        self.network = space.network(setting)
        self.parts = nn.ModuleList(
            build_operation(part.workload)
            if isinstance(part, FixedPart)
            else MixedCell(space.cells[part.kind], part, space.operations)
            for part in self.network.parts
        )

    def forward(
        self,
        x: Tensor,
        mixture: Mapping[str, Tensor],
        active: Mapping[str, list[list[int]]] | None = None,
        drop: DropPath | None = None,
    ) -> Tensor:
        """``mixture[kind]`` [E, K] weighs the candidates in all cells of that kind; without ``active`` all run."""
        if active is None:
            everything = list(range(len(self.space.operations)))
            active = {kind: [everything] * len(cell.edges) for kind, cell in self.space.cells.items()}
        values = {-1: x}
        for index, (part, module) in enumerate(zip(self.network.parts, self.parts, strict=True)):
            inputs = [values[source] for source in part.inputs]
            if isinstance(part, FixedPart):
                values[index] = module(*inputs)
            else:
                values[index] = module(mixture[part.kind], active[part.kind], *inputs, drop=drop)
        return values[len(self.parts) - 1]

    def run_architecture(self, x: Tensor, architecture: Architecture) -> Tensor:
        """The scores of one architecture with the supernet's weights; only its operations run."""
        active, mixture = {}, {}
        for (kind, cell), chosen in zip(self.space.cells.items(), architecture.cells, strict=True):
            active[kind] = [[self.space.operations.index(op)] for op in chosen]
            mixture[kind] = torch.ones(len(cell.edges), len(self.space.operations), dtype=x.dtype)
        return self(x, mixture, active)

    def child(self, architecture: Architecture) -> ChildNetwork:
        """The child network with this supernet's weights, dead edges left out.

        The child's batch norms have learnt factors, which start at one and zero: the same function.
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
            for e, module in its.edges.items():
                _copy(mine.edges[int(e)][chosen[part.kind][int(e)]], module)  # type: ignore[index]
        return child


def _copy(source: nn.Module, target: nn.Module) -> None:
    """Copy a state; only the learnt factors of batch norms, which a supernet lacks, may be missing."""
    missing, unexpected = target.load_state_dict(source.state_dict(), strict=False)
    norms = {name for name, m in target.named_modules() if isinstance(m, nn.BatchNorm2d)}
    extra = [key for key in missing if key.rpartition(".")[0] not in norms]
    assert not unexpected, unexpected
    assert not extra, extra
