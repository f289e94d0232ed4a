"""Pruning-as-Search: learn the widths of a trained network by masks of its channels (Li et al., IJCAI 2022).

The masks (hwnas.networks.channels.masks) and the weights are trained together, on the loss

    L(W, V) + beta * (MACs(V) / B - 1)^2

with the MACs of the masked network and their limit B. Afterwards hwnas.networks.channels.selection moves the threshold
of the masks to where the limit is kept exactly.

As in the authors' code (github.com/liyy201912/PaS) masks follow the batch norms, start at 1, have threshold 0.5 and
pass gradients straight through. It differs in the cost term, which has GMACs there and is relative to the limit here,
and in the steps of the masks. There, one SGD optimiser trains masks and weights with rates that were chosen for
ImageNet. Here, the latent values of the masks descend by themselves, without decay or momentum: the gradient of each
group of channels is divided by the greatest size (root of the mean square) that it has had, so that their way is
equally long for short and long trainings, in small and in large networks, and for groups that cost much and little.
A removed channel that a ReLU follows gets no gradient from the loss of the images: only the cost term brings it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hwnas.compute.memory import enough_memory
from hwnas.data import ImageData
from hwnas.networks.channels.groups import Channels, Costs, Floats
from hwnas.networks.channels.masks import ChannelMasks
from hwnas.networks.child import ChildNetwork
from hwnas.progress import OnProgress
from hwnas.training.child import OnEpoch, Trainer, run_training
from hwnas.training.optimizers import ParameterOptimizer
from hwnas.training.recipe import Training

COST_WEIGHT = 2.0  # beta
WAY = 2.0  # of a latent value whose gradient always has the greatest size, over the whole training
SMOOTHING = 0.9  # of the squared size of the gradients


@dataclass(frozen=True)
class Limit:
    """An upper bound on a cost of the masked network."""

    costs: Costs
    bound: float

    def penalty(self, widths: Tensor) -> Tensor:
        """Return the squared relative distance from the bound at some widths [groups]."""
        return (self.costs.of_tensor(widths) / self.bound - 1) ** 2


class MaskDescent:
    """Descent of the latent values of masks, whose rate falls linearly to 0 over ``total_steps``.

    ``mean_square`` and ``greatest`` [groups] are the running mean of the squared size of the gradients of each group,
    and the greatest that it has been.
    """

    def __init__(self, masks: ChannelMasks, total_steps: int) -> None:
        self.masks, self.total_steps, self.taken = masks, total_steps, 0
        self.mean_square, self.greatest = torch.zeros(2, masks.num_groups, device=masks.latent.device)

    def step(self) -> None:
        """Take one step along the gradient."""
        latent = self.masks.latent
        assert latent.grad is not None
        square = self.masks.mean_of_groups(latent.grad.square())
        self.mean_square = SMOOTHING * self.mean_square + (1 - SMOOTHING) * square if self.taken else square
        self.greatest = torch.maximum(self.greatest, self.mean_square)
        rate = 2 * WAY / self.total_steps * (1 - self.taken / self.total_steps)
        size = self.greatest.sqrt().clamp(min=torch.finfo(latent.dtype).tiny)
        latent.data -= rate * latent.grad / size[self.masks.group_of]
        self.taken += 1

    def state(self) -> dict[str, Any]:
        tensors = {"latent": self.masks.latent, "mean_square": self.mean_square, "greatest": self.greatest}
        return {"taken": self.taken, **{name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        device, self.taken = self.masks.latent.device, state["taken"]
        self.masks.latent.data.copy_(state["latent"])
        self.mean_square, self.greatest = state["mean_square"].to(device), state["greatest"].to(device)


class _Both:
    """The optimiser of the weights, after whose steps the masks take theirs."""

    def __init__(self, weights: ParameterOptimizer, masks: MaskDescent) -> None:
        self.weights, self.masks = weights, masks

    def set_learning_rate(self, epoch: float, epochs: int) -> float:
        return self.weights.set_learning_rate(epoch, epochs)

    def zero_grad(self) -> None:
        self.weights.zero_grad()
        self.masks.masks.zero_grad()

    def step(self) -> None:
        self.weights.step()
        self.masks.step()

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights.state_dict(), "masks": self.masks.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weights.load_state_dict(state["weights"])
        self.masks.load_state(state["masks"])


class WidthTrainer(Trainer):
    """The training of a child together with the masks of its channels."""

    def __init__(
        self, child: ChildNetwork, data: ImageData, recipe: Training, channels: Channels, limit: Limit
    ) -> None:
        super().__init__(child, data, recipe)
        self.masks, self.limit = ChannelMasks(channels).to(self.device), limit
        self.masks.attach(child)
        self.optimizer = _Both(self.optimizer, MaskDescent(self.masks, self.total_steps))  # type: ignore[assignment]

    def _forward(self, images: Tensor, targets: Tensor, drop: Any) -> tuple[Tensor, Tensor]:
        loss, correct = super()._forward(images, targets, drop)
        return loss + COST_WEIGHT * self.limit.penalty(self.masks.widths()), correct


def learn_widths(
    child: ChildNetwork,
    data: ImageData,
    recipe: Training,
    channels: Channels,
    limit: Limit,
    folder: Path,
    start: str,
    on_progress: OnProgress,
    on_epoch: OnEpoch,
) -> Floats:
    """Train ``child``, in place, and masks of its ``channels``; return the latent values [channels] of these.

    The arguments are those of ``hwnas.training.child.train_child``, with a ``limit`` on the masked network's cost; an
    interrupted call resumes in the same way. At the end ``child`` has its last weights and no masks.
    """
    with enough_memory(recipe.batch_size):
        trainer = WidthTrainer(child, data, recipe, channels, limit)
    run_training(trainer, folder, f"{start} to {limit.bound!r}", on_progress, on_epoch)
    trainer.masks.detach_all()
    return trainer.masks.latent.detach().cpu().double().numpy()
