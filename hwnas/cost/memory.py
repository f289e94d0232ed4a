"""Memory access cost: the bytes that a network's layers move, after SNAS (Xie et al., ICLR 2019), who call it MAC.

For every layer: activations read + activations written + weights, for one image, in float32. As in SNAS's published
code (operations.py),

* batch norm is folded into the convolutions before it, and biases, a few numbers a layer, are left out;
* a ReLU belongs to the layers that read what it writes, which read its input instead; the two halves of
  ``factorized_reduce`` are written where they belong;
* every layer moves each of its tensors once, without a cache.

In contrast to that code, a ``skip_connect`` that is an identity moves nothing, because a deployed network does not run
it; and additions, concatenations, a batch norm after pooling, stem, preprocessing and classifier are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.cost.metric import MEMORY_ACCESS
from hwnas.cost.model import CostModel, network_model
from hwnas.spaces import SizedSpace, Workload
from hwnas.spaces.operation import counted_layers

VALUE_BYTES = 4  # float32
PART_OF_OTHERS = ("relu", "activation", "join")


@dataclass(frozen=True)
class Traffic:
    """Bytes that a workload moves for one image."""

    memory_access_bytes: int


def memory_access_bytes(workload: Workload) -> int:
    """Return the bytes that a workload's layers read, write and hold as weights, for one image.

    Raises HwnasError for an operation whose layers are not known.
    """
    counted = [layer for layer in counted_layers(workload) if layer.kind not in PART_OF_OTHERS]
    return VALUE_BYTES * sum(sum(c.read_values) + c.written_values + c.weights for c in counted)


def memory_access_model(sized: SizedSpace) -> CostModel:
    """Build the cost model of memory access; it needs no table.

    Every chosen edge and its addition count, dead or not, as for macs and params.
    """
    traffic = {workload: Traffic(memory_access_bytes(workload)) for workload in sized.network.workloads()}
    return network_model(sized, MEMORY_ACCESS, traffic, "memory_access_bytes")
