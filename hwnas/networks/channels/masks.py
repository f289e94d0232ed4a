"""Masks of the channels of a network, whose gradients say how much the loss depends on each channel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hwnas.networks.channels.groups import FIXED, Channels
from hwnas.networks.child import ChildNetwork


class ChannelMasks(nn.Module):
    """A mask for every removable channel, ``values`` [channels]: 1, or 0 for a channel that has been removed.

    All layers with the channels of a group share its masks. At the beginning all masks are 1.
    """

    def __init__(self, channels: Channels) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.ones(channels.count))
        self.channels = channels
        self._handles: list[RemovableHandle] = []

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
                factors = torch.where(r.to(device), self.values[n.to(device)], 1.0)
                return output * factors.to(output.dtype).reshape(1, -1, *[1] * (output.dim() - 2))

            self._handles.append(child.get_submodule(name).register_forward_hook(mask))

    def detach_all(self) -> None:
        """Remove the masks from the network that they were attached to."""
        while self._handles:
            self._handles.pop().remove()
