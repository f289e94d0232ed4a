"""What a finished search has learnt, read back: the probability of every operation on every edge, for every target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hwnas.budgets.budget import Budget
from hwnas.cost.devices import LATENCY, joint_models, latency_on, table_file, targets_of
from hwnas.cost.metrics import Metric, build_metrics
from hwnas.cost.model import Array
from hwnas.errors import HwnasError
from hwnas.files import read_json
from hwnas.runs.finished import read_targets
from hwnas.spaces import Architecture, SizedSpace
from hwnas.tables.io import read_table
from hwnas.tables.schema import LatencyTable
from hwnas.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class TargetProbabilities:
    """One target of a search: ``log_probability[kind]`` is [E, K], ``chosen`` what the run derived from it."""

    budget: Budget
    log_probability: Mapping[str, Array]
    chosen: Architecture


@dataclass(frozen=True)
class SearchProbabilities:
    """A finished search: its targets, its space and tables, and how many inputs its rules give every node.

    ``tables`` go by the metric that each tells: ``latency_ms``, or ``latency_ms@phone`` and so on.
    """

    sized: SizedSpace
    tables: Mapping[str, LatencyTable]
    costs: Mapping[str, Metric]
    inputs_per_node: int | None
    targets: list[TargetProbabilities]


def read_probabilities(folder: Path, by_device: bool = False) -> SearchProbabilities:
    """Read a run of ``hwnas search``, or one budget's folder in it (then that target alone).

    With ``by_device``, and where a budget of the search names devices, the costs are those on all of the run's devices,
    each latency named by its own; else those on the targets' device.

    Raises HwnasError when the folder holds no finished search, one for several devices, or no checkpoint that is of it.
    """
    finished = read_targets(folder)
    joint = all(target.joint for target in finished)
    if not joint and len({(target.device, target.joint) for target in finished}) > 1:
        names = ", ".join(dict.fromkeys(device for target in finished for device in target.tables))
        raise HwnasError(f"{folder} is a search for several devices ({names})", "name the folder of one network in it")
    run = finished[0].place.parent
    again = f"run the search again: 'hwnas search --out {run}'"
    manifest = read_json(run / "manifest.json", again)
    try:
        digest = manifest["digest"]
        devices, asked = list(manifest["tables"]), targets_of(manifest["tables"], manifest["budgets"])
        inputs_per_node = manifest["recipe"]["inputs_per_node"]
    except (KeyError, TypeError, AttributeError) as error:
        raise HwnasError(f"{run / 'manifest.json'} is incomplete ({error})", again) from None
    state = Checkpoint(run / "checkpoint.pt", digest).load()
    if state is None:
        raise HwnasError(f"{run} keeps no checkpoint.pt, in which a search's probabilities are", again)
    sized, cells = finished[0].sized, finished[0].sized.space.cells
    targets = []
    for target in finished:
        try:
            log_p = state["log_probability"][asked.index((tuple(target.tables), target.budget.text))]
            if log_p is None:
                method = manifest["recipe"]["method"]
                raise HwnasError(
                    f"method {method} took its architecture from those it judged, not by probability",
                    "use a method that learns probabilities, such as snas",
                )
            log_probability = {k: log_p[k].numpy().reshape(len(cell.edges), -1) for k, cell in cells.items()}
        except (KeyError, IndexError, ValueError, AttributeError, RuntimeError) as error:
            raise HwnasError(f"checkpoint {run / 'checkpoint.pt'} is not of {target.place} ({error})", again) from None
        targets.append(TargetProbabilities(target.budget, log_probability, target.architecture))
    costs: Mapping[str, Metric]
    if by_device or joint:
        named = {device: read_table(run / table_file(devices, device)) for device in devices}
        costs = joint_models({device: build_metrics(table, sized) for device, table in named.items()})
        tables = {latency_on(device): table for device, table in named.items()}
    else:
        tables, costs = {LATENCY: next(iter(finished[0].tables.values()))}, finished[0].cost_models()
    return SearchProbabilities(sized, tables, costs, inputs_per_node, targets)
