"""What a runtime's optimiser makes of a cell, as far as it changes what the cell costs.

Two rewrites, found in the optimised graphs of ONNX Runtime and OpenVINO; torch run op by op has neither.

* share: two operations without weights that read the same tensor give the same result, so one of them runs (common
  subexpressions). That goes for pooling and for the ReLU in front of every convolution. A node whose only input is a
  skip_connect is the tensor it skips from.
* fuse: a convolution adds another tensor, and applies a ReLU, as it writes its result. The addition behind a
  convolution is almost free, and so is a ReLU that alone reads what a convolution wrote.
"""

from __future__ import annotations

from typing import Literal

from hwnas.spaces import CellInstance, Network, Workload

Family = Literal["conv", "strided_conv", "pool", "max_pool", "skip", "relu", "sum", "fused_sum"]
FAMILIES: tuple[Family, ...] = ("conv", "strided_conv", "pool", "max_pool", "skip", "relu", "sum", "fused_sum")

PIECES = ("relu", "max_pool_3x3", "avg_pool_3x3")  # what can be shared: operations without weights


def family(workload: Workload) -> Family:
    """The kind of candidate, by what bounds its speed and how it was timed: entries of one are off by one factor.

    (What halves its input cannot be timed in a chain, only side by side. A chain of maxima soon has equal neighbours,
    which some runtimes are quicker with.)
    """
    if workload.op == "factorized_reduce":
        return "skip"
    if is_pool(workload):
        return "max_pool" if workload.op.startswith("max_pool") else "pool"
    return "conv" if workload.stride == 1 else "strided_conv"


def is_pool(workload: Workload) -> bool:
    """Whether the candidate is a pooling; what it begins with is not a ReLU."""
    return workload.op.startswith(("avg_pool", "max_pool"))


def piece_of(workload: Workload) -> Workload:
    """The part without weights that a candidate begins with: its ReLU, or its pooling (without the batch norm)."""
    w = workload
    if is_pool(w):
        return Workload(w.op.removesuffix("_bn"), w.in_channels, w.out_channels, w.height, w.width, w.stride)
    return Workload("relu", w.in_channels, w.in_channels, w.height, w.width)


def ends_in_conv(workload: Workload) -> bool:
    """Whether the last thing the operation does is a convolution: its batch norm is folded in, or becomes one."""
    return workload.op not in PIECES


def pieces(network: Network) -> list[Workload]:
    """What candidates begin with, once each, sorted: what a table needs beside the network's workloads."""
    places = [part for part in network.parts if isinstance(part, CellInstance)]
    timed = {w for place in places for candidates in place.candidates for w in candidates.values() if w}
    return sorted({piece_of(workload) for workload in timed} - timed)
