"""Read back what a finished search has learned: the probability of every operation on every edge, for every target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas.budgets.budget import Budget
from hwnas.budgets.text import targets_of
from hwnas.cost.build import CostFunction, build_metrics, joint_models
from hwnas.cost.metric import LATENCY
from hwnas.cost.model import Array
from hwnas.errors import HwnasError
from hwnas.runs.derived import SavedNetwork
from hwnas.runs.folder import CHECKPOINT, table_file
from hwnas.runs.manifest_schema import Manifest
from hwnas.runs.read import read_networks
from hwnas.runs.records import read_manifest
from hwnas.spaces import Architecture, SizedSpace
from hwnas.tables.io import read_table
from hwnas.tables.schema import LatencyTable
from hwnas.text import quoted
from hwnas.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class TargetProbabilities:
    """One target of a search: ``log_probability[kind]`` is [E, K], ``chosen`` the architecture that the run derived."""

    budget: Budget
    log_probability: Mapping[str, Array]
    chosen: Architecture


@dataclass(frozen=True)
class SearchProbabilities:
    """The targets, space, tables and cost models of a finished search.

    ``tables`` are by the metric that each predicts: ``latency_ms``, or ``latency_ms@phone`` and so on.
    ``inputs_per_node`` is the number of inputs that the space's rules give every node, if they give one.
    """

    sized: SizedSpace
    tables: Mapping[str, LatencyTable]
    costs: Mapping[str, CostFunction]
    inputs_per_node: int | None
    targets: list[TargetProbabilities]


def read_probabilities(folder: Path, by_device: bool = False) -> SearchProbabilities:
    """Read a run of ``hwnas search``, or the folder of one target in it (then that target alone).

    With ``by_device``, and where a budget of the search names devices, the costs are those on all of the run's devices
    and every latency metric names its device; otherwise they are those on the targets' device.

    Raises HwnasError when the folder holds no finished search, one for several devices, or no checkpoint of it.
    """
    networks = read_networks(folder)
    joint = all(network.joint for network in networks)
    if not joint and len({(network.device, network.joint) for network in networks}) > 1:
        names = ", ".join(dict.fromkeys(device for network in networks for device in network.tables))
        raise HwnasError(f"{folder} is a search for several devices ({names})", "name the folder of one network in it")
    run, sized = networks[0].folder.parent, networks[0].sized
    fix = f"run the search again: `hwnas search --out {quoted(run)}`"
    manifest = read_manifest(run, fix)
    targets = _read_targets(networks, run, manifest, fix)
    costs: Mapping[str, CostFunction]
    if by_device or joint:
        named = {device: read_table(run / table_file(manifest.tables, device)) for device in manifest.tables}
        costs = joint_models({device: build_metrics(table, sized) for device, table in named.items()})
        tables = {LATENCY.on(device).name: table for device, table in named.items()}
    else:
        tables, costs = {LATENCY.name: next(iter(networks[0].tables.values()))}, networks[0].cost_models()
    return SearchProbabilities(sized, tables, costs, manifest.recipe.inputs_per_node, targets)


def _read_targets(
    networks: Sequence[SavedNetwork], run: Path, manifest: Manifest, fix: str
) -> list[TargetProbabilities]:
    """Read the probabilities of some networks from the checkpoint of their search."""
    state: Mapping[str, Any] | None = Checkpoint(run / CHECKPOINT, manifest.digest).load()
    if state is None:
        raise HwnasError(f"{run} has no checkpoint.pt, which holds the probabilities of a search", fix)
    order = targets_of(manifest.tables, manifest.budgets)
    targets = []
    for network in networks:
        cells = network.sized.space.cells
        try:
            log_p = state["log_probability"][order.index((tuple(network.tables), network.budget.text))]
            if log_p is None:
                raise HwnasError(
                    f"method {manifest.recipe.method} selects its architecture by score, not by probability",
                    "use a method that learns probabilities, such as snas",
                )
            found = {kind: log_p[kind].numpy().reshape(len(cell.edges), -1) for kind, cell in cells.items()}
        except (KeyError, IndexError, ValueError, AttributeError, RuntimeError) as error:
            raise HwnasError(f"checkpoint {run / CHECKPOINT} is not of {network.folder} ({error})", fix) from None
        targets.append(TargetProbabilities(network.budget, found, network.architecture))
    return targets
