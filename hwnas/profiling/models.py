"""The models that are timed: each workload repeated, so that a slope over the repetitions is its latency alone."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from hwnas.networks.serialize import write_onnx, write_program
from hwnas.operations import build_operation, num_inputs
from hwnas.spaces import Workload

SENTINEL = Workload("nor_conv_3x3", 32, 32, 16, 16)
SENTINEL_COPIES = 8


class Chain(nn.Module):
    """One operation after another, as in a network; what a second input gets is the second input again."""

    def __init__(self, operations: list[nn.Module]) -> None:
        super().__init__()
        self.operations = nn.ModuleList(operations)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        for operation in self.operations:
            x = operation(x, *others)
        return x


class Parallel(nn.Module):
    """Operations side by side, each on inputs of its own: for those that cannot follow themselves."""

    def __init__(self, operations: list[nn.Module], inputs_each: int) -> None:
        super().__init__()
        self.operations = nn.ModuleList(operations)
        self.inputs_each = inputs_each

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            operation(*inputs[number * self.inputs_each : (number + 1) * self.inputs_each])
            for number, operation in enumerate(self.operations)
        )


def is_chainable(workload: Workload) -> bool:
    """Whether the operation's output can be its next input."""
    return workload.stride == 1 and workload.in_channels == workload.out_channels and "linear" not in workload.op


def repetitions(workload: Workload) -> tuple[int, int]:
    """The two numbers of copies between which the slope is taken.

    Leaving out the first copies of a chain leaves out the layout changes at its ends, which a network does not repeat.
    """
    if not is_chainable(workload):
        return (1, 4)
    cheap = workload.op == "sum" or "pool" in workload.op
    return (4, 28) if cheap else (4, 12)


def timed_module(workload: Workload, copies: int, batch: int) -> tuple[nn.Module, list[Tensor]]:
    """The module with that many copies of a workload, random weights, and its inputs."""
    operations = [randomise(build_operation(workload)) for _ in range(copies)]
    each = num_inputs(workload)
    shape = (batch, workload.in_channels, workload.height, workload.width)
    if is_chainable(workload):
        return Chain(operations), [torch.zeros(shape) for _ in range(each)]
    return Parallel(operations, each), [torch.zeros(shape) for _ in range(each * copies)]


def randomise(module: nn.Module) -> nn.Module:
    """Weights that keep activations at a steady size through a long chain: neither zeros nor denormals are timed."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return module


def write_model(module: nn.Module, inputs: list[Tensor], path: Path) -> None:
    """Write for the runtime that the file's ending names, unless an earlier run has done so."""
    if not path.exists():
        (write_onnx if path.suffix == ".onnx" else write_program)(module, inputs, path)
