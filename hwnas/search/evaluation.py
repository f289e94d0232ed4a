"""Evaluation during a search: validation of architectures, their scores, and the rows of an epoch."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hwnas.budgets.derive import Limits
from hwnas.compute.seeds import Purpose
from hwnas.cost.model import Array
from hwnas.data import ImageData
from hwnas.errors import HwnasError
from hwnas.recipe import Recipe
from hwnas.scores.score import score_architectures
from hwnas.search.axes import Selection, selects_by_probability
from hwnas.search.distribution import DrawContext, entropy
from hwnas.search.epoch_row import EpochRow
from hwnas.search.schedule import Position, Schedule
from hwnas.search.selection import first_excluding
from hwnas.search.supernet_state import SupernetState
from hwnas.search.target import TargetState
from hwnas.spaces import NONE, Architecture, SearchSpace
from hwnas.spaces.builtin_operations import SKIP
from hwnas.training.evaluation import quality_of
from hwnas.training.processes import Processes
from hwnas.training.quality import Quality

SCORED_IMAGES = 32  # of the training images, for scores without training
VALIDATION_IMAGES = 2000  # evaluated after every epoch: the first of the validation split
LEAST_ACCURACY = 1e-6  # the least accuracy whose logarithm is taken
DECIMALS = 6  # of the probabilities in an epoch's row


class Evaluator:
    """Evaluates architectures with the supernet's weights and selects among them; a hwnas.search.axes.Scorer.

    Raises HwnasError for a recipe that watches ``skip_connect`` with a selection that is not by probability.
    """

    def __init__(
        self,
        space: SearchSpace,
        recipe: Recipe,
        data: ImageData,
        schedule: Schedule,
        position: Position,
        supernet: SupernetState,
        selection: Selection,
        processes: Processes,
    ) -> None:
        self.space, self.recipe, self.data = space, recipe, data
        self.schedule, self.position = schedule, position
        self.supernet, self.selection, self.processes = supernet, selection, processes
        self.by_probability = selects_by_probability(selection)
        if recipe.most_skips is not None and not self.by_probability:
            raise HwnasError(
                "most_skips needs a selection by probability", "use selection: probable, or remove most_skips"
            )

    def draw_context(self, generator: torch.Generator | None = None) -> DrawContext:
        return self.schedule.draw_context(self.position.step, Purpose.SELECTION, generator)

    def validate(self, architecture: Architecture) -> float:
        """Return an architecture's accuracy with the supernet's weights on (at most 2,000) validation images."""
        return self.quality(architecture).accuracy

    def quality(self, architecture: Architecture) -> Quality:
        """Return an architecture's quality with the supernet's weights on (at most 2,000) validation images."""
        split = self.data.validation
        if len(split) > VALIDATION_IMAGES:
            split = type(split)(split.images[:VALIDATION_IMAGES], split.targets[:VALIDATION_IMAGES])
        supernet = self.supernet.module
        statistics = batch_statistics if self.recipe.judged_with == "batch" else running_statistics
        with statistics(supernet):
            return quality_of(
                lambda x: supernet.run_architecture(x, architecture), self.data, split, processes=self.processes
            )

    def score(self, target: TargetState, architectures: Iterable[Architecture]) -> None:
        for architecture in architectures:
            if architecture not in target.scores:
                found = self.quality(architecture)
                likely = found.accuracy if found.perplexity is None else 1 / found.perplexity
                target.scores[architecture] = math.log(max(likely, LEAST_ACCURACY))

    def score_untrained(self, architectures: Sequence[Architecture], names: Sequence[str]) -> dict[str, Array]:
        if self.space.is_recurrent:
            raise HwnasError("scores without training are of networks of images", "use another selection in the recipe")
        images, _ = self.data.train_batch(0, SCORED_IMAGES, self.recipe.seed)
        return score_architectures(self.supernet.sized, architectures, names, images, self.recipe.seed)

    def agreed(self, choices: NDArray[np.intp]) -> NDArray[np.intp]:
        found: Tensor = self.processes.from_rank_zero(torch.from_numpy(choices))
        return found.numpy()

    def current_best(self, target: TargetState) -> Architecture:
        return self.selection.current_best(self, target)

    def propose(
        self, target: TargetState, limits: Limits, excluded: Collection[Architecture] = ()
    ) -> tuple[Architecture, float] | None:
        """Return the best architecture within ``limits`` that is not ``excluded``, and its value; None without one."""
        return first_excluding(self.selection.best(self, target, limits), excluded)

    def choose(self, target: TargetState) -> Architecture:
        """Return the final architecture of a target, always within its budget."""
        found = self.propose(target, target.limits)
        assert found is not None  # an impossible budget was refused before the search
        return found[0]

    def epoch_row(self, target: TargetState) -> EpochRow:
        """Return a target's line of ``metrics.jsonl`` for the epoch that has just ended.

        Also stops the target's logits where its architecture has collapsed to ``skip_connect``.
        """
        p = {kind: values.detach() for kind, values in target.distribution.probabilities().items()}
        penalised = target.objective.penalised
        relative = target.relative_costs(p).tolist()
        architecture = self.current_best(target)
        skips = share_of_skips(architecture)
        self._watch_skips(target, skips)
        rounded = {kind: [[round(v, DECIMALS) for v in row] for row in values.tolist()] for kind, values in p.items()}
        texts = {"target": target.objective.target, "stopped": target.stopped}
        optional: dict[str, Any] = {name: text for name, text in texts.items() if text}
        if target.resources:
            optional["resource_penalty"] = target.resources(p).item()
        sums, found = target.sums, self.quality(architecture)
        if found.perplexity is not None:
            optional["validation_perplexity"] = found.perplexity
        return EpochRow(
            epoch=self.schedule.epoch(self.position.step),
            step=self.position.step,
            device=target.objective.device,
            budget=target.budget.text,
            train_loss=float(sums.loss / sums.count) if sums.count else None,
            train_accuracy=float(sums.correct / sums.count) if sums.count else None,
            validation_accuracy=found.accuracy,
            expected_cost={m: share * bound for share, (m, bound) in zip(relative, penalised.items(), strict=True)},
            expected_over_budget=dict(zip(penalised, relative, strict=True)),
            multipliers=dict(zip(penalised, target.multipliers.tolist(), strict=True)),
            entropy=entropy(p),
            skip_share=skips,
            architecture=self.space.format(architecture, all_edges=True),
            probabilities=rounded,
            **optional,
        )

    def _watch_skips(self, target: TargetState, skips: float) -> None:
        """Stop a target's logits, as they were an epoch ago, where its architecture collapses to ``skip_connect``."""
        most, epoch = self.recipe.most_skips, self.schedule.epoch(self.position.step)
        if most is None or target.stopped:
            return
        if skips >= most and self.schedule.logits_trainable(epoch - 1, self.position.stage):
            target.stop(f"{skips:.0%} of the edges became skip_connect in epoch {epoch}")
        else:
            target.remember_distribution()


def share_of_skips(architecture: Architecture) -> float:
    """Return the share of ``skip_connect`` among the edges that are not ``none``, over all cell kinds."""
    used = [op for cell in architecture.cells for op in cell if op != NONE]
    return used.count(SKIP) / max(len(used), 1)


@contextmanager
def batch_statistics(module: nn.Module) -> Iterator[None]:
    """Normalise each batch by its own statistics and leave the running ones, which describe the mixture, unchanged."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    saved = [(m.momentum, m.num_batches_tracked.clone()) for m in norms]  # type: ignore[union-attr]
    module.train()
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, saved, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(tracked)  # type: ignore[union-attr]


@contextmanager
def running_statistics(module: nn.Module) -> Iterator[None]:
    """Normalise by the running statistics that batch norms gathered while the supernet was trained."""
    module.eval()
    try:
        yield
    finally:
        module.train()
