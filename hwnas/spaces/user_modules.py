"""Torch modules that functions of the user return: build them without weights, and trace their layers.

Nothing is computed: tensors on the meta device have shapes and no values. Imported for a user's own backbone alone
(hwnas.spaces.backbone), which needs torch anyway.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hwnas.spaces.layers import LayerKind, LayerTrace, Shape

BATCH = 2  # images in a trace: an output that mixes them has another first size
MOVES_NOTHING = ("constant_pad_nd", "slice", "detach", "alias", "_unsafe_view")
LINEAR = ("addmm", "mm", "linear", "bmm", "baddbmm", "matmul")


class UnusableModuleError(Exception):
    """A function's result, or its output, is none that a layer can have; the message says why."""


@dataclass(frozen=True)
class TracedLayer:
    """One layer as hwnas.spaces.layers.CountedLayer describes it: ``shape`` is that of the tensor that it writes."""

    kind: LayerKind
    reads: tuple[int, ...]
    shape: Shape
    weights: int


@dataclass(frozen=True)
class TracedModule:
    """The layers of a module in the order in which they run, and the shape of its output without the batch.

    ``overwrites_input`` is true where an operation in place changes the module's input.
    """

    layers: tuple[TracedLayer, ...]
    out_shape: tuple[int, ...]
    overwrites_input: bool

    def append_to(self, trace: LayerTrace) -> None:
        """Append the layers to a trace."""
        for layer in self.layers:
            trace.layer(layer.kind, layer.reads, layer.shape, layer.weights)

    @property
    def ends_with(self) -> tuple[LayerKind, ...]:
        """The kinds of at most three last layers, each of which reads the one before (hwnas.spaces.operation)."""
        last = len(self.layers)
        first = last
        while first > 1 and last - first < 2 and first - 1 in self.layers[first - 1].reads:
            first -= 1
        return tuple(layer.kind for layer in self.layers[first - 1 :])


def build_on_meta(build: Callable[[], Any]) -> nn.Module:
    """Return the module that ``build`` returns, with weights that have no values.

    Raises UnusableModuleError when it returns anything else, or the same weights in two calls, and whatever it raises.
    """
    try:
        with torch.device("meta"):
            module = build()
    except Exception:  # it computes with values, which meta tensors lack: build it for real
        with torch.random.fork_rng(devices=[]):
            module = build()
    if not isinstance(module, nn.Module):
        raise UnusableModuleError(f"it returns a {type(module).__name__}, not a torch module")
    own = _tensors(module)
    if all(tensor.is_meta for tensor in own):
        return module
    with torch.random.fork_rng(devices=[]):
        others = {id(tensor) for tensor in _tensors(build())}
    if any(id(tensor) in others for tensor in own):
        raise UnusableModuleError("two calls return the same weights; it has to make a new module in every call")
    return copy.deepcopy(module).to("meta")


def trace_module(module: nn.Module, shape: Shape) -> TracedModule:
    """Trace a module of ``build_on_meta`` in evaluation mode on an input of ``shape`` (channels, height, width).

    Raises UnusableModuleError where its output is no tensor of a result for each image, and whatever the module raises.
    """
    image = torch.empty(BATCH, *shape, device="meta")
    recorder = _Recorder(image, shape, _tensors(module))
    with torch.no_grad(), recorder:
        output = module.eval()(image)
    if not isinstance(output, Tensor):
        raise UnusableModuleError(f"it returns a {type(output).__name__}, not a tensor")
    if output.dim() < 2 or output.shape[0] != BATCH:
        raise UnusableModuleError(f"its output has the shape {list(output.shape)} for {BATCH} images")
    number = recorder.numbers.get(id(output), 0)
    if number == 0:
        raise UnusableModuleError("it computes nothing from its input; make it a part of another layer")
    return TracedModule(tuple(recorder.layers[:number]), tuple(output.shape[1:]), recorder.overwrites_input)


def without_factors(module: nn.Module) -> nn.Module:
    """Remove the scales and shifts of a module's batch norms, which would undo a mixture's weights; return it."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.affine:
            layer.affine = False
            layer.register_parameter("weight", None)
            layer.register_parameter("bias", None)
    return module


class _Recorder(TorchDispatchMode):
    """Record the operators that run. ``numbers`` are those of the tensors, 0 for the input, by their ids."""

    def __init__(self, image: Tensor, shape: Shape, weights: list[Tensor]) -> None:
        super().__init__()
        self.layers: list[TracedLayer] = []
        self.overwrites_input = False
        self.numbers = {id(image): 0}
        self.weights = {id(tensor): tensor.numel() for tensor in weights}
        self.shapes = [shape]
        self.alive: list[Any] = [image]  # ids of freed tensors would be given again

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        written = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.alive.append((given, written))
        reads = tuple(dict.fromkeys(self.numbers[id(t)] for t in given if id(t) in self.numbers))
        held = max((self.weights[id(t)] for t in given if id(t) in self.weights), default=0)
        if not reads:  # made of weights alone
            self.weights |= {id(t): t.numel() for t in written if held}
        elif written:
            name = func._schema.name.rpartition("::")[2]
            overwrites = func._schema.is_mutable and "batch_norm" not in name
            self.overwrites_input |= overwrites and self.numbers.get(id(given[0])) == 0
            number = self._number(func, name.removesuffix("_"), reads, held, written[0])
            self.numbers |= {id(tensor): number for tensor in written}
        return result

    def _number(self, func: Any, name: str, reads: tuple[int, ...], held: int, written: Tensor) -> int:
        """Return the number of the tensor that an operator writes, which may be that of the one it reads."""
        moves_nothing = name in MOVES_NOTHING or (func.is_view and not func._schema.is_mutable)
        if moves_nothing or ("batch_norm" in name and reads[0] and self.layers[reads[0] - 1].kind == "conv"):
            return reads[0]
        shape = _shape(written)
        kind = _kind(name, len(reads), shape == self.shapes[reads[0]])
        self.layers.append(TracedLayer(kind, reads, shape, held))
        self.shapes.append(shape)
        return len(self.layers)


def _kind(name: str, reads: int, same_shape: bool) -> LayerKind:
    """Return the kind of layer of an operator that reads so many tensors; ``same_shape``: and keeps the first's."""
    known: dict[str, LayerKind] = {"relu": "relu", "cat": "join", "mean": "pool", "clone": "shuffle"}
    if name in known:
        return known[name]
    if "convolution" in name:
        return "conv"
    if "_norm" in name:
        return "norm"
    if "pool" in name:
        return "pool"
    if name in LINEAR:
        return "linear"
    if reads == 2 and name in ("add", "mul"):
        return "add" if name == "add" else "scale"
    return "activation" if reads == 1 and same_shape else "other"


def _shape(tensor: Tensor) -> Shape:
    """Return channels, height and width of a tensor [N, …]; a list of tokens [N, T, C] has the height T."""
    sizes = [int(size) for size in tensor.shape[1:]]
    if len(sizes) == 2:
        return sizes[1], sizes[0], 1
    rest = [*sizes, 1, 1]
    return rest[0], rest[1], tensor[0].numel() // max(rest[0] * rest[1], 1) if len(sizes) > 3 else rest[2]


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
