"""The metrics of a space at some sizes that need no table: counts of the real modules, and memory."""

from __future__ import annotations

from hwnas.cost.memory import MEMORY_ACCESS, memory_access_model
from hwnas.cost.metrics import Metric
from hwnas.cost.model import network_model
from hwnas.cost.peak import PEAK_MEMORY, peak_model
from hwnas.networks.count import count_workload
from hwnas.spaces import SizedSpace


def count_metrics(sized: SizedSpace) -> dict[str, Metric]:
    """One model for every metric that no device decides: macs, params, memory_access_bytes, peak_activation_bytes."""
    counts = {workload: count_workload(workload) for workload in sized.network.workloads()}
    return {
        "macs": network_model(sized, "macs", counts, f"macs_{sized.space.macs_convention}"),
        "params": network_model(sized, "params", counts, "params"),
        MEMORY_ACCESS: memory_access_model(sized),
        PEAK_MEMORY: peak_model(sized),
    }
