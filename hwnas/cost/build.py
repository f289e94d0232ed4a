"""Cost models of every metric that a budget can limit: from a device's table, or from the network itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from hwnas.cost.carried_head import carry_head
from hwnas.cost.memory import memory_access_model
from hwnas.cost.metric import LATENCY, MEMORY_ACCESS, METRICS, PEAK_MEMORY, Metric, register_metric
from hwnas.cost.model import CostModel, build_cost_models
from hwnas.cost.peak import PeakModel, peak_model
from hwnas.spaces import SizedSpace
from hwnas.tables.schema import LatencyTable

CostFunction = CostModel | PeakModel
Builder = Callable[[LatencyTable, SizedSpace], CostModel | None]

# Builders of measured metrics, by name.
_builders: dict[str, Builder] = {LATENCY.name: lambda table, sized: build_cost_models(table, sized)[LATENCY.name]}


def register_measured(metric: Metric, build: Builder) -> None:
    """Add a metric that devices measure. ``build`` returns its cost model, or None where nothing was measured.

    Raises HwnasError when the metric's name, option or a unit is taken.
    """
    register_metric(metric)
    _builders[metric.name] = build


def unregister_measured(metric: Metric) -> None:
    """Remove a metric that ``register_measured`` added."""
    del METRICS[metric.name], _builders[metric.name]


def build_metrics(table: LatencyTable, sized: SizedSpace) -> dict[str, CostFunction]:
    """Build one model for every metric, by name: the measured ones, then counts and memory.

    Where the table was made for another number of classes, the head is carried over (hwnas.cost.carried_head). Raises
    HwnasError that lists the workloads of the space that the table lacks.
    """
    table, _ = carry_head(table, sized)
    measured = {name: build(table, sized) for name, build in _builders.items()}
    return {
        **{name: model for name, model in measured.items() if model is not None},
        **{name: model for name, model in build_cost_models(table, sized).items() if name != LATENCY.name},
        MEMORY_ACCESS.name: memory_access_model(sized),
        PEAK_MEMORY.name: peak_model(sized),
    }


def joint_models(models: Mapping[str, Mapping[str, CostFunction]]) -> dict[str, CostFunction]:
    """Combine the cost models of several devices, by name: every measured metric on each, the others once."""
    joint: dict[str, CostFunction] = {}
    for device, costs in models.items():
        for name, model in costs.items():
            if (metric := Metric.parse(name)).measured:
                joint[metric.on(device).name] = replace(model, metric=metric.on(device).name)
    first = next(iter(models.values()))
    return joint | {name: model for name, model in first.items() if not Metric.parse(name).measured}
