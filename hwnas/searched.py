"""What a finished search has learnt, read back: the probability of every operation on every edge, for every target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from hwnas.cost.budget import Budget
from hwnas.cost.metrics import Metric, build_metrics
from hwnas.cost.model import Array
from hwnas.errors import HwnasError
from hwnas.files import read_json
from hwnas.finished import read_targets
from hwnas.spaces import Architecture, SearchSpace, Setting
from hwnas.tables.schema import LatencyTable
from hwnas.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Searched:
    """One target of a search: ``log_probability[kind]`` is [E, K], ``chosen`` what the run derived from it."""

    budget: Budget
    log_probability: Mapping[str, Array]
    chosen: Architecture


@dataclass(frozen=True)
class Learnt:
    """A finished search: its targets, its space and table, and how many inputs its rules give every node."""

    space: SearchSpace
    setting: Setting
    table: LatencyTable
    costs: Mapping[str, Metric]
    inputs_per_node: int | None
    targets: list[Searched]


def read_learnt(folder: Path) -> Learnt:
    """Read a run of ``hwnas search``, or one budget's folder in it (then that target alone).

    Raises HwnasError when the folder holds no finished search, one for several devices, or no checkpoint that is of it.
    """
    finished = read_targets(folder)
    devices = list(dict.fromkeys(target.device for target in finished))
    if len(devices) > 1:
        raise HwnasError(
            f"{folder} is a search for several devices ({', '.join(devices)})", "name the folder of one network in it"
        )
    run = finished[0].place.parent
    again = f"run the search again: 'hwnas search --out {run}'"
    manifest = read_json(run / "manifest.json", again)
    try:
        digest = manifest["digest"]
        asked = [(device, text.strip()) for device in manifest["tables"] for text in manifest["budgets"]]
        inputs_per_node = manifest["recipe"]["inputs_per_node"]
    except (KeyError, TypeError, AttributeError) as error:
        raise HwnasError(f"{run / 'manifest.json'} is incomplete ({error})", again) from None
    state = Checkpoint(run / "checkpoint.pt", digest).load()
    if state is None:
        raise HwnasError(f"{run} keeps no checkpoint.pt, in which a search's probabilities are", again)
    space, setting = finished[0].space, finished[0].setting
    targets = []
    for target in finished:
        try:
            logits = state["logits"][asked.index((target.device, target.budget.text))]
            log_probability = {
                kind: torch.log_softmax(logits[kind].double(), dim=-1).numpy().reshape(len(cell.edges), -1)
                for kind, cell in space.cells.items()
            }
        except (KeyError, IndexError, ValueError, AttributeError, RuntimeError) as error:
            raise HwnasError(f"checkpoint {run / 'checkpoint.pt'} is not of {target.place} ({error})", again) from None
        targets.append(Searched(target.budget, log_probability, target.architecture))
    costs = build_metrics(finished[0].table, space, setting)
    return Learnt(space, setting, finished[0].table, costs, inputs_per_node, targets)
