"""One forward pass of a recurrent cell of the supernet: nodes are weighted means of their edges' candidates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hwnas.networks.drop_path import DropPath
from hwnas.networks.mixed_cell import CellEvaluation, Mixed, MixedCell
from hwnas.operations.recurrent import mean_of


class RecurrentEvaluation(CellEvaluation):
    """A node is the sum of its edges' mixtures over the sum of their weights or 1, ``none`` left out of both.

    With one operation an edge this is the mean of the child's edges. Edges that leave a node without inputs are left
    out, as a child leaves them out. The sum of the weights is a constant for gradients: that of a weight is then, as in
    a sum, about the candidate's output, and not 0 on the only edge of a node.
    """

    def __init__(self, cell: MixedCell, mixed: Mixed, inputs: Sequence[Tensor], drop: DropPath | None) -> None:
        super().__init__(cell, mixed, inputs, drop)
        self.empty: set[int] = set()  # nodes without inputs

    def joined(self, outputs: list[Tensor]) -> Tensor:
        return mean_of(outputs)

    def node_sum(self, edges: list[int]) -> Tensor | None:
        """Return the weighted mean over the edges into a node; None if no candidate runs."""
        edges = [e for e in edges if self.cell.cell.edges[e][0] not in self.empty]
        values = [value for e in edges if (value := self.edge(e)) is not None]
        running = [self.mixed.weights[e, self.active[e]].sum() for e in edges if self.active[e]]
        if not running:
            self.empty.add(len(self.nodes))
        if not values:
            return None
        total = values[0]
        for value in values[1:]:
            total = total + value
        return total / torch.stack(running).sum().detach().clamp(min=1) if running else total
