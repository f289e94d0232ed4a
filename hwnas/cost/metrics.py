"""Every metric that a budget can limit: those of a device's table, and those that the network alone decides."""

from __future__ import annotations

from hwnas.cost.memory import MEMORY_ACCESS, memory_access_model
from hwnas.cost.model import CostModel, build_cost_models
from hwnas.spaces import SearchSpace, Setting
from hwnas.tables.schema import LatencyTable


def build_metrics(table: LatencyTable, space: SearchSpace, setting: Setting) -> dict[str, CostModel]:
    """One model for every metric: latency_ms, macs, params, memory_access_bytes.

    Raises HwnasError that lists the workloads of the space that the table lacks.
    """
    return {**build_cost_models(table, space, setting), MEMORY_ACCESS: memory_access_model(space, setting)}
