"""Child networks as they are deployed, timed and counted: on one image, or on one word and the state before it."""

from __future__ import annotations

from torch import Tensor, nn

from hwnas.networks.child import ChildNetwork
from hwnas.networks.steps import values_of, zeros
from hwnas.spaces import HIDDEN, Setting


class OneWord(nn.Module):
    """A child network of words as deployed: words [N] and states [N, C] -> scores [N, words] and the next states."""

    def __init__(self, child: ChildNetwork) -> None:
        super().__init__()
        self.child = child

    def forward(self, word: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        values = values_of(self.child.network, self.child.run, {-1: word, HIDDEN: state})
        last = len(self.child.parts) - 1
        return values[last], values[last - 1]


def deployed(child: ChildNetwork) -> nn.Module:
    """Return a child network as deployed: itself, or its network of one word."""
    return OneWord(child) if child.network.setting.words else child


def deployed_shapes(setting: Setting) -> list[tuple[int, ...]]:
    """Return the shapes of the inputs of a deployed network without the batch; () for the number of a word."""
    if setting.words:
        return [(), (setting.channels,)]
    return [(setting.image_channels, setting.height, setting.width)]


def deployed_inputs(setting: Setting, batch: int = 1) -> list[Tensor]:
    """Return inputs of zeros for a deployed network."""
    return [zeros(shape, batch) for shape in deployed_shapes(setting)]
