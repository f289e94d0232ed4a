"""The models that are timed: each workload is repeated, and the slope over the repetitions is its latency."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hwnas.networks.child import Build, ChildNetwork
from hwnas.networks.deployed import deployed, deployed_shapes
from hwnas.networks.steps import zeros
from hwnas.operations import build_operation, randomise
from hwnas.profiling.assemble import Assembled, assemble_onnx
from hwnas.runtimes.float16 import FLOAT16, convert_to_float16
from hwnas.runtimes.int8 import INT8, Int8, random_feeds
from hwnas.runtimes.providers import CPU_PROVIDER
from hwnas.spaces import Architecture, SizedSpace, Workload, num_inputs, operation_of
from hwnas.spaces.builtin_operations import PREPROCESS
from hwnas.spaces.layers import strided
from hwnas.spaces.operation import counted_layers, input_shapes

if TYPE_CHECKING:
    from hwnas.runtimes.device_spec import DeviceSpec


MOST_WEIGHTS = 6_000_000  # in a chain of convolutions: as many as a mobile network has


class Chain(nn.Module):
    """One operation after another, as in a network. All operations get the same further inputs.

    ``first`` runs once before them: after a convolution a runtime keeps tensors in the layout of a network. Without it
    a residual block's addition is not fused, as its one operand, the model's input, is in another layout.
    """

    def __init__(self, operations: list[nn.Module], first: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.operations = nn.ModuleList(operations)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        x = self.first(x)
        for operation in self.operations:
            x = operation(x, *others)
        return x


class Parallel(nn.Module):
    """Operations side by side, each on inputs of its own, for those that cannot be chained."""

    def __init__(self, operations: list[nn.Module], inputs_each: int) -> None:
        super().__init__()
        self.operations = nn.ModuleList(operations)
        self.inputs_each = inputs_each

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            operation(*inputs[number * self.inputs_each : (number + 1) * self.inputs_each])
            for number, operation in enumerate(self.operations)
        )


class Branches(nn.Module):
    """Operations side by side on one tensor, in the layout that a runtime gives it in a network.

    ``first`` runs once before them. A pooling that reads one pixel ends each branch, in the same layout: a model's
    outputs are in another one, and runtimes do not fuse an activation that writes them.
    """

    def __init__(self, operations: list[nn.Module], first: nn.Module, out_size: tuple[int, int]) -> None:
        super().__init__()
        self.first = first
        self.operations = nn.ModuleList(operations)
        self.out_size = out_size

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.first(x)
        return tuple(torch.max_pool2d(operation(x), 1, self.out_size) for operation in self.operations)


@dataclass(frozen=True)
class Repeated:
    """Copies of a workload in one model: a chain if the operation allows it, branches or apart if not.

    ``apart``: each copy with inputs and outputs of its own.
    """

    workload: Workload
    copies: int
    apart: bool = False

    @property
    def chained(self) -> bool:
        return is_chainable(self.workload) and not self.apart

    @property
    def branched(self) -> bool:
        return not self.chained and is_branchable(self.workload) and not self.apart

    def module(self, build: Build) -> nn.Module:
        w = self.workload
        operations = [build(w) for _ in range(self.copies)]
        ahead = Workload(PREPROCESS, w.in_channels, w.in_channels, w.height, w.width)
        if self.chained:
            return Chain(operations, build(ahead if keeps_layout(w) else None))
        if self.branched:
            return Branches(operations, build(ahead), strided(w.height, w.width, w.stride))
        return Parallel(operations, num_inputs(w))

    def input_shapes(self) -> list[tuple[int, ...]]:
        return input_shapes(self.workload) * (1 if self.chained or self.branched else self.copies)


@dataclass(frozen=True)
class Whole:
    """The network of an architecture as deployed: dead edges left out."""

    sized: SizedSpace
    architecture: Architecture

    def module(self, build: Build) -> nn.Module:
        return deployed(ChildNetwork(self.sized, self.architecture, prune=True, build=build))

    def input_shapes(self) -> list[tuple[int, ...]]:
        return deployed_shapes(self.sized.setting)


SENTINEL = Repeated(Workload("nor_conv_3x3", 32, 32, 16, 16), 8)


def is_chainable(workload: Workload) -> bool:
    """Return whether the operation's output can be its next input."""
    same_shape = workload.stride == 1 and workload.in_channels == workload.out_channels
    return same_shape and operation_of(workload).chainable


def is_branchable(workload: Workload) -> bool:
    """Return whether copies can read one tensor and be timed in a network's layout although they make no chain.

    That is so for candidates that write a convolution's result and that, reading the same tensor, share nothing.
    """
    operation = operation_of(workload)
    alone = num_inputs(workload) == 1 and operation.begins_with is None
    return operation.candidate and alone and "conv" in operation.ends_with


def keeps_layout(workload: Workload) -> bool:
    """Return whether the output's memory layout may follow the input's: after pooling, say, or adding the input.

    A convolution writes its runtime's own layout. Elementwise operations take the same time in each, and vectors have
    one layout alone.
    """
    operation = operation_of(workload)
    return operation.reads == "images" and not operation.elementwise and operation.ends_with[-1:] != ("conv",)


def repetitions(workload: Workload) -> tuple[int, int]:
    """Return the two numbers of copies between which the slope is taken.

    The slope over a chain excludes the layout changes at its ends, which a network does not repeat. A chain of more
    weights than networks have would read them from farther away than a network does: in MobileNetV3's last stage, 12
    copies of its widest block took a third longer each than 6 (OpenVINO, ONNX Runtime).
    """
    if not is_chainable(workload):
        return (1, 4)
    operation = operation_of(workload)
    if operation.elementwise or operation.pools:
        return (4, 28)
    weights = sum(layer.weights for layer in counted_layers(workload))
    return (4, 12) if 12 * weights <= MOST_WEIGHTS else (2, 6)


def repeated(workload: Workload, spec: DeviceSpec) -> dict[str, Repeated]:
    """Return the two models between which the slope is taken, by name.

    In int8 the copies are not chained for a runtime that converts to floats and back where a network adds or pools: in
    a chain it leaves these conversions out.
    """
    converts = spec.precision == INT8 and not (spec.runtime.int8 and spec.runtime.int8.chains)
    apart = converts and not operation_of(workload).elementwise
    return {f"{workload.key}@{copies}": Repeated(workload, copies, apart) for copies in repetitions(workload)}


def torch_model(model: Assembled, batch: int) -> tuple[nn.Module, list[Tensor]]:
    """Return the model as a torch module with random weights, and inputs for it."""
    module = model.module(lambda workload: randomise(build_operation(workload)))
    return module, [zeros(shape, batch) for shape in model.input_shapes()]


def write_model(model: Assembled, spec: DeviceSpec, path: Path) -> None:
    """Write a model for the runtime of ``spec`` unless ``path`` exists. Exported operations stay in ``pieces/`` there.

    The sentinel measures the speed of the machine. On a CPU it stays in single precision when the others are in int8.
    """
    runtime, pieces = spec.runtime, path.parent / "pieces"
    if path.exists():
        return
    convert: Callable[[Path, Path], None] | None = None if runtime.suffix == ".onnx" else runtime.convert
    if spec.file_precision == FLOAT16:
        # Copies with inputs of their own would each include a cast of theirs; a network's casts ship with it.
        convert = partial(convert_to_float16, keep_inputs=isinstance(model, Whole))
    elif runtime.int8 and spec.precision == INT8 and (model != SENTINEL or spec.provider != CPU_PROVIDER):
        convert = partial(_to_int8, runtime.int8)
    if convert:
        with tempfile.TemporaryDirectory(prefix="hwnas-") as name:
            floats = Path(name) / "model.onnx"
            assemble_onnx(model, floats, pieces, spec.batch, opset=spec.opset)
            convert(floats, path)
    elif runtime.suffix == ".onnx":
        assemble_onnx(model, path, pieces, spec.batch, opset=spec.opset)
    else:
        torch.manual_seed(0)
        runtime.write(*torch_model(model, spec.batch), path)


def _to_int8(int8: Int8, floats: Path, path: Path) -> None:
    int8.quantize(floats, path, [random_feeds(floats)])
