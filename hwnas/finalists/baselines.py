"""Baselines: networks within a target's limits that need no search, trained as its finalists are.

They show what the search was worth. Every target has three: an architecture drawn at random, all within the limits
equally likely, and the two with most multiply-accumulates and most parameters on live edges, which an integer program
finds exactly (hwnas.budgets.derive).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.budgets.derive import largest
from hwnas.compute.seeds import Purpose, numpy_generator
from hwnas.cost.build import CostFunction
from hwnas.cost.metric import MACS, PARAMS
from hwnas.cost.model import CostModel
from hwnas.finalists.candidates import Candidates
from hwnas.recipe import Finalists
from hwnas.search.search import Search
from hwnas.spaces import Architecture, SearchSpace
from hwnas.spaces.encoding import decode, encode, without_dead_edges

RANDOM = "random"
LARGEST = {"most MACs": MACS.name, "most parameters": PARAMS.name}
MOST_COST = 0.5  # epochs of baselines, in those of the finalists, up to which baselines are trained by default


@dataclass(frozen=True)
class BaselinePlan:
    """The baselines of every target by name, empty where none are trained, and lines on finalists and baselines."""

    baselines: Sequence[Mapping[str, Architecture]]
    lines: Sequence[str]


def plan_baselines(search: Search) -> BaselinePlan:
    """Find the baselines of a search whose recipe asks for finalists, and say what all trainings cost.

    Unless the recipe decides, baselines are trained where their epochs are at most half of those of the finalists.
    """
    settings, targets = search.recipe.finalists, search.targets
    assert isinstance(settings, Finalists)
    found: list[dict[str, Architecture]] = [{} for _ in targets]
    if settings.baselines is not False:
        found = [
            find_baselines(
                Candidates(search.space, target.limits, search.recipe.inputs_per_node),
                target.objective.costs,
                numpy_generator(search.recipe.seed, Purpose.BASELINES, index),
            )
            for index, target in enumerate(targets)
        ]
    number = len({_network(search.space, architecture) for own in found for architecture in own.values()})
    epochs, extra = len(targets) * settings.epochs_of_target, number * (settings.epochs + settings.last_epochs)
    lines = [
        f"finalists{f' of each of {len(targets)} targets' * (len(targets) > 1)}: {settings.trainings_of_target}, "
        f"each trained for {settings.epochs} epochs, and the best {settings.last} for {settings.last_epochs} more: "
        f"at most {epochs} epochs of {len(search.data.train):,} images in all"
    ]
    if settings.baselines is False:
        return BaselinePlan(found, lines)
    names = ", ".join([RANDOM, *LARGEST])
    if settings.baselines is None and extra > MOST_COST * epochs:
        lines.append(
            f"baselines ({names}): none, because they would take {extra} epochs, over half of the finalists'; "
            "--baselines trains them"
        )
        return BaselinePlan([{} for _ in targets], lines)
    lines.append(f"baselines ({names}): {number} network{'s' * (number > 1)}, at most {extra} epochs in addition")
    rare = sum(RANDOM not in own for own in found)
    if rare:
        lines.append(f"{rare} of the targets have no random baseline: none of the drawn architectures keeps the budget")
    return BaselinePlan(found, lines)


def find_baselines(
    candidates: Candidates, costs: Mapping[str, CostFunction], generator: np.random.Generator
) -> dict[str, Architecture]:
    """Return the baselines within the limits by name; without the random one where too few architectures are within."""
    drawn = candidates.draw(generator)
    found = {RANDOM: drawn} if drawn else {}
    for name, metric in LARGEST.items():
        model = costs[metric]
        assert isinstance(model, CostModel)
        found[name] = largest(model, candidates.limits, candidates.inputs_per_node)
    return found


def _network(space: SearchSpace, architecture: Architecture) -> Architecture:
    return decode(space, without_dead_edges(space, encode(space, [architecture]))[0])
