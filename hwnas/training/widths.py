"""Learn the widths of a trained network: its channels leave one after another while its weights are trained.

Channels have binary masks after the batch norms, shared by the layers that must have the same channels, as in
Pruning-as-Search (Li et al., IJCAI 2022). Which ones leave is decided as in Group Fisher Pruning (Liu et al., ICML
2021): by the squared gradient of the loss with respect to the mask, relative to the MACs that the channel costs. (The
gradient itself, by which Pruning-as-Search moves a latent value of the mask, is near 0 in a trained network, whatever
removing the channel does to the loss: the weights that read a channel can undo a small change of its scale.)

The limit on MACs falls linearly from those of the whole network to the one asked for between FIRST and LAST, as shares
of the steps. Whenever the network is above it the least important channels leave. The learning rate stays at its first
value: it falls when the narrower network is trained afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hwnas.compute.memory import enough_memory
from hwnas.data import ImageData
from hwnas.networks.channels.groups import Channels, Costs, Floats
from hwnas.networks.channels.masks import ChannelMasks
from hwnas.networks.channels.recording import Ids
from hwnas.networks.channels.selection import removals
from hwnas.networks.child import ChildNetwork
from hwnas.progress import OnProgress
from hwnas.training.child import OnEpoch, Trainer, run_training
from hwnas.training.optimizers import ParameterOptimizer
from hwnas.training.recipe import Training

FIRST, LAST = 0.1, 0.8
SMOOTHING = 0.98  # of the squared gradients


@dataclass(frozen=True)
class Limit:
    """An upper bound on a cost of the masked network, whose widths are multiples of ``multiple`` where they can be."""

    costs: Costs
    bound: float
    multiple: int = 1

    def at(self, position: float, whole: float) -> float:
        """Return the limit at a ``position`` in the training, from 0 to 1, of a network that first costs ``whole``."""
        done = min(max((position - FIRST) / (LAST - FIRST), 0.0), 1.0)
        return whole + (self.bound - whole) * done


class ChannelRemoval:
    """The removal of channels in the steps of a training.

    ``importance`` [channels] is the running mean of the squared gradients of the masks, ``rank`` [channels] the number
    of channels that left before a removed one.
    """

    def __init__(self, masks: ChannelMasks, limit: Limit, total_steps: int) -> None:
        self.masks, self.limit, self.total_steps, self.taken = masks, limit, total_steps, 0
        self.whole = limit.costs.of(masks.channels.sizes)
        self.importance = torch.zeros_like(masks.values.data)
        self.rank = torch.zeros(masks.channels.count, dtype=torch.int64)

    def keep(self) -> NDArray[np.bool_]:
        """Return which channels are left [channels]."""
        return (self.masks.values.detach() > 0).cpu().numpy()

    def step(self) -> None:
        """Take in the gradients of the masks, and remove channels until the limit is kept."""
        gradient = self.masks.values.grad
        assert gradient is not None
        self.taken += 1
        self.importance = SMOOTHING * self.importance + (1 - SMOOTHING) * gradient.square()
        bound = self.limit.at(self.taken / self.total_steps, self.whole)
        keep, channels, costs = self.keep(), self.masks.channels, self.limit.costs
        blocks = self._blocks(keep)
        while costs.of(channels.widths(keep)) > bound and (block := next(blocks, None)) is not None:
            self.rank[block] = channels.count - int(keep.sum())
            keep[block] = False
            self.masks.values.data[block] = 0.0

    def ranks(self) -> Floats:
        """Return the order [channels] in which channels have left and would leave, the first ones with the least."""
        rank, keep = self.rank.numpy().astype(np.float64), self.keep()
        left = int((~keep).sum())
        rank[keep] = len(keep)
        for block in self._blocks(keep):
            rank[block] = left
            left += len(block)
        return rank

    def _blocks(self, keep: NDArray[np.bool_]) -> Iterator[Ids]:
        importance = self.importance.cpu().double().numpy()
        return removals(importance, keep, self.masks.channels, self.limit.costs, self.limit.multiple)

    def state(self) -> dict[str, Any]:
        tensors = {"values": self.masks.values, "importance": self.importance, "rank": self.rank}
        return {"taken": self.taken, **{name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.taken, self.rank = state["taken"], state["rank"].clone()
        self.masks.values.data.copy_(state["values"])
        self.importance = state["importance"].to(self.masks.values.device)


class _Both:
    """The optimiser of the weights, after whose steps channels are removed."""

    def __init__(self, weights: ParameterOptimizer, removal: ChannelRemoval) -> None:
        self.weights, self.removal = weights, removal

    def set_learning_rate(self, epoch: float, epochs: int) -> float:
        return self.weights.set_learning_rate(0, epochs)

    def zero_grad(self) -> None:
        self.weights.zero_grad()
        self.removal.masks.zero_grad()

    def step(self) -> None:
        self.weights.step()
        self.removal.step()

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights.state_dict(), "masks": self.removal.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weights.load_state_dict(state["weights"])
        self.removal.load_state(state["masks"])


class WidthTrainer(Trainer):
    """The training of a child while its channels leave."""

    def __init__(
        self, child: ChildNetwork, data: ImageData, recipe: Training, channels: Channels, limit: Limit
    ) -> None:
        super().__init__(child, data, recipe)
        masks = ChannelMasks(channels).to(self.device)
        masks.attach(child)
        self.removal = ChannelRemoval(masks, limit, self.total_steps)
        self.optimizer = _Both(self.optimizer, self.removal)  # type: ignore[assignment]


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
    """Train ``child``, in place, while its ``channels`` leave; return the order in which they do [channels].

    Channels of the lowest number leave first; those that are left at the end have the highest, in the order in which
    they would leave next. The arguments are those of ``hwnas.training.child.train_child``, with a ``limit`` on the
    masked network's cost; an interrupted call resumes in the same way. At the end ``child`` has its last weights and no
    masks.
    """
    with enough_memory(recipe.batch_size):
        trainer = WidthTrainer(child, data, recipe, channels, limit)
    run_training(trainer, folder, f"{start} to {limit.bound!r} by {limit.multiple}", on_progress, on_epoch)
    trainer.removal.masks.detach_all()
    return trainer.removal.ranks()
