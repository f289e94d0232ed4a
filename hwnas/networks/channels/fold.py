"""Fold the masks of a network into a narrower one, and compare the two."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwnas.errors import HwnasError
from hwnas.networks.channels.groups import Channels
from hwnas.networks.channels.masks import ChannelMasks
from hwnas.networks.channels.narrow import narrow
from hwnas.networks.child import ChildNetwork

TOLERANCE = 1e-4  # of the greatest score


def fold(child: ChildNetwork, channels: Channels, keep: NDArray[np.bool_], images: Tensor) -> ChildNetwork:
    """Return a copy of ``child`` without the channels that ``keep`` [removable channels] does not name.

    Raises HwnasError where its scores of ``images`` [N, C, H, W] differ by more than rounding from those of ``child``
    with these channels masked, as when an operation of the user's makes something else of zeros.
    """
    masks, folded = ChannelMasks(channels), copy.deepcopy(child.eval(), {id(child.sized): child.sized})
    masks.values.data.copy_(torch.from_numpy(keep))
    narrow(folded, channels, keep)
    masks.attach(child)
    with torch.no_grad():
        masked, scores = child(images), folded(images)
    masks.detach_all()
    difference, greatest = float((masked - scores).abs().max()), float(masked.abs().max())
    if not difference <= TOLERANCE * max(1.0, greatest):
        raise HwnasError(
            f"the narrower network and the masked one differ by {difference:.3g} (scores up to {greatest:.3g})",
            "an operation of the space does not keep channels apart: prune a network without it",
        )
    return folded
