"""EnTranNAS: discretisation-aware search by engine and transit cells (Yang et al., CVPR 2021), and EnTranNAS-DST.

Engine cells hold the whole mixture and teach the logits; transit cells, all others, run the cell that would be derived
now, unweighted, so that what follows sees the network that is searched for:

    engine     x_j = sum over i, k of p[ij, k] o[i, k](x_i),   p = softmax(alpha / temperature)
    transit    x_j = sum over (i, k) in S_j of o[i, k](x_i)

S is derived at every step: of every edge its likeliest operation, and where the recipe says ``inputs_per_node`` the so
many strongest edges into a node. With ``shared_features`` an operation applied to a node is one module for all edges
that leave it. Logits learn first order from images of their own, as in DARTS.

DST learns the topology, too, by a threshold t_j = sigmoid(beta_j) a node:

    q[ij, k] = relu(p[ij, k] / max over i, k of p[ij, k] - t_j),   the engine's weights: q / (sum over k of q)

An edge all of whose q are 0 is gone, and an entry that is cut gets no gradient of the task. At least one connection a
node stays, since the largest ratio is 1. S is the support of q: what the engine cell runs and what is derived are one.

In NAS-Bench-201 the recipes leave ``none`` out: transit cells derived with it can lose every path, and then nothing
learns any more.

No code was published. What the survey that gives these equations leaves open is decided thus: one engine cell of each
kind, the middle one (``engines``), and no regulariser on beta. An architecture here has one operation an edge, so with
DST an operation must also be within a factor of its edge's likeliest one, which closes to 1 linearly over the epochs:
in the last the support is one operation an edge. E[C] and derivation take, of u = p / max p for operations and u = t_j
for an edge's being gone, the shares u^10 / sum u^10 (SHARPNESS), whose likeliest entry is the support's and which tell
a cut edge what it would cost. DST knows no temperature. Transit cells do not know the budget; what is derived keeps it.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hwnas.networks.mixed_cell import Mixed
from hwnas.networks.supernet import Supernet
from hwnas.recipe import Recipe
from hwnas.search.axes import Running
from hwnas.search.choices import register
from hwnas.search.distribution import Distribution, Draw, DrawContext, EdgeLogits
from hwnas.search.execution import mixed_of
from hwnas.spaces import NONE, CellInstance, SearchSpace

SHARPNESS = 10.0


@register("runs", "engine_transit")
@dataclass(frozen=True)
class EngineTransit:
    """``engines`` cells of each kind, evenly spread, run the mixture; the others what would be derived now."""

    engines: int = Field(default=1, ge=1)
    inputs_per_node: int | None = Field(default=None, ge=1)
    on_host: ClassVar[bool] = True

    def __call__(self, supernet: Supernet, distribution: Distribution, draw: Draw) -> Running:
        transit, places = {}, {}
        log_probability = distribution.log_probability()
        for kind, weights in draw.mixture.items():
            active = draw.support[kind] if draw.support else self._strongest(distribution, kind, log_probability[kind])
            transit[kind] = Mixed(torch.ones_like(weights), active)
            parts = [i for i, p in enumerate(supernet.network.parts) if isinstance(p, CellInstance) and p.kind == kind]
            number = min(self.engines, len(parts))
            for n in range(number):
                places[parts[(2 * n + 1) * len(parts) // (2 * number)]] = mixed_of(distribution, draw, kind)
        return transit, places

    def _strongest(self, distribution: Distribution, kind: str, logs: NDArray[np.float64]) -> list[list[int]]:
        """The derived operation of every edge, as DARTS takes it."""
        space, none = distribution.space, distribution.space.operations.index(NONE)
        if self.inputs_per_node is None:
            return [[int(o)] for o in logs.argmax(axis=1)]
        real = np.where(np.arange(len(space.operations)) == none, -np.inf, logs)
        active = [[none] for _ in logs]
        for node in space.cells[kind].inner_nodes:
            into = sorted(space.cells[kind].edges_into(node), key=lambda e: -real[e].max())
            for e in into[: self.inputs_per_node]:
                active[e] = [int(real[e].argmax())]
        return active


@register("distribution", "thresholded")
class Thresholded(EdgeLogits):
    """DST: the mixture of what is above its node's learnt threshold."""

    def __init__(self, space: SearchSpace, recipe: Recipe, generator: torch.Generator) -> None:
        super().__init__(space, recipe, generator)
        for kind in space.cells:
            self.allowed(kind)[:, space.operations.index(NONE)] = False  # an edge that is cut is ``none``
        self.thresholds = nn.ParameterDict(
            {kind: nn.Parameter(torch.zeros(cell.num_nodes)) for kind, cell in space.cells.items()}
        )

    def ratios(self, kind: str) -> Tensor:
        """p / max p over the operations of all edges into the same node, [E, K]."""
        p = torch.softmax(self.scores()[kind], dim=-1)
        cell = self.space.cells[kind]
        largest = {node: p[cell.edges_into(node)].max() for node in cell.inner_nodes}
        return p / torch.stack([largest[target] for _, target in cell.edges])[:, None]

    def threshold(self, kind: str) -> Tensor:
        """t of the node that an edge enters, [E]."""
        cell = self.space.cells[kind]
        nodes = torch.tensor([target - cell.num_inputs for _, target in cell.edges])
        return torch.sigmoid(self.thresholds[kind])[nodes]

    def draw(self, context: DrawContext) -> Draw:
        mixture, support = {}, {}
        for kind in self.logits:
            ratios = self.ratios(kind)
            near = ratios.detach() >= context.progress * ratios.detach().max(dim=-1, keepdim=True).values
            q = torch.relu(ratios - self.threshold(kind)[:, None]) * near
            mixture[kind] = q / q.sum(dim=-1, keepdim=True).clamp_min(1e-12)
            support[kind] = [row.nonzero().flatten().tolist() for row in q.detach()]
        return Draw(mixture, support=support)

    def probabilities(self) -> dict[str, Tensor]:
        none, result = self.space.operations.index(NONE), {}
        for kind in self.logits:
            logs = self.ratios(kind).clamp_min(1e-30).log()
            gone = torch.nn.functional.one_hot(torch.tensor(none), logs.shape[1]).bool()
            logs = torch.where(gone, self.threshold(kind).log()[:, None], logs)
            logs = torch.where(self.allowed(kind) | gone, logs, -torch.inf)
            result[kind] = torch.softmax(SHARPNESS * logs, dim=-1)
        return result
