"""BigNAS: one supernet of shared blocks, the sandwich rule and in-place distillation (Yu et al., ECCV 2020).

For chains of layers. Every step trains four members of the space on one batch and adds their gradients: the largest,
the smallest and two random ones. The largest learns the classes. The others learn its scores alone, taken from the
same step (in-place distillation):

    L = CE(largest(x), y) + sum over the other members m of KL(softmax(largest(x)) || softmax(m(x)))

where no gradient reaches the largest through its scores. The largest member has the layer with the most MACs
everywhere, the smallest the one with the fewest, which leaves out all layers that can be left out. With weights that
members share (``shared_blocks``, hwnas.networks.shared_blocks) what the largest learns helps all of them. Then
evolution selects the architecture within the budget (hwnas.search.methods.evolution).

Differences from the paper: the supernet has no regularisation for the largest member alone, no learnable factors of
batch norms, which its initialisation is about, and one resolution. The paper ships the selected member as it is, its
batch norms recalibrated; here ``child`` trains it for some epochs from these weights, unless the recipe says 0. The
paper selects by a grid of sizes, then by mutations.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from hwnas.compute.seeds import Purpose
from hwnas.cost.metric import MACS
from hwnas.cost.model import CostModel
from hwnas.errors import HwnasError
from hwnas.search.axes import BatchResult, LearningStep
from hwnas.search.choices import register
from hwnas.search.distribution import Distribution, Draw, one_hot
from hwnas.search.target import TargetState
from hwnas.spaces.builtin_operations import SKIP


@register("learning", "sandwich")
@dataclass(frozen=True)
class Sandwich:
    """Train the weights with the largest, the smallest and ``random`` drawn members of a chain at every step; all but
    the largest learn its scores.
    """

    random: int = Field(default=2, ge=0)

    def check(self, distribution: Distribution) -> None:
        if list(distribution.parameters()):
            raise HwnasError("learning sandwich trains no logits", "use distribution: uniform")
        if not distribution.space.is_chain:
            raise HwnasError(
                f"learning sandwich needs a chain of layers, and {distribution.space.name} is a space of cells",
                "use learning: weights_only, or search in a chain such as --space mobilenetv3",
            )

    def learn(self, step: LearningStep, target: TargetState) -> BatchResult:
        if step.recipe.runs.name != "sampled":
            raise HwnasError("learning sandwich runs one member at a time", "use runs: sampled in the recipe")
        context = step.draw_context(Purpose.WEIGHTS_DRAW)
        drawn = [target.distribution.draw(context) for _ in range(self.random)]
        smallest, largest = extreme_members(target)
        step.weights.zero_grad()
        result = step.task_loss(target, largest, "weights")
        step.backward(result.task)
        for member in (smallest, *drawn):
            step.backward(step.task_loss(target, member, "weights", taught=result.scores).task)
        step.step_weights()
        return result


def extreme_members(target: TargetState) -> tuple[Draw, Draw]:
    """Return the members of a chain with the fewest and with the most MACs in every layer that is in the search."""
    model = target.objective.costs[MACS.name]
    assert isinstance(model, CostModel)
    (kind,) = target.space.cells
    costs = torch.from_numpy(np.asarray(model.linear()[1][kind]))
    allowed = target.distribution.allowed(kind).cpu()
    real = allowed.clone()
    if SKIP in target.space.operations:
        real[:, target.space.operations.index(SKIP)] = False
    least = torch.where(allowed, costs, torch.inf).argmin(dim=1)
    most = torch.where(real, costs, -torch.inf).argmax(dim=1)
    return _member(kind, least, costs), _member(kind, most, costs)


def _member(kind: str, chosen: Tensor, costs: Tensor) -> Draw:
    return Draw({kind: one_hot(chosen, torch.zeros(costs.shape))}, {kind: chosen})
