"""Record what is known about the channels of a network while it is traced (hwnas.networks.channels.trace)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class TracedLayer:
    """A call of a convolution, linear layer or batch norm: the ids of the channels that it reads and makes.

    ``pixels`` are those of its output. ``reads`` is empty for a batch norm and a depthwise convolution, which read what
    they make.
    """

    name: str
    module: nn.Module
    reads: Ids
    makes: Ids
    pixels: int


@dataclass(frozen=True)
class Value:
    """The ids of the channels of a tensor, in its shape but with side 1 where they are equal along a side.

    ``from_layers`` are the layers of whose outputs alone the tensor consists. ``zero`` is false where removed channels
    are not 0 in it.
    """

    ids: Ids
    from_layers: frozenset[str] = frozenset()
    zero: bool = True

    @property
    def by_channel(self) -> bool:
        """True where the ids differ between channels only, not between pixels."""
        return max(self.ids.shape[2:], default=1) == 1


def of_channels(ids: Ids, sides: int, from_layers: Iterable[str] = ()) -> Value:
    """Return the value of a tensor with ``sides`` sides and one id for each channel."""
    return Value(ids.reshape(1, -1, *[1] * (sides - 2)), frozenset(from_layers))


@dataclass
class Trace:
    """The layers of a network in the order of their calls, and which of their channels are equal.

    ``pools`` has the ids and pixels of what global poolings read. ``masked`` are the layers whose outputs a mask must
    multiply so that a removed channel is 0 wherever it is read: every batch norm, and every other layer but one that a
    batch norm follows. ``fixed`` channels cannot be removed.
    """

    layers: list[TracedLayer] = field(default_factory=list)
    pools: list[tuple[Ids, int]] = field(default_factory=list)
    masked: dict[str, Ids] = field(default_factory=dict)
    fixed: set[int] = field(default_factory=set)
    parents: list[int] = field(default_factory=list)

    def new(self, count: int) -> Ids:
        """Return the ids of ``count`` new channels."""
        first = len(self.parents)
        self.parents += range(first, first + count)
        return np.arange(first, first + count)

    def root(self, channel: int) -> int:
        """Return the id that stands for all that are equal to ``channel``."""
        while self.parents[channel] != channel:
            self.parents[channel] = self.parents[self.parents[channel]]
            channel = self.parents[channel]
        return channel

    def equate(self, one: Ids, other: Ids) -> None:
        """Make the ids of two arrays equal, broadcast to each other."""
        pairs = np.stack([array.ravel() for array in np.broadcast_arrays(one, other)])
        for a, b in np.unique(pairs, axis=1).T:
            self.parents[self.root(int(a))] = self.root(int(b))

    def fix(self, ids: Ids) -> None:
        """Mark channels that cannot be removed."""
        self.fixed.update(np.unique(ids).tolist())

    def constant(self, tensor: Tensor) -> Value:
        """Return a value for a tensor whose channels are new and cannot be removed."""
        ids = self.new(tensor.shape[1] if tensor.dim() > 1 else tensor.numel())
        self.fix(ids)
        return of_channels(ids, max(tensor.dim(), 2))


class Recording:
    """The trace of a network, and the values of its tensors so far."""

    def __init__(self, network: nn.Module) -> None:
        self.trace = Trace()
        self._layers: dict[int, tuple[str, nn.Module]] = {}
        for name, module in network.named_modules():
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                self._layers[id(tensor)] = name, module
        self._values: dict[int, tuple[Tensor, Value]] = {}  # with the tensor, so that no other gets its address
        self._weights: list[Tensor] = []

    def is_weight(self, tensor: Any) -> bool:
        """Return whether a tensor belongs to a layer."""
        return id(tensor) in self._layers

    def layer_of(self, tensor: Any) -> nn.Module | None:
        """Return the layer to which a tensor belongs."""
        found = self._layers.get(id(tensor))
        return found[1] if found else None

    def rename_weight(self, tensor: Tensor, weight: Tensor) -> None:
        """Note that a tensor is the ``weight`` of a layer, transposed."""
        self._layers[id(tensor)] = self._layers[id(weight)]
        self._weights.append(tensor)

    def value(self, tensor: Any) -> Value | None:
        """Return the value of a tensor; None for one that does not depend on the image."""
        found = self._values.get(id(tensor))
        return found[1] if found else None

    def set(self, tensor: Tensor, value: Value) -> None:
        self._values[id(tensor)] = tensor, value

    def fix(self, tensor: Any) -> None:
        """Fix the channels of a tensor, if it has any."""
        if value := self.value(tensor):
            self.trace.fix(value.ids)

    def read(self, tensor: Any) -> Ids | None:
        """Return the ids of what a layer reads, and fix them where removed channels are not 0 there."""
        value = self.value(tensor)
        if value is None or not value.by_channel or value.ids.shape[0] != 1:
            return None
        if not value.zero:
            self.trace.fix(value.ids)
        return value.ids.ravel()

    def layer(self, weight: Tensor, reads: Ids, makes: Ids, output: Tensor) -> Value:
        """Record the call of the layer of a weight. A second call reads and makes the channels of the first."""
        name, module = self._layers[id(weight)]
        if before := next((layer for layer in self.trace.layers if layer.name == name), None):
            self.trace.equate(reads, before.reads)
            self.trace.equate(makes, before.makes)
        self.trace.layers.append(TracedLayer(name, module, reads, makes, int(np.prod(output.shape[2:]))))
        self.trace.masked[name] = makes
        return of_channels(makes, output.dim(), [name])
