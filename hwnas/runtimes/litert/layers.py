"""Translate ONNX operators to LiteRT's: images are [N, H, W, C] there, and padding is "same" or "valid".

No transposition is left inside: an ONNX tensor [N, C, H, W] is stored as [N, H, W, C] throughout. Padding that is not
"same" is a layer of its own, which XNNPACK merges with the convolution that follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import HwnasError
from hwnas.runtimes.litert.graph import Layer, Tensor, constant

if TYPE_CHECKING:
    from onnx import NodeProto

# Where LiteRT has each axis of an ONNX tensor of that many axes; tensors of other ranks are stored as they are.
ORDER = {4: (0, 2, 3, 1), 5: (0, 3, 4, 1, 2)}


def order_of(rank: int) -> tuple[int, ...]:
    """Return the ONNX axis of each LiteRT axis."""
    return ORDER.get(rank, tuple(range(rank)))


def unsupported(what: str) -> HwnasError:
    """Return the error for a model that cannot be translated."""
    return HwnasError(f"the model cannot be converted to LiteRT: {what}", "use another runtime or format")


@dataclass
class Translation:
    """The layers that replace ONNX nodes.

    ``tensors`` has those of variables by ONNX name, ``values`` the constants, and ``shapes`` the ONNX shapes of all.
    """

    values: Mapping[str, NDArray[Any]]
    shapes: Mapping[str, tuple[int, ...]]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)

    def add(self, op: str, inputs: Sequence[Tensor | None], shape: Sequence[int], **options: Any) -> Tensor:
        """Append a layer and return its output."""
        output = Tensor(tuple(shape))
        self.layers.append(Layer(op, list(inputs), output, options))
        return output

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape in ONNX. Raises HwnasError where it is not known."""
        if name not in self.shapes:
            raise unsupported(f"the shape of {name} is not fixed")
        return self.shapes[name]

    def stored_shape(self, name: str) -> tuple[int, ...]:
        shape = self.shape(name)
        return tuple(shape[axis] for axis in order_of(len(shape)))

    def tensor(self, name: str) -> Tensor:
        """Return a tensor as LiteRT stores it; constants of fewer axes are broadcast as ONNX does."""
        if name not in self.tensors:
            value = self.values[name]
            self.tensors[name] = constant(value.transpose(order_of(value.ndim)), value.dtype.type)
        return self.tensors[name]

    def value(self, node: NodeProto, number: int) -> NDArray[Any]:
        """Return a constant input. Raises HwnasError where it is a variable."""
        name = node.input[number]
        if name not in self.values:
            raise unsupported(f"input {number} of {node.op_type} {node.name} is not a constant")
        return self.values[name]


Translate = Callable[[Translation, "NodeProto", dict[str, Any]], Tensor]


@dataclass(frozen=True)
class Window:
    """Kernel, stride, dilation and padding of a convolution or pooling along one axis."""

    size: int
    out: int
    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int

    @property
    def span(self) -> int:
        return (self.kernel - 1) * self.dilation + 1

    @property
    def needed(self) -> int:
        """The pixels of padding at the end that windows reach."""
        return max((self.out - 1) * self.stride + self.span - self.size - self.begin, 0)

    @property
    def same(self) -> bool:
        total = max((self.out - 1) * self.stride + self.span - self.size, 0)
        return self.out == -(-self.size // self.stride) and self.begin == total // 2

    def counts(self, padding_counts: bool) -> NDArray[np.int64]:
        """Return how many pixels each window averages over."""
        first = np.arange(self.out) * self.stride - self.begin
        least, end = (-self.begin, self.size + self.end) if padding_counts else (0, self.size)
        return np.minimum(first + self.kernel, end) - np.maximum(first, least)


def windows(t: Translation, node: NodeProto, given: Mapping[str, Any], kernel: Sequence[int]) -> list[Window]:
    """Return the windows of a node along height and width."""
    if given.get("auto_pad", b"NOTSET") != b"NOTSET" or len(kernel) != 2:
        raise unsupported(f"{node.op_type} {node.name} has automatic padding or not two axes")
    size, out = t.shape(node.input[0])[2:], t.shape(node.output[0])[2:]
    stride, dilation = given.get("strides", [1, 1]), given.get("dilations", [1, 1])
    pads = given.get("pads", [0, 0, 0, 0])
    return [Window(size[a], out[a], kernel[a], stride[a], dilation[a], pads[a], pads[2 + a]) for a in (0, 1)]


def padded(
    t: Translation, x: Tensor, along: Sequence[Window], fill: float | None = None, same: bool = True
) -> tuple[Tensor, str]:
    """Return the input of a layer and its padding, "SAME" or "VALID".

    The input is padded with zeros, or with ``fill``, unless no padding is needed or "same" means it.
    """
    if not any(w.begin or w.needed for w in along):
        return x, "VALID"
    if same and all(w.same for w in along):
        return x, "SAME"
    pads = constant([[0, 0], *([w.begin, w.needed] for w in along), [0, 0]], np.int32)
    shape = [x.shape[0], *(w.size + w.begin + w.needed for w in along), x.shape[3]]
    if fill is None:
        return t.add("PAD", [x, pads], shape), "VALID"
    return t.add("PADV2", [x, pads, constant(fill)], shape), "VALID"


def conv(t: Translation, node: NodeProto, given: dict[str, Any]) -> Tensor:
    weights = t.value(node, 1)
    channels, group = t.shape(node.input[0])[1], given.get("group", 1)
    along = windows(t, node, given, weights.shape[2:])
    x, padding = padded(t, t.tensor(node.input[0]), along)
    options = {"padding": padding, "strideH": along[0].stride, "strideW": along[1].stride}
    options |= {"dilationHFactor": along[0].dilation, "dilationWFactor": along[1].dilation}
    bias = t.value(node, 2) if len(node.input) > 2 and node.input[2] else np.zeros(len(weights))
    shape = t.stored_shape(node.output[0])
    if group == channels > 1:
        filters = constant(weights.transpose(1, 2, 3, 0))
        options["depthMultiplier"] = len(weights) // group
        return t.add("DEPTHWISE_CONV_2D", [x, filters, constant(bias)], shape, **options)
    filters = constant(weights.transpose(0, 2, 3, 1))
    return t.add("CONV_2D", [x, filters, constant(bias)], shape, **options)


def max_pool(t: Translation, node: NodeProto, given: dict[str, Any]) -> Tensor:
    along = windows(t, node, given, given["kernel_shape"])
    if any(w.dilation > 1 for w in along):
        raise unsupported(f"MaxPool {node.name} is dilated")
    x, padding = padded(t, t.tensor(node.input[0]), along, float(np.finfo(np.float32).min))
    return t.add("MAX_POOL_2D", [x], t.stored_shape(node.output[0]), padding=padding, **_pool_options(along))


def average_pool(t: Translation, node: NodeProto, given: dict[str, Any]) -> Tensor:
    """Translate an average; where padding does not count and is not "same", borders are scaled afterwards."""
    along = windows(t, node, given, given["kernel_shape"])
    if any(w.dilation > 1 for w in along):
        raise unsupported(f"AveragePool {node.name} is dilated")
    if all(w.kernel == w.size and w.out == 1 and not w.begin and not w.end for w in along):
        return global_average_pool(t, node, given)
    counts = [w.counts(bool(given.get("count_include_pad"))) for w in along]
    full = all((count == w.kernel).all() for count, w in zip(counts, along, strict=True))
    inside = all((count == w.counts(False)).all() for count, w in zip(counts, along, strict=True))
    x, padding = padded(t, t.tensor(node.input[0]), along, same=inside)
    shape = t.stored_shape(node.output[0])
    y = t.add("AVERAGE_POOL_2D", [x], shape, padding=padding, **_pool_options(along))
    if padding == "SAME" or full:
        return y
    factor = prod(w.kernel for w in along) / np.outer(*counts)
    return t.add("MUL", [y, constant(factor[None, :, :, None])], shape)


def _pool_options(along: Sequence[Window]) -> dict[str, int]:
    height, width = along
    strides = {"strideH": height.stride, "strideW": width.stride}
    return {**strides, "filterHeight": height.kernel, "filterWidth": width.kernel}


def global_average_pool(t: Translation, node: NodeProto, given: dict[str, Any]) -> Tensor:
    x = t.tensor(node.input[0])
    return t.add("MEAN", [x, constant([1, 2], np.int32)], [x.shape[0], 1, 1, x.shape[3]], keepDims=True)


def reduce_mean(t: Translation, node: NodeProto, given: dict[str, Any]) -> Tensor:
    rank, keep = len(t.shape(node.input[0])), bool(given.get("keepdims", 1))
    axes = [int(axis) % rank for axis in (t.value(node, 1) if len(node.input) > 1 else given.get("axes", range(rank)))]
    places = constant(sorted(order_of(rank).index(axis) for axis in axes), np.int32)
    return t.add("MEAN", [t.tensor(node.input[0]), places], t.stored_shape(node.output[0]), keepDims=keep)


def batch_norm(t: Translation, node: NodeProto, given: dict[str, Any]) -> Tensor:
    """Translate a batch norm that no convolution absorbs: a product and a sum."""
    weight, bias, mean, variance = (t.value(node, number) for number in range(1, 5))
    factor = weight / np.sqrt(variance + given.get("epsilon", 1e-5))
    shape = t.stored_shape(node.output[0])
    scaled = t.add("MUL", [t.tensor(node.input[0]), constant(factor)], shape)
    return t.add("ADD", [scaled, constant(bias - mean * factor)], shape)


def gemm(t: Translation, node: NodeProto, given: dict[str, Any]) -> Tensor:
    if given.get("transA") or given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0:
        raise unsupported(f"Gemm {node.name} scales or transposes its input")
    weights = t.value(node, 1)
    weights = weights if given.get("transB") else weights.T
    bias = t.value(node, 2).reshape(-1) if len(node.input) > 2 else np.zeros(len(weights))
    inputs = [t.tensor(node.input[0]), constant(weights), constant(np.broadcast_to(bias, len(weights)))]
    return t.add("FULLY_CONNECTED", inputs, t.stored_shape(node.output[0]))


def binary(op: str) -> Translate:
    def translate(t: Translation, node: NodeProto, given: dict[str, Any]) -> Tensor:
        ranks = {len(t.shape(name)) for name in node.input if t.shape(name)}
        if len(ranks) > 1:
            raise unsupported(f"{node.op_type} {node.name} broadcasts axes")
        inputs = [t.tensor(name) for name in sorted(node.input, key=lambda name: name in t.values)]
        return t.add(op, inputs, t.stored_shape(node.output[0]))

    return translate


def zeros(t: Translation, node: NodeProto, given: dict[str, Any]) -> Tensor:
    """Translate the value of a node of a cell that has no inputs."""
    if "value" in given and any(given["value"].float_data or given["value"].raw_data.strip(b"\0")):
        raise unsupported(f"ConstantOfShape {node.name} is not zero")
    return constant(np.zeros(t.stored_shape(node.output[0])))


def unary(op: str) -> Translate:
    def translate(t: Translation, node: NodeProto, given: dict[str, Any]) -> Tensor:
        x = t.tensor(node.input[0])
        return t.add(op, [x], x.shape)

    return translate


def clip(t: Translation, node: NodeProto, given: dict[str, Any]) -> Tensor:
    least, most = (float(t.value(node, n)) if len(node.input) > n and node.input[n] else None for n in (1, 2))
    if least != 0.0 or most not in (6.0, None):
        raise unsupported(f"Clip {node.name} is not ReLU or ReLU6")
    return unary("RELU6" if most else "RELU")(t, node, given)


def hard_sigmoid(t: Translation, node: NodeProto, given: dict[str, Any]) -> Tensor:
    """Translate min(max(x/6 + 1/2, 0), 1) to ReLU6(x + 3) / 6."""
    if abs(given.get("alpha", 0.2) - 1 / 6) > 1e-6 or given.get("beta", 0.5) != 0.5:
        raise unsupported(f"HardSigmoid {node.name} is not of slope 1/6")
    x = t.tensor(node.input[0])
    clipped = t.add("ADD", [x, constant(3.0)], x.shape, fusedActivationFunction="RELU6")
    return t.add("MUL", [clipped, constant(1 / 6)], x.shape)


def maximum(t: Translation, node: NodeProto, given: dict[str, Any]) -> Tensor:
    """Translate max(x, 0), as networks for onnxruntime-web have in place of ReLUs."""
    if len(node.input) != 2 or t.value(node, 1).any():
        raise unsupported(f"Max {node.name} is not ReLU")
    return unary("RELU")(t, node, given)


def concat(t: Translation, node: NodeProto, given: dict[str, Any]) -> Tensor:
    """Translate zeros, from nodes of a cell that have no inputs, to padding of the tensors beside them.

    So the number of images can change, which a constant would fix.
    """
    inputs = [t.tensor(name) for name in node.input]
    rank = len(inputs[0].shape)
    axis = order_of(rank).index(given["axis"] % rank)
    parts: list[tuple[Tensor, int, int]] = []  # with the zeros before it and after it
    waiting = 0
    for x in inputs:
        size = x.shape[axis]
        if x.data is None:
            parts.append((x, waiting, 0))
            waiting = 0
        elif x.data.any():
            raise unsupported("it concatenates a constant, whose number of images cannot change")
        elif parts:
            last, before, after = parts[-1]
            parts[-1] = (last, before, after + size)
        else:
            waiting += size
    if not parts:
        raise unsupported("it concatenates constants only, whose number of images cannot change")
    padded = [_padded(t, x, axis, before, after) for x, before, after in parts]
    if len(padded) == 1:
        return padded[0]
    return t.add("CONCATENATION", padded, t.stored_shape(node.output[0]), axis=axis)


def _padded(t: Translation, x: Tensor, axis: int, before: int, after: int) -> Tensor:
    if not before + after:
        return x
    amounts, shape = np.zeros((len(x.shape), 2), np.int32), list(x.shape)
    amounts[axis], shape[axis] = (before, after), shape[axis] + before + after
    return t.add("PAD", [x, constant(amounts, np.int32)], tuple(shape))


def slices(t: Translation, node: NodeProto, given: dict[str, Any]) -> Tensor:
    shape = t.shape(node.input[0])
    starts, ends = t.value(node, 1), t.value(node, 2)
    axes = t.value(node, 3) if len(node.input) > 3 else np.arange(len(starts))
    steps = t.value(node, 4) if len(node.input) > 4 else np.ones(len(starts), dtype=int)
    given_slices = {int(a) % len(shape): slice(*map(int, of)) for a, *of in zip(axes, starts, ends, steps, strict=True)}
    begin, end, step = [0] * len(shape), list(shape), [1] * len(shape)
    for axis, of in given_slices.items():
        begin[axis], end[axis], step[axis] = of.indices(shape[axis])
    if min(step) < 1:
        raise unsupported(f"Slice {node.name} runs backwards")
    order = order_of(len(shape))
    whole = sum(1 << place for place, axis in enumerate(order) if axis not in given_slices)
    inputs = [t.tensor(node.input[0]), *(constant([of[axis] for axis in order], np.int32) for of in (begin, end, step))]
    return t.add("STRIDED_SLICE", inputs, t.stored_shape(node.output[0]), beginMask=whole, endMask=whole)


def pad(t: Translation, node: NodeProto, given: dict[str, Any]) -> Tensor:
    pads, rank = t.value(node, 1).reshape(2, -1), len(t.shape(node.input[0]))
    fill = float(t.value(node, 2)) if len(node.input) > 2 and node.input[2] else 0.0
    if given.get("mode", b"constant") != b"constant" or pads.shape[1] != rank or pads.min() < 0 or fill:
        raise unsupported(f"Pad {node.name} does not add zeros")
    amounts = constant(pads.T[list(order_of(rank))], np.int32)
    return t.add("PAD", [t.tensor(node.input[0]), amounts], t.stored_shape(node.output[0]))


def reshape(t: Translation, node: NodeProto, given: dict[str, Any]) -> Tensor:
    """Translate a change of shape that keeps height and width, or one of a tensor that has none."""
    x, before, after = t.tensor(node.input[0]), t.shape(node.input[0]), t.shape(node.output[0])
    images = [shape[-2:] for shape in (before, after) if len(shape) in ORDER]
    if any(image != images[0] for image in images) or (len(images) == 1 and images[0] != (1, 1)):
        raise unsupported(f"{node.op_type} {node.name} mixes channels and pixels")
    shape = t.stored_shape(node.output[0])
    sizes = constant([-1, *shape[1:]], np.int32)  # for any number of images
    return t.add("RESHAPE", [x, sizes], shape, newShape=(-1, *shape[1:]))


def transpose(t: Translation, node: NodeProto, given: dict[str, Any]) -> Tensor:
    """Translate a transposition of axes, as channel shuffles have between their reshapes."""
    order = order_of(len(given["perm"]))
    axes = constant([order.index(given["perm"][axis]) for axis in order], np.int32)
    return t.add("TRANSPOSE", [t.tensor(node.input[0]), axes], t.stored_shape(node.output[0]))


def identity(t: Translation, node: NodeProto, given: dict[str, Any]) -> Tensor:
    return t.tensor(node.input[0])


TRANSLATIONS: Mapping[str, Translate] = {
    "Add": binary("ADD"),
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "Clip": clip,
    "Concat": concat,
    "ConstantOfShape": zeros,
    "Conv": conv,
    "Dropout": identity,
    "Flatten": reshape,
    "Gemm": gemm,
    "GlobalAveragePool": global_average_pool,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": unary("HARD_SWISH"),
    "Identity": identity,
    "Max": maximum,
    "MaxPool": max_pool,
    "Mul": binary("MUL"),
    "Pad": pad,
    "ReduceMean": reduce_mean,
    "Relu": unary("RELU"),
    "Reshape": reshape,
    "Sigmoid": unary("LOGISTIC"),
    "Slice": slices,
    "Transpose": transpose,
}
