"""The request for a search, and the objectives of its targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hwnas.budgets.budget import Budget, Preview, format_amount, parse_budget, preview, share_within
from hwnas.budgets.text import names_devices, targets_of
from hwnas.cost.build import build_metrics, joint_models
from hwnas.cost.peak import PeakModel
from hwnas.errors import HwnasError
from hwnas.export.opset import opset_for
from hwnas.recipe import Recipe
from hwnas.runs.folder import target_id
from hwnas.search.objective import Objective
from hwnas.spaces import SizedSpace
from hwnas.tables.schema import LatencyTable


@dataclass(frozen=True)
class SearchSizes:
    """The sizes of the search network that the user asked for; None for usual. ``images`` are [C, H, W]."""

    setting: str | None = None
    channels: int | None = None
    depth: int | None = None
    images: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class SearchRequest:
    """The inputs of a search: the target network, latency tables by device name, images, budgets and a recipe.

    ``target_sized`` is the network of the tables, with the sizes that the user changed; ``fixed_sizes`` are the fields
    of its setting about images that the user gave, which images do not change (hwnas.runs.two_networks).
    ``target_data_spec`` names the images of the target network where they are not those of the search.

    A budget that names devices gives one target for these; every other budget gives one target for each device.
    ``plugin`` is the user's Python file that registered choices of the recipe. ``executor`` names where finalists are
    trained (hwnas.jobs), ``baselines`` is that of the recipe's finalists.
    """

    target_sized: SizedSpace
    tables: Mapping[str, LatencyTable]
    data_spec: str
    budgets: list[str]
    recipe: Recipe
    verify: bool
    plugin: Path | None = None
    target_data_spec: str | None = None
    fixed_sizes: frozenset[str] = frozenset()
    search_sizes: SearchSizes = SearchSizes()
    executor: str = "local"
    baselines: bool | None = None


def build_objectives(
    tables: Mapping[str, LatencyTable], budgets: Sequence[str], target_sized: SizedSpace
) -> tuple[list[Objective], list[str]]:
    """Return an objective on the target network for every target of a run, and a line that describes each budget.

    Raises HwnasError for a budget that cannot be read or met, and when two budgets would share a folder.
    """
    models = {device: build_metrics(table, target_sized) for device, table in tables.items()}
    previews = {device: preview(costs) for device, costs in models.items()}
    joint_previews = preview(joint_models(models)) if any(map(names_devices, budgets)) else {}
    objectives, lines = [], []
    for devices, text in targets_of(tables, budgets):
        joint = names_devices(text)
        opset_for({device: tables[device] for device in devices})  # raises before the search
        spreads = joint_previews if joint else previews[devices[0]]
        budget = parse_budget(text, spreads)
        costs = joint_models({device: models[device] for device in devices}) if joint else models[devices[0]]
        target = target_id(tables, devices[0], text)
        objectives.append(Objective(", ".join(devices), budget, costs, target, target_sized))
        prefix = f"{devices[0]}, " if len(tables) > 1 and not joint else ""
        lines.append(prefix + describe_budget(budget, spreads))
    ids = [objective.target for objective in objectives]
    if twice := next((target for target in ids if ids.count(target) > 1), None):
        raise HwnasError(f"two budgets are the same, or would share the folder {twice}", "give each --budget once")
    return objectives, lines


def describe_budget(budget: Budget, previews: Mapping[str, Preview]) -> str:
    """Return a line with the limits of a budget and the number of architectures that keep it."""
    metric = next(iter(budget.limits))
    spread = previews[metric]
    share = share_within(previews, budget)
    total = spread.model.space.num_architectures
    number = f"{round(share * total):,} of {total:,}" if spread.exact else f"about {share:.1%} of all"
    peaks = [m for m in budget.limits if isinstance(previews[m].model, PeakModel)]
    note = (
        f"; {', '.join(peaks)} is not a sum over edges and not in the loss; only derivation enforces it"
        if peaks
        else ""
    )
    return (
        f"budget {budget.text}: {budget.describe()}; {number} architectures keep it "
        f"(the space: {format_amount(metric, spread.least)} to {format_amount(metric, spread.greatest)}){note}"
    )
