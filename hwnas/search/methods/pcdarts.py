"""PC-DARTS: partial channel connections (Xu et al., ICLR 2020).

First-order DARTS in which the first 1/k of an edge's channels go through the mixture, the others bypass it, and the
channels are shuffled (``partial_channels``, hwnas.networks.mixed_cell). The importance of edges is learned separately:
an edge into node j is weighed by gamma[e] = softmax of beta over the edges into j. In the DARTS space the derived cell
keeps the two edges into every node whose gamma * (likeliest operation other than ``none``) is largest.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwnas.recipe import Recipe
from hwnas.search.choices import register
from hwnas.search.distribution import Draw, DrawContext, EdgeLogits
from hwnas.spaces import SearchSpace


@register("distribution", "softmax_edges")
class SoftmaxEdges(EdgeLogits):
    """Probabilities p over every edge's operations, and gamma over the edges into every node."""

    def __init__(self, space: SearchSpace, recipe: Recipe, generator: torch.Generator) -> None:
        super().__init__(space, recipe, generator)
        start = {kind: 1e-3 * torch.randn(len(cell.edges), generator=generator) for kind, cell in space.cells.items()}
        self.edge_logits = nn.ParameterDict({kind: nn.Parameter(values) for kind, values in start.items()})
        for kind, cell in space.cells.items():
            targets = torch.tensor([target for _, target in cell.edges])
            self.register_buffer(f"same_target_{kind}", targets[:, None] == targets[None, :], persistent=False)

    def gamma(self) -> dict[str, Tensor]:
        """Return gamma [E] of every cell kind; it sums to 1 over the edges into a node."""
        result = {}
        for kind, beta in self.edge_logits.items():
            same = self.get_buffer(f"same_target_{kind}")
            others = beta.expand(len(beta), -1).masked_fill(~same, -torch.inf)
            result[kind] = torch.exp(beta - torch.logsumexp(others, dim=-1))
        return result

    def draw(self, context: DrawContext) -> Draw:
        return Draw(self.probabilities(), edges=self.gamma())

    def log_probability(self) -> dict[str, NDArray[np.float64]]:
        with torch.no_grad():
            gamma = {kind: values.double().log().cpu().numpy() for kind, values in self.gamma().items()}
        return {kind: values + gamma[kind][:, None] for kind, values in super().log_probability().items()}
