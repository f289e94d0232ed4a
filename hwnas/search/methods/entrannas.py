"""EnTranNAS: discretisation-aware search by engine and transit cells (Yang et al., CVPR 2021), and EnTranNAS-DST.

Engine cells compute the whole mixture, from which the logits learn. All other cells, the transit cells, run the cell
that would be derived now, unweighted, so that later cells get the inputs of the network that is searched for:

    engine     x_j = sum over i, k of p[ij, k] o[i, k](x_i),   p = softmax(alpha / temperature)
    transit    x_j = sum over (i, k) in S_j of o[i, k](x_i)

S is derived at every step: the likeliest operation of every edge and, with ``inputs_per_node`` in the recipe, this
number of strongest edges into a node; in a space that asks for inputs, at least so many. With ``shared_features`` an
operation applied to a node is one module for all edges that leave it. Logits learn first order from separate images, as
in DARTS.

DST also learns the topology, by a threshold t_j = sigmoid(beta_j) for every node:

    q[ij, k] = relu(p[ij, k] / max over i, k of p[ij, k] - t_j),   the engine's weights: q / (sum over k of q)

An edge all of whose q are 0 is removed, and an entry that is cut gets no gradient of the task. At least one connection
into every node remains, because the largest ratio is 1. S is the support of q, so the engine cell runs exactly the
derived operations.

In NAS-Bench-201 the recipes leave ``none`` out: transit cells derived with it can lose every path, and then nothing
learns.

The space ``darts-extended`` (hwnas.spaces.darts_extended) is the DARTS space with more operations and any number of
inputs a node, but at least one. ``--recipe short/entrannas-dst`` runs there, too.

No code was published, and the equations are those of a survey. Where it leaves something open, this is decided: one
engine cell of each kind, the middle one (``engines``), and no regulariser on beta. An architecture has one operation an
edge, so with DST an operation must also be within a factor of its edge's likeliest one; the factor rises linearly to 1
over the epochs, so that the final support is one operation an edge. E[C] and derivation use the shares u^10 / sum u^10
(SHARPNESS), with u = p / max p for operations and u = t_j for the removal of an edge: their likeliest entry is the
support's, and a cut edge still gets the gradient of its cost. DST uses no temperature. Transit cells ignore the budget;
the derived architecture meets it.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hwnas.errors import HwnasError
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
    """Run the mixture in ``engines`` cells of each kind, evenly spread, and the derived cell in all others."""

    engines: int = Field(default=1, ge=1)
    inputs_per_node: int | None = Field(default=None, ge=1)
    on_host: ClassVar[bool] = True

    def __call__(self, supernet: Supernet, distribution: Distribution, draw: Draw) -> Running:
        transit, engines = {}, {}
        log_probability = distribution.log_probability()
        for kind, weights in draw.mixture.items():
            active = draw.support[kind] if draw.support else self._strongest(distribution, kind, log_probability[kind])
            transit[kind] = Mixed(torch.ones_like(weights), active)
            parts = [i for i, p in enumerate(supernet.network.parts) if isinstance(p, CellInstance) and p.kind == kind]
            number = min(self.engines, len(parts))
            for n in range(number):
                engines[parts[(2 * n + 1) * len(parts) // (2 * number)]] = mixed_of(distribution, draw, kind)
        return transit, engines

    def _strongest(self, distribution: Distribution, kind: str, logs: NDArray[np.float64]) -> list[list[int]]:
        """Return the derived operation of every edge, as in DARTS."""
        cell, none = distribution.space.cells[kind], distribution.space.operations.index(NONE)
        number, fixed = self.inputs_per_node or cell.least_inputs, self.inputs_per_node is not None
        real = np.where(np.arange(logs.shape[1]) == none, -np.inf, logs)
        gain = real.max(axis=1) - (0.0 if fixed else logs[:, none])  # of an input over ``none``
        active = [[none] for _ in logs]
        for node in cell.inner_nodes:
            into = sorted(cell.edges_into(node), key=lambda e: -gain[e])
            for e in (e for rank, e in enumerate(into) if rank < number or (not fixed and gain[e] > 0)):
                active[e] = [int(real[e].argmax())]
        return active


@register("distribution", "thresholded")
class Thresholded(EdgeLogits):
    """DST: the mixture of the operations above their node's learned threshold."""

    def __init__(self, space: SearchSpace, recipe: Recipe, generator: torch.Generator) -> None:
        super().__init__(space, recipe, generator)
        if any(cell.offers for cell in space.cells.values()):
            raise HwnasError(
                f"distribution thresholded cuts edges, but every layer of space {space.name} has an operation",
                "use another method, such as --method snas",
            )
        for kind in space.cells:
            self.allowed(kind)[:, space.operations.index(NONE)] = False  # an edge that is cut is ``none``
        self.thresholds = nn.ParameterDict(
            {kind: nn.Parameter(torch.zeros(cell.num_nodes)) for kind, cell in space.cells.items()}
        )

    def ratios(self, kind: str) -> Tensor:
        """Return p / max p [E, K], the maximum taken over the operations of all edges into the same node."""
        p = torch.softmax(self.scores()[kind], dim=-1)
        cell = self.space.cells[kind]
        largest = {node: p[cell.edges_into(node)].max() for node in cell.inner_nodes}
        return p / torch.stack([largest[target] for _, target in cell.edges])[:, None]

    def threshold(self, kind: str) -> Tensor:
        """Return t [E] of the node that each edge enters."""
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
