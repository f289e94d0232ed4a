"""Metrics of a sized space that need no table: counts of the real modules, and memory."""

from __future__ import annotations

from hwnas.cost.build import CostFunction
from hwnas.cost.memory import memory_access_model
from hwnas.cost.metric import MACS, MEMORY_ACCESS, PARAMS, PEAK_MEMORY
from hwnas.cost.model import network_model
from hwnas.cost.peak import peak_model
from hwnas.networks.count import count_workload
from hwnas.spaces import SizedSpace


def count_metrics(sized: SizedSpace) -> dict[str, CostFunction]:
    """Build a model for every metric that depends on no device: MACs, parameters, memory access and peak memory."""
    counts = {workload: count_workload(workload) for workload in sized.network.workloads()}
    return {
        MACS.name: network_model(sized, MACS, counts, f"macs_{sized.space.macs_convention}"),
        PARAMS.name: network_model(sized, PARAMS, counts, "params"),
        MEMORY_ACCESS.name: memory_access_model(sized),
        PEAK_MEMORY.name: peak_model(sized),
    }
