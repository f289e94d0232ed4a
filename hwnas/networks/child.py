"""The child network: one architecture, one operation on each edge."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hwnas.networks.steps import over_words, values_of
from hwnas.operations import build_operation
from hwnas.operations.recurrent import WordEmbedding, blend, mean_of
from hwnas.spaces import HIDDEN, NONE, Architecture, Cell, CellInstance, FixedModule, SizedSpace, Workload

Build = Callable[[Workload | None], nn.Module]
Drop = Callable[[Tensor], Tensor]


class ChildCell(nn.Module):
    """One cell instance with one operation on each edge. Edges that choose ``none`` have no module."""

    def __init__(
        self,
        cell: Cell,
        instance: CellInstance,
        operations: tuple[str, ...],
        prune: bool,
        build: Build = build_operation,
    ) -> None:
        super().__init__()
        built = cell.live_edges(operations) if prune else tuple(op != NONE for op in operations)
        self.cell = cell
        self.preprocess = nn.ModuleList(build(workload) for workload in instance.preprocess)
        self.edges = nn.ModuleDict(
            {str(e): build(instance.workload(cell, e, operations)) for e in range(len(operations)) if built[e]}
        )
        self.out_channels, height, width = instance.node_shape
        self.out_size = () if cell.recurrent else (height, width)

    def forward(self, *inputs: Tensor) -> Tensor:  # no default arguments: torch's exporter would count them as inputs
        return self.output(self.nodes(*inputs))

    def output(self, nodes: list[Tensor]) -> Tensor:
        """Return the cell's output, from the values of its nodes."""
        outputs = [nodes[node] for node in self.cell.outputs]
        if self.cell.recurrent:
            return mean_of(outputs)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)

    def nodes(self, *inputs: Tensor, drop: Drop | None = None) -> list[Tensor]:
        """Return the values of all nodes, inputs first.

        ``drop`` is applied to all edges but identities; in a chain to none, because nothing would pass a dropped layer.
        """
        drop = None if self.cell.is_chain else drop
        nodes = [prepare(x) for prepare, x in zip(self.preprocess, inputs, strict=True)]
        for node in self.cell.inner_nodes:
            edges = [e for e in self.cell.edges_into(node) if str(e) in self.edges]
            terms = [self._edge(self.edges[str(e)], nodes[self.cell.edges[e][0]], drop) for e in edges]
            total = terms[0] if terms else self._zeros(inputs[0])
            for number, term in enumerate(terms[1:], 2):
                total = blend(total, term, number) if self.cell.recurrent else total + term
            nodes.append(total)
        return nodes

    @staticmethod
    def _edge(operation: nn.Module, x: Tensor, drop: Drop | None) -> Tensor:
        value = operation(x)
        return value if drop is None or isinstance(operation, nn.Identity) else drop(value)

    def _zeros(self, x: Tensor) -> Tensor:
        """Return the value of a node without inputs."""
        return x.new_zeros(x.shape[0], self.out_channels, *self.out_size)


class ChildNetwork(nn.Module):
    """The network of one architecture of a sized space: images [N, C, H, W] -> class scores [N, classes].

    A network of words is words [N, T] -> scores [N * T, vocabulary] (hwnas.networks.steps).

    With ``prune`` the edges that lie on no path from an input to an output are left out, as in a deployed network;
    without it they are built, as the papers count them. (The output of an edge that leaves a node without inputs is a
    constant, its batch norm of zeros; pruning drops it.) ``build`` returns the module of a workload.
    """

    def __init__(
        self,
        sized: SizedSpace,
        architecture: Architecture,
        *,
        prune: bool = False,
        build: Build = build_operation,
    ) -> None:
        super().__init__()
        self.sized, self.architecture = sized, architecture
        self.network, space = sized.network, sized.space
        chosen = dict(zip(space.cells, architecture.cells, strict=True))
        self.parts = nn.ModuleList(
            build(part.workload)
            if isinstance(part, FixedModule)
            else ChildCell(space.cells[part.kind], part, chosen[part.kind], prune, build)
            for part in self.network.parts
        )
        tie_words(self.parts)

    @property
    def num_edges(self) -> int:
        """The number of edges with a module, in all cells."""
        return sum(len(part.edges) for part in self.parts if isinstance(part, ChildCell))

    def forward(self, x: Tensor) -> Tensor:
        return self.values(x)[len(self.parts) - 1]

    def values(self, x: Tensor, drop: Drop | None = None) -> dict[int, Tensor]:
        """Return the output of each part by its index, scores last; -1 is the image. ``drop`` applies to edges.

        Of a network of words, x [N, T], these are the scores alone, and ``drop`` applies to embeddings and states.
        """
        if self.network.setting.words:
            scores = over_words(self.network, self.run, x, drop)
            return {len(self.parts) - 1: scores}
        return values_of(self.network, lambda index, *inputs: self.run(index, *inputs, drop=drop), {-1: x})

    def run(self, index: int, *inputs: Tensor, drop: Drop | None = None) -> Tensor:
        """Return the output of one part. ``drop`` applies to the edges of a cell."""
        module = self.parts[index]
        if isinstance(module, ChildCell) and drop:
            return module.output(module.nodes(*inputs, drop=drop))
        output: Tensor = module(*inputs)
        return output


def tie_words(parts: nn.ModuleList) -> None:
    """Let the embedding of a network of words read the weights of its decoder; nothing in a network of images."""
    embedding, decoder = parts[0], parts[len(parts) - 1]
    if isinstance(embedding, WordEmbedding) and isinstance(decoder, nn.Linear):
        embedding.tie(decoder)


class EveryNode(nn.Module):
    """A deployed child network that also returns every node of its cells, so that tracing includes all edges."""

    def __init__(self, child: ChildNetwork) -> None:
        super().__init__()
        self.child = child

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        nodes: list[Tensor] = []

        def run(index: int, *inputs: Tensor) -> Tensor:
            module = self.child.parts[index]
            if not isinstance(module, ChildCell):
                output: Tensor = module(*inputs)
                return output
            inner = module.nodes(*inputs)
            nodes.extend(inner)
            return module.output(inner)

        given = {-1: x} | ({HIDDEN: state[0]} if state else {})
        return values_of(self.child.network, run, given)[len(self.child.parts) - 1], *nodes
