"""Layers of an operation as they run in a deployed network: tensors read and written, and weights. No torch.

Memory access and peak memory are counted from these layers. A batch norm directly after a convolution is folded into
it and is not a layer; anywhere else it is one. Flattening, shifting and padding move nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

# join: halves concatenated within an operation. concat: the nodes of a cell, concatenated. activation: all but ReLU.
# shuffle: channels reordered. scale: a tensor times one factor for each channel. other: any other operator.
LayerKind = Literal[
    "relu", "activation", "conv", "pool", "norm", "add", "join", "concat", "linear", "shuffle", "scale", "other"
]
Shape = tuple[int, int, int]  # channels, height, width


@dataclass(frozen=True)
class CountedLayer:
    """One layer.

    ``reads`` are numbers of tensors: the operation's inputs come first, then the output of each layer, in order.
    ``read_values`` and ``written_values`` are numbers of elements for one image, ``weights`` the number of weights
    without biases.
    """

    kind: LayerKind
    reads: tuple[int, ...]
    read_values: tuple[int, ...]
    written_values: int
    weights: int = 0


@dataclass
class LayerTrace:
    """A list of layers under construction. Tensor 0 is the operation's input.

    Each method appends one layer (some: several) and returns the number of the tensor written last.
    """

    shapes: list[Shape]
    layers: list[CountedLayer] = field(default_factory=list)

    def layer(self, kind: LayerKind, reads: tuple[int, ...], shape: Shape, weights: int = 0) -> int:
        """Append any layer: it reads the tensors ``reads`` and writes one of ``shape`` (channels, height, width)."""
        read_values = tuple(_values(self.shapes[number]) for number in reads)
        self.layers.append(CountedLayer(kind, reads, read_values, _values(shape), weights))
        self.shapes.append(shape)
        return len(self.shapes) - 1

    def relu(self, x: int) -> int:
        return self.layer("relu", (x,), self.shapes[x])

    def activation(self, x: int) -> int:
        """Any other activation."""
        return self.layer("activation", (x,), self.shapes[x])

    def conv(self, x: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> int:
        """A convolution that keeps height and width at stride 1, with a batch norm folded in or without one."""
        channels, height, width = self.shapes[x]
        weights = out * kernel**2 * channels // groups
        return self.layer("conv", (x,), (out, *strided(height, width, stride)), weights)

    def pool(self, x: int, stride: int) -> int:
        channels, height, width = self.shapes[x]
        return self.layer("pool", (x,), (channels, *strided(height, width, stride)))

    def norm(self, x: int) -> int:
        """A batch norm that no convolution precedes."""
        return self.layer("norm", (x,), self.shapes[x], self.shapes[x][0])

    def add(self, x: int, y: int) -> int:
        return self.layer("add", (x, y), self.shapes[x])

    def join(self, *parts: int) -> int:
        """Concatenate along the channels, within an operation."""
        _, height, width = self.shapes[parts[0]]
        return self.layer("join", parts, (sum(self.shapes[part][0] for part in parts), height, width))

    def classify(self, x: int, classes: int) -> int:
        """Global average pooling and a linear layer."""
        channels = self.shapes[x][0]
        pooled = self.layer("pool", (x,), (channels, 1, 1))
        return self.layer("linear", (pooled,), (classes, 1, 1), channels * classes)

    def relu_conv(self, x: int, out: int, kernel: int, stride: int = 1) -> int:
        return self.conv(self.relu(x), out, kernel, stride)

    def depthwise_block(self, x: int, out: int, kernel: int, stride: int) -> int:
        """ReLU, depthwise convolution, 1x1 convolution."""
        channels = self.shapes[x][0]
        return self.conv(self.conv(self.relu(x), channels, kernel, stride, groups=channels), out, 1)

    def asymmetric_pair(self, x: int, out: int, kernel: int, stride: int) -> int:
        """A 1xK convolution that divides the width by the stride, then a Kx1 convolution that divides the height."""
        channels, height, width = self.shapes[x]
        wide = self.layer("conv", (x,), (channels, height, strided(1, width, stride)[1]), channels**2 * kernel)
        return self.layer("conv", (wide,), (out, *strided(height, width, stride)), out * channels * kernel)


def _values(shape: Shape) -> int:
    channels, height, width = shape
    return channels * height * width


def strided(height: int, width: int, stride: int) -> tuple[int, int]:
    """Return height and width after a stride, rounded up."""
    return (height + stride - 1) // stride, (width + stride - 1) // stride
