"""Costs at another number of classes than a table was made for: the head carried over by its size.

Networks that differ in the number of classes alone differ in their head alone: in the linear layer after its pooling.
How much longer a larger head takes is not known without timing it, but it has bounds. It takes at least the time of the
smaller one, where starting it and pooling are what takes time; and at most as many times as long as it moves more bytes
(hwnas.cost.memory), where moving them is. The carried cost is the middle of the two, half their distance its error.

A table of whole networks does not know its head's part. There a larger head adds at least nothing, and at most the time
that the whole network takes for as many bytes: its convolutions compute more on every byte than a linear layer does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from hwnas.cost.memory import memory_access_bytes, memory_access_model
from hwnas.cost.metric import LATENCY
from hwnas.cost.model import CostModel, build_cost_models
from hwnas.spaces import SizedSpace, Workload
from hwnas.tables.network_key import fit_command, networks_of, profile_command
from hwnas.tables.schema import Entry, LatencyTable


@dataclass(frozen=True)
class CarriedHead:
    """The head of a network that a table was not made for, carried over from that of the ``known`` network.

    It adds ``added_ms`` to the latency of every network; ``error_ms`` is the half width of the 95 % interval of that.
    ``fix`` is the advice that makes it known.
    """

    known: SizedSpace
    sized: SizedSpace
    added_ms: float
    error_ms: float
    fix: str

    def describe(self) -> str:
        """Return one line for users of the table."""
        return (
            f"made for {self.known.setting.classes} classes, not {self.sized.setting.classes}: the head is carried "
            f"over by its size, which adds {self.added_ms:.2g} ± {self.error_ms:.2g} ms to every network; {self.fix} "
            "to know it better"
        )


def carry_head(table: LatencyTable, sized: SizedSpace) -> tuple[LatencyTable, CarriedHead | None]:
    """Return the table with the costs of a network, carried over from one that differs in the number of classes alone.

    The returned table is for cost models and is not written. A table that has the network, or none that differs in the
    classes alone, is returned as it is, with None.
    """
    known, head = {entry.workload: entry for entry in table.entries}, sized.network.head
    missing = [workload for workload in sized.network.workloads() if workload not in known]
    if sized.key in table.edge_costs or not missing:
        return table, None
    named = [network for network in networks_of(table, sized.space) if _differs_in_classes(network, sized)]
    fitted = [network for network in named if network.key in table.edge_costs]
    if fitted:
        return _with_edge_costs(table, _nearest(fitted, sized), sized)
    others = [w.out_channels for w in known if replace(w, out_channels=head.out_channels) == head]
    if missing != [head] or not others:
        return table, None
    corrected = [network for network in named if network.key in table.correction and network.network.head in known]
    nearest = _nearest(corrected or [sized.resized(classes=classes) for classes in others], sized)
    return _with_entry(table, known[nearest.network.head], nearest, sized)


def head_notes(tables: Mapping[str, LatencyTable], sized: SizedSpace) -> list[str]:
    """Return one line for every table, by its name, whose head is carried over to a network."""
    found = {name: carry_head(table, sized)[1] for name, table in tables.items()}
    return [f"{name}: {carried.describe()}" for name, carried in found.items() if carried]


def known_network(table: LatencyTable, sized: SizedSpace) -> SizedSpace:
    """Return the network whose timed networks and accuracy a table states for ``sized``: itself, or the known one."""
    _, carried = carry_head(table, sized)
    return carried.known if carried else sized


def _differs_in_classes(one: SizedSpace, other: SizedSpace) -> bool:
    """Return whether two networks differ in the number of classes and in nothing else."""
    return one != other and one.resized(classes=other.setting.classes) == other


def _nearest(networks: Iterable[SizedSpace], sized: SizedSpace) -> SizedSpace:
    """Return the network whose number of classes has the ratio nearest to 1."""
    return min(networks, key=lambda network: abs(math.log(network.setting.classes / sized.setting.classes)))


def _with_entry(
    table: LatencyTable, entry: Entry, known: SizedSpace, sized: SizedSpace
) -> tuple[LatencyTable, CarriedHead]:
    """Add an entry for the head, made from that of the known network, and the known network's correction."""
    before, head = entry.workload, sized.network.head
    ratio = memory_access_bytes(head) / memory_access_bytes(before)
    bounds_ms = sorted((entry.latency_ms, entry.latency_ms * ratio))
    middle_ms, half_ms = sum(bounds_ms) / 2, (bounds_ms[1] - bounds_ms[0]) / 2
    weights, biases = _more_weights(before, head)
    larger = entry.model_copy(
        update={
            "out_channels": head.out_channels,
            "latency_ms": middle_ms,
            "error_ms": None if entry.error_ms is None else entry.error_ms * (1 + ratio) / 2 + half_ms,
            "p10_ms": bounds_ms[0],
            "p90_ms": bounds_ms[1],
            "samples": 0,
            "macs": entry.macs + weights,
            "macs_conv_linear": entry.macs_conv_linear + weights + biases,
            "params": entry.params + weights + biases,
        }
    )
    correction = table.correction.get(known.key)
    scale = correction.scale if correction else 1.0
    added_ms = scale * (middle_ms - entry.latency_ms)
    carried = CarriedHead(known, sized, added_ms, scale * half_ms, profile_command(sized))
    corrections = table.correction | ({sized.key: correction} if correction else {})
    return table.model_copy(update={"entries": [*table.entries, larger], "correction": corrections}), carried


def _with_edge_costs(table: LatencyTable, known: SizedSpace, sized: SizedSpace) -> tuple[LatencyTable, CarriedHead]:
    """Add edge costs with the base of the known network's, and what the head adds."""
    costs, before, head = table.edge_costs[known.key], known.network.head, sized.network.head
    more_bytes = memory_access_bytes(head) - memory_access_bytes(before)
    usual_ms = max(_mean(build_cost_models(table, known)[LATENCY.name]), 0.0)
    most_ms = usual_ms * more_bytes / _mean(memory_access_model(known))
    carried = CarriedHead(known, sized, most_ms / 2, abs(most_ms) / 2, fit_command(sized))
    weights, biases = _more_weights(before, head)
    macs = weights if sized.space.macs_convention == "fvcore" else weights + biases
    larger = costs.model_copy(
        update={
            "base_ms": costs.base_ms + carried.added_ms,
            "base_macs": costs.base_macs + macs,
            "base_params": costs.base_params + weights + biases,
        }
    )
    return table.model_copy(update={"edge_costs": {**table.edge_costs, sized.key: larger}}), carried


def _more_weights(before: Workload, head: Workload) -> tuple[int, int]:
    """Return how many more weights, which are its multiply-accumulates, and biases a head's linear layer has."""
    more = head.out_channels - before.out_channels
    return head.in_channels * more, more


def _mean(model: CostModel) -> float:
    """Return the mean of the decomposable cost over all architectures."""
    base, edges = model.linear()
    return base + float(sum(costs.mean(axis=1).sum() for costs in edges.values()))
