"""Every metric that a budget can limit: those of a device's table, and those that the network alone decides."""

from __future__ import annotations

from hwnas.cost.memory import MEMORY_ACCESS, memory_access_model
from hwnas.cost.model import CostModel, build_cost_models
from hwnas.cost.peak import PEAK_MEMORY, PeakModel, peak_model
from hwnas.spaces import SizedSpace
from hwnas.tables.schema import LatencyTable

Metric = CostModel | PeakModel


def build_metrics(table: LatencyTable, sized: SizedSpace) -> dict[str, Metric]:
    """One model for every metric: latency_ms, macs, params, memory_access_bytes, peak_activation_bytes.

    Raises HwnasError that lists the workloads of the space that the table lacks.
    """
    return {
        **build_cost_models(table, sized),
        MEMORY_ACCESS: memory_access_model(sized),
        PEAK_MEMORY: peak_model(sized),
    }
