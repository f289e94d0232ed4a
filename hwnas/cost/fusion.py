"""Effects of a runtime's graph optimiser on the cost of a cell.

Two rewrites, found in the optimised graphs of ONNX Runtime and OpenVINO; torch run op by op has neither.

* share: two operations without weights that read the same tensor give the same result, so one of them runs (common
  subexpressions). This applies to pooling and to the ReLU before every convolution. A node whose only input is a
  skip_connect is that operation's input tensor.
* fuse: a convolution adds another tensor, and applies a ReLU, as it writes its result. The addition after a
  convolution is almost free, and so is a ReLU that is the only reader of a convolution's result.

All facts about an operation are those that it declares (hwnas.spaces.operation); one that declares none shares nothing
and fuses with nothing.
"""

from __future__ import annotations

from typing import Literal

from hwnas.spaces import CellInstance, Network, Workload, get_operation, operation_of
from hwnas.spaces.builtin_operations import RELU
from hwnas.spaces.operation import registered_operations

Family = Literal["conv", "strided_conv", "pool", "max_pool", "skip", "relu", "sum", "fused_sum"]
FAMILIES: tuple[Family, ...] = ("conv", "strided_conv", "pool", "max_pool", "skip", "relu", "sum", "fused_sum")


def family(workload: Workload) -> Family:
    """The family of a candidate, by what bounds its speed and how it was timed: one factor corrects all its entries.

    Strided convolutions cannot be timed in a chain, only side by side. In a chain of maxima neighbours soon become
    equal, which some runtimes process faster.
    """
    declared = operation_of(workload).family
    return "strided_conv" if declared == "conv" and workload.stride > 1 else declared


def piece_of(workload: Workload) -> Workload | None:
    """The operation without weights that a candidate begins with and can share: its ReLU, or its bare pooling."""
    operation, w = operation_of(workload), workload
    if operation.begins_with is None:
        return None
    first = operation if operation.begins_with == operation.name else get_operation(operation.begins_with)
    if first.elementwise:
        return Workload(first.op, w.in_channels, w.in_channels, w.height, w.width)
    return Workload(first.op, w.in_channels, w.in_channels, w.height, w.width, w.stride)


def piece_family(piece: Workload) -> Family:
    """The family of a piece: poolings are corrected like candidates, activations like ReLU."""
    return "relu" if operation_of(piece).elementwise else family(piece)


def begins_with_relu(workload: Workload) -> bool:
    return operation_of(workload).begins_with == RELU


def fuses_addition(workload: Workload) -> bool:
    """Return whether adding the operation's output to another tensor is almost free.

    True where the last layer is a convolution, or a batch norm, which runtimes turn into one.
    """
    return operation_of(workload).ends_with[-1:] in (("conv",), ("norm",))


def fuses_relu(workload: Workload) -> bool:
    """Return whether a ReLU is free if nothing else reads the operation's output.

    True where a convolution wrote it, or an addition that is fused into one.
    """
    return fuses_addition(workload) or operation_of(workload).ends_with[-2:] == ("conv", "add")


def entry_holds_piece(workload: Workload) -> bool:
    """Return whether a candidate's entry, timed in a chain, includes its piece; a fused ReLU takes no time."""
    return not (begins_with_relu(workload) and fuses_relu(workload))


def pieces(network: Network) -> list[Workload]:
    """The pieces of all candidates that are not candidates themselves, sorted: a table needs them too."""
    candidates = _candidates(network)
    return sorted({piece for workload in candidates if (piece := piece_of(workload))} - candidates)


def piece_names(network: Network) -> list[str]:
    """The operations that candidates begin with: ReLU, which is always the first, then the others as registered."""
    order = [operation.op for operation in registered_operations()]
    found = {piece.op for workload in _candidates(network) if (piece := piece_of(workload))}
    return [RELU, *sorted(found - {RELU}, key=order.index)]


def _candidates(network: Network) -> set[Workload]:
    cells = [part for part in network.parts if isinstance(part, CellInstance)]
    return {workload for cell in cells for workload in cell.workloads()}
