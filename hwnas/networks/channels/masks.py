"""Binary masks of the channels of a network, trained with straight-through gradients (Pruning-as-Search)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hwnas.networks.channels.groups import FIXED, Channels
from hwnas.networks.child import ChildNetwork

THRESHOLD = 0.5


class ChannelMasks(nn.Module):
    """A mask of 0 or 1 for every removable channel: 1 where its latent value [channels] is above THRESHOLD.

    The gradient of a mask is taken as that of its latent value. All layers with the channels of a group share its
    masks. At the beginning all latent values, and so all masks, are 1.
    """

    group_of: Tensor

    def __init__(self, channels: Channels) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.ones(channels.count))
        self.register_buffer("group_of", torch.from_numpy(channels.group_of), persistent=False)
        self.num_groups = len(channels.sizes)
        self.channels = channels
        self._handles: list[RemovableHandle] = []

    def forward(self) -> Tensor:
        """Return the masks [channels]."""
        return (self.latent > THRESHOLD).to(self.latent) + (self.latent - self.latent.detach())

    def widths(self) -> Tensor:
        """Return how many channels each group has left [groups], with gradients."""
        return self._sum_of_groups(self())

    def mean_of_groups(self, values: Tensor) -> Tensor:
        """Return the mean of ``values`` [channels] in each group [groups]."""
        return self._sum_of_groups(values) / self._sum_of_groups(torch.ones_like(values))

    def _sum_of_groups(self, values: Tensor) -> Tensor:
        return values.new_zeros(self.num_groups).index_add(0, self.group_of, values)

    def keep(self) -> NDArray[np.bool_]:
        """Return which channels are left [channels]."""
        return (self.latent.detach() > THRESHOLD).cpu().numpy()

    def attach(self, child: ChildNetwork) -> None:
        """Multiply the outputs of the layers of ``child`` by the masks, as a 1x1 depthwise convolution would."""
        for name, axis in self.channels.masked.items():
            removable = torch.from_numpy(axis.channels != FIXED)
            if not removable.any():
                continue
            numbers = torch.from_numpy(np.where(axis.channels == FIXED, 0, axis.channels))

            def mask(
                module: nn.Module, inputs: object, output: Tensor, n: Tensor = numbers, r: Tensor = removable
            ) -> Tensor:
                device = output.device
                factors = torch.where(r.to(device), self()[n.to(device)], 1.0)
                return output * factors.to(output.dtype).reshape(1, -1, *[1] * (output.dim() - 2))

            self._handles.append(child.get_submodule(name).register_forward_hook(mask))

    def detach_all(self) -> None:
        """Remove the masks from the network that they were attached to."""
        while self._handles:
            self._handles.pop().remove()
