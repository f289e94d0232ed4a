"""Memory access cost: the bytes that a network's layers move, after SNAS (Xie et al., ICLR 2019), who call it MAC.

For every layer: activations read + activations written + weights, for one image, in float32. As in SNAS's published
code (operations.py),

* batch norm is folded into the convolutions before it, and biases, a few numbers a layer, are left out;
* a ReLU belongs to the layers that read what it writes, which read its input instead; the two halves of
  ``factorized_reduce`` are written where they belong;
* every layer moves each of its tensors once, as if nothing stayed in a cache.

Unlike there, a ``skip_connect`` that is an identity moves nothing, for a deployed network does not run it; and
additions, concatenations, a batch norm behind pooling, stem, preprocessing and classifier are counted, too.
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
    """What a workload moves for one image."""

    memory_access_bytes: int


def memory_access_bytes(workload: Workload) -> int:
    """The bytes that a workload's layers read, write and hold as weights, for one image.

    Raises HwnasError for an operation whose layers are not known.
    """
    counted = [layer for layer in counted_layers(workload) if layer.kind not in PART_OF_OTHERS]
    return VALUE_BYTES * sum(sum(c.read_values) + c.written_values + c.weights for c in counted)


def memory_access_model(sized: SizedSpace) -> CostModel:
    """The memory access cost of every architecture; no table is needed.

    Every chosen edge counts, dead or not, and so does its addition, like macs and params.
    """
    traffic = {workload: Traffic(memory_access_bytes(workload)) for workload in sized.network.workloads()}
    return network_model(sized, MEMORY_ACCESS, traffic, "memory_access_bytes")
