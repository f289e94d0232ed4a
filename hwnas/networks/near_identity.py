"""Initial weights with which deep networks train from the first step, whether or not they have skip connections."""

from __future__ import annotations

import torch
from torch import nn

NOISE = 0.5  # standard deviation of a convolution's random part, relative to that of its identity


def start_near_identity(network: nn.Module) -> None:
    """Set the weights of all convolutions of ``network`` that keep their input's shape to the identity and noise.

    With torch's usual weights, a deep network without skip connections learns slowly at first and ends well, so that
    short trainings rank it too low. Near the identity, all signals pass at first (Zagoruyko & Komodakis, "DiracNets",
    2017). Draws from torch's random state.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == module.out_channels and module.stride == (1, 1):
            with torch.no_grad():
                spread = NOISE / module.weight[0].numel() ** 0.5
                noise = torch.randn_like(module.weight)
                nn.init.dirac_(module.weight, groups=module.groups).add_(noise, alpha=spread)
