"""The layers that an operation runs when its network is deployed: what each reads, writes and holds. No torch.

A batch norm is folded into the convolutions before it; where there is none it is a layer. The shift (and the padding of
odd sides) inside ``factorized_reduce`` is done by the convolution that reads the shifted image, and flattening does
nothing. Otherwise these are the modules of hwnas.operations, in the order in which they run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from hwnas.errors import HwnasError
from hwnas.spaces import Workload
from hwnas.spaces.convolutions import Convolution, read_convolution

# join: halves put side by side within an operation. concat: the nodes of a cell.
Kind = Literal["relu", "conv", "pool", "norm", "add", "join", "concat", "linear"]
Shape = tuple[int, int, int]  # channels, height, width


@dataclass(frozen=True)
class Layer:
    """``reads`` are numbers of tensors: the operation's inputs first, then what each layer wrote, in order.

    ``read_values`` and ``written_values`` count the numbers in a tensor for one image, ``weights`` the weights without
    biases.
    """

    kind: Kind
    reads: tuple[int, ...]
    read_values: tuple[int, ...]
    written_values: int
    weights: int = 0


@dataclass
class _Trace:
    """Layers as they are written down; every method gives the number of the tensor that its layer writes."""

    shapes: list[Shape]
    layers: list[Layer] = field(default_factory=list)

    def add(self, kind: Kind, reads: tuple[int, ...], shape: Shape, weights: int = 0) -> int:
        read_values = tuple(_values(self.shapes[number]) for number in reads)
        self.layers.append(Layer(kind, reads, read_values, _values(shape), weights))
        self.shapes.append(shape)
        return len(self.shapes) - 1

    def relu(self, x: int) -> int:
        return self.add("relu", (x,), self.shapes[x])

    def conv(self, x: int, out: int, kernel: int, stride: int = 1, depthwise: bool = False) -> int:
        channels, height, width = self.shapes[x]
        weights = out * kernel**2 * (1 if depthwise else channels)
        return self.add("conv", (x,), (out, *_strided(height, width, stride)), weights)

    def pool(self, x: int, stride: int) -> int:
        channels, height, width = self.shapes[x]
        return self.add("pool", (x,), (channels, *_strided(height, width, stride)))

    def norm(self, x: int) -> int:
        return self.add("norm", (x,), self.shapes[x], self.shapes[x][0])

    def classify(self, x: int, classes: int) -> int:
        channels = self.shapes[x][0]
        pooled = self.add("pool", (x,), (channels, 1, 1))
        return self.add("linear", (pooled,), (classes, 1, 1), channels * classes)

    def relu_conv(self, x: int, out: int, kernel: int, stride: int = 1) -> int:
        return self.conv(self.relu(x), out, kernel, stride)

    def depthwise_block(self, x: int, out: int, kernel: int, stride: int) -> int:
        spread = self.conv(self.relu(x), self.shapes[x][0], kernel, stride, depthwise=True)
        return self.conv(spread, out, 1)


def _values(shape: Shape) -> int:
    channels, height, width = shape
    return channels * height * width


def _strided(height: int, width: int, stride: int) -> tuple[int, int]:
    return (height + stride - 1) // stride, (width + stride - 1) // stride


def _convolution(t: _Trace, w: Workload, named: Convolution) -> None:
    if named.kind == "relu_conv_bn":
        t.relu_conv(0, w.out_channels, named.kernel, w.stride)
    elif named.kind == "dilated_conv":
        t.depthwise_block(0, w.out_channels, named.kernel, w.stride)
    else:
        once = t.depthwise_block(0, w.in_channels, named.kernel, w.stride)
        t.depthwise_block(once, w.out_channels, named.kernel, 1)


def _factorized_reduce(t: _Trace, w: Workload) -> None:
    x, half = t.relu(0), w.out_channels // 2
    even, odd = t.conv(x, half, 1, 2), t.conv(x, w.out_channels - half, 1, 2)
    t.add("join", (even, odd), (w.out_channels, *_strided(w.height, w.width, 2)))


def _residual_reduction(t: _Trace, w: Workload) -> None:
    shortcut = t.conv(t.pool(0, 2), w.out_channels, 1)
    main = t.relu_conv(t.relu_conv(0, w.out_channels, 3, w.stride), w.out_channels, 3)
    t.add("add", (shortcut, main), t.shapes[main])


def _concat(t: _Trace, w: Workload) -> None:
    count = w.out_channels // w.in_channels
    t.shapes *= count
    t.add("concat", tuple(range(count)), (w.out_channels, w.height, w.width))


def _sum(t: _Trace, w: Workload) -> None:
    t.shapes *= 2
    t.add("add", (0, 1), t.shapes[0])


def _stem_imagenet_first(t: _Trace, w: Workload) -> None:
    t.relu_conv(t.conv(0, w.out_channels // 2, 3, 2), w.out_channels, 3, 2)


LAYERS: dict[str, Callable[[_Trace, Workload], object]] = {
    "max_pool_3x3": lambda t, w: t.pool(0, w.stride),
    "avg_pool_3x3": lambda t, w: t.pool(0, w.stride),
    "max_pool_3x3_bn": lambda t, w: t.norm(t.pool(0, w.stride)),
    "avg_pool_3x3_bn": lambda t, w: t.norm(t.pool(0, w.stride)),
    "factorized_reduce": _factorized_reduce,
    "residual_reduction": _residual_reduction,
    "relu": lambda t, w: t.relu(0),
    "sum": _sum,
    "concat": _concat,
    "stem_conv_3x3": lambda t, w: t.conv(0, w.out_channels, 3),
    "stem_imagenet_first": _stem_imagenet_first,
    "stem_imagenet_second": lambda t, w: t.relu_conv(0, w.out_channels, 3, 2),
    "pool_linear": lambda t, w: t.classify(0, w.out_channels),
    "window_pool_linear": lambda t, w: t.classify(0, w.out_channels),
    "norm_relu_pool_linear": lambda t, w: t.classify(t.relu(t.norm(0)), w.out_channels),
}


@cache
def layers(workload: Workload) -> tuple[Layer, ...]:
    """The layers of a workload's operation, in the order in which they run; the last one writes its result.

    Raises HwnasError for an operation whose layers are not known.
    """
    trace = _Trace([(workload.in_channels, workload.height, workload.width)])
    if named := read_convolution(workload.op):
        _convolution(trace, workload, named)
    elif workload.op in LAYERS:
        LAYERS[workload.op](trace, workload)
    else:
        raise HwnasError(f"the layers of operation {workload.op!r} are not known", f"known are {', '.join(LAYERS)}")
    return tuple(trace.layers)
