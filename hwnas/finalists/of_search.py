"""Judge the targets of a finished search by finalists."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hwnas.budgets.derive import Limits
from hwnas.compute.seeds import Purpose, numpy_generator
from hwnas.cost.counts import count_metrics
from hwnas.cost.metric import MACS, PARAMS
from hwnas.cost.model import CostModel
from hwnas.finalists.candidates import Candidates
from hwnas.finalists.evidence import Evidence
from hwnas.finalists.finalist import FinalistTraining
from hwnas.finalists.judge import Contender, Judge, most_proposed
from hwnas.finalists.judgement import Judgement
from hwnas.finalists.latent import AutoencoderTraining
from hwnas.finalists.pool import Pool, Scoring
from hwnas.latent.graphs import CellGraphs
from hwnas.recipe import Finalists, Recipe
from hwnas.search.evaluation import SCORED_IMAGES
from hwnas.search.search import Search
from hwnas.search.selection import first_excluding
from hwnas.search.target import TargetState
from hwnas.spaces import Architecture, SizedSpace
from hwnas.training.recipe import Descent, Training

LARGEST = (PARAMS.name, MACS.name)  # counts of which the largest within the limits become candidates


def finalists_sized(search: SizedSpace, target: SizedSpace, settings: Finalists) -> SizedSpace:
    """Return the network that finalists are trained as: the search network, with as many cells as ``settings`` say."""
    return replace(search, setting=replace(search.setting, depth=settings.depth or target.setting.depth))


def judge_of(
    search: Search,
    evidence: Evidence,
    target: SizedSpace,
    plugin: Path | None = None,
    baselines: Sequence[Mapping[str, Architecture]] = (),
) -> Judge:
    """Return the judge of the targets of a search whose recipe asks for finalists.

    ``target`` is the network that ships; ``baselines`` are those of every target by name.
    """
    settings, recipe, data = search.recipe.finalists, search.recipe, search.data
    assert isinstance(settings, Finalists)
    sized = finalists_sized(search.sized, target, settings)
    images, _ = data.train_batch(0, SCORED_IMAGES, recipe.seed)
    first, last = (
        FinalistTraining.of(sized, data, training, plugin)
        for training in (_training(recipe, settings, epochs) for epochs in (settings.epochs, settings.last_epochs))
    )
    return Judge(
        settings,
        [
            _contender(search, target, most_proposed(settings), own)
            for target, own in zip(search.targets, baselines or [{}] * len(search.targets), strict=True)
        ],
        {
            name: model
            for name, model in count_metrics(sized).items()
            if name in LARGEST and isinstance(model, CostModel)
        },
        Pool(Scoring(sized, images.cpu(), recipe.seed, plugin)),
        first,
        last,
        evidence,
        [numpy_generator(recipe.seed, Purpose.CANDIDATES, index) for index in range(len(search.targets))],
        _autoencoder(search),
    )


def _autoencoder(search: Search) -> AutoencoderTraining | None:
    """Return the training of the recipe's graph autoencoder; None where it has none."""
    recipe = search.recipe
    if recipe.autoencoder is None:
        return None
    graphs = CellGraphs(search.space, recipe.inputs_per_node, recipe.without)
    return AutoencoderTraining(graphs, recipe.autoencoder, recipe.seed)


def _contender(search: Search, target: TargetState, number: int, baselines: Mapping[str, Architecture]) -> Contender:
    candidates = Candidates(search.space, target.limits, search.recipe.inputs_per_node)
    best = search.evaluator.selection.best(search.evaluator, target, target.limits)
    preferred = candidates.using((architecture for architecture, _ in best), number)
    return Contender(target.objective.target, candidates, preferred, baselines)


def _training(recipe: Recipe, settings: Finalists, epochs: int) -> Training:
    return Training(
        epochs=epochs,
        batch_size=settings.batch_size,
        seed=recipe.seed,
        compute=recipe.compute,
        augment=settings.augment,
        optimizer=Descent.model_validate(settings.optimizer.model_dump() | {"every": "step"}),
    )


def propose(
    search: Search,
    target: TargetState,
    limits: Limits,
    judgement: Judgement | None,
    excluded: Collection[Architecture] = (),
) -> tuple[Architecture, float] | None:
    """Return the architecture within ``limits`` that is expected to be best and not ``excluded``, and its value.

    Where no candidate is left, or without a judgement, the search's own selection chooses. None where it finds none.
    """
    if judgement:
        ranking = judgement.ranking(Candidates(search.space, limits, search.recipe.inputs_per_node))
        if found := first_excluding(ranking, excluded):
            return found
    return search.evaluator.propose(target, limits, excluded)
