"""The objectives of a benchmark's searches: planned from tables and budgets, written to manifests, read back.

A search within one budget on one device, or within none, has one target without an id, and its settings are ``table``
and ``budget``. Any other has the settings ``tables`` and ``targets``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hwnas.benchmark.schema import SearchSettings, SearchTarget
from hwnas.budgets.budget import Budget
from hwnas.budgets.text import names_devices
from hwnas.cost.build import CostFunction, build_metrics, joint_models
from hwnas.cost.counts import count_metrics
from hwnas.runs.request import build_objectives
from hwnas.runs.schema import Limits
from hwnas.search.objective import Objective
from hwnas.spaces import SizedSpace
from hwnas.tables.schema import LatencyTable


def plan_objectives(
    tables: Mapping[str, LatencyTable], budgets: Sequence[str], target: SizedSpace
) -> tuple[list[Objective], list[str]]:
    """Return an objective for every budget on every device, and a line that describes each.

    ``target`` is the network that the budgets are about. Without tables there is one objective without limits. Raises
    HwnasError for a budget that cannot be read or met, and for one that is given twice.
    """
    if not tables:
        return [Objective("no device", Budget("none", {}), count_metrics(target), target_sized=target)], []
    objectives, lines = build_objectives(tables, budgets, target)
    if len(objectives) == 1 and not names_devices(budgets[0]):
        objectives = [replace(objectives[0], target="")]
    return objectives, lines


def describe_targets(objectives: Sequence[Objective], tables: Mapping[str, LatencyTable]) -> dict[str, Any]:
    """Return the fields of a search's settings that say what its targets are; tables by their hashes."""
    hashes = {name: table.sha256 for name, table in tables.items()}
    if not objectives[0].target:
        return {"table": next(iter(hashes.values()), None), "budget": describe_budget(objectives[0].budget)}
    targets = [SearchTarget(target=o.target, device=o.device, budget=describe_budget(o.budget)) for o in objectives]
    return {"tables": hashes, "targets": targets}


def describe_budget(budget: Budget) -> Limits:
    return Limits(text=budget.text, limits=dict(budget.limits))


def read_objectives(
    settings: SearchSettings, tables: Mapping[str, LatencyTable], target: SizedSpace
) -> list[Objective]:
    """Return the objectives of the settings in a manifest, with its latency tables."""
    if settings.budget:
        table = next(iter(tables.values()), None)
        device = table.device.name if table else "no device"
        return [Objective(device, _budget(settings.budget), cost_models(target, table), target_sized=target)]
    models = {name: build_metrics(table, target) for name, table in tables.items()}
    objectives = []
    for row in settings.targets or ():
        budget = _budget(row.budget)
        joint = {device: models[device] for device in budget.devices}
        costs = joint_models(joint) if joint else models[row.device]
        objectives.append(Objective(row.device, budget, costs, row.target, target))
    return objectives


def cost_models(sized: SizedSpace, table: LatencyTable | None) -> dict[str, CostFunction]:
    """Return the cost model of every metric of a table, or without one those of the network alone."""
    if table:
        return build_metrics(table, sized)
    return count_metrics(sized)


def _budget(limits: Limits) -> Budget:
    return Budget(limits.text, limits.limits)
