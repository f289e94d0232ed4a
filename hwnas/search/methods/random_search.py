"""Random search with a supernet (Li & Talwalkar, UAI 2019), the baseline for every other method.

The supernet's weights learn with an architecture drawn uniformly for every batch; there are no logits. The final
architecture is the one of ``samples`` draws within the budget with which the supernet is most accurate on validation
images (``selection: best_of``).
"""

from __future__ import annotations

from math import comb

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from hwnas.recipe import Recipe
from hwnas.search.axes import BatchResult, LearningStep
from hwnas.search.choices import register
from hwnas.search.distribution import Distribution, Draw, DrawContext, one_hot, uniform_choice
from hwnas.search.target import TargetState
from hwnas.spaces import NONE, Cell, SearchSpace


@register("distribution", "uniform")
class Uniform(Distribution):
    """Every architecture with the same probability; no parameters."""

    pathwise = False

    def __init__(self, space: SearchSpace, recipe: Recipe, generator: torch.Generator) -> None:
        super().__init__(space, recipe, generator)
        self.inputs_per_node, self.without = recipe.inputs_per_node, recipe.without

    def draw(self, context: DrawContext) -> Draw:
        chosen = uniform_choice(self.space, self.inputs_per_node, context.generator, self.without)
        like = torch.zeros(len(self.space.operations))
        return Draw({kind: one_hot(c, like) for kind, c in chosen.items()}, chosen)

    def probabilities(self) -> dict[str, Tensor]:
        result, none = {}, self.space.operations.index(NONE)
        for kind, cell in self.space.cells.items():
            p = self.allowed(kind).float()
            if self.inputs_per_node is None:
                result[kind] = p / p.sum(dim=-1, keepdim=True)
                if cell.least_inputs:
                    result[kind] = _with_inputs(result[kind], cell, none)
                continue
            p[:, none] = 0
            into = torch.tensor([len(cell.edges_into(target)) for _, target in cell.edges])
            used = (self.inputs_per_node / into).clamp(max=1)[:, None]
            result[kind] = used * p / p.sum(dim=-1, keepdim=True)
            result[kind][:, none] = 1 - used[:, 0]
        return result


def _with_inputs(p: Tensor, cell: Cell, none: int) -> Tensor:
    """Return p [E, K], the same on all edges, given that every node has the inputs that its cell asks for."""
    left_out, least, result = float(p[0, none]), cell.least_inputs, p.clone()
    for node in cell.inner_nodes:
        into = cell.edges_into(node)
        enough = _at_least(least, len(into), left_out)
        result[into] *= _at_least(least - 1, len(into) - 1, left_out) / enough
        result[into, none] = left_out * _at_least(least, len(into) - 1, left_out) / enough
    return result


def _at_least(number: int, edges: int, left_out: float) -> float:
    """Return the probability that ``number`` or more of ``edges`` are used, each left out with ``left_out``."""
    return sum(comb(edges, n) * (1 - left_out) ** n * left_out ** (edges - n) for n in range(number, edges + 1))


@register("learning", "weights_only")
@dataclass(frozen=True)
class WeightsOnly:
    """Train only the supernet's weights."""

    def learn(self, step: LearningStep, target: TargetState) -> BatchResult:
        return step.weights_step(target)
