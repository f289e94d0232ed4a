"""The schedule of a search: everything that follows from its recipe and the number of steps taken."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch

from hwnas.compute.seeds import Purpose, torch_generator
from hwnas.recipe import Recipe, Stage
from hwnas.search.distribution import DrawContext

ALL_OPERATIONS = 10**6


@dataclass
class Position:
    """Position of a search: steps taken, and the index of the stage whose supernet is in use."""

    step: int = 0
    stage: int = 0


@dataclass(frozen=True)
class Schedule:
    """Pure functions of the epoch or step, both counted from 0. ``targets`` take turns, one a step."""

    recipe: Recipe
    steps_per_epoch: int
    targets: int

    @property
    def total_steps(self) -> int:
        return self.recipe.epochs * self.steps_per_epoch

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of a progressive search; a single one with all operations where the recipe names none."""
        whole = Stage(share=1, partial_channels=self.recipe.partial_channels, operations=ALL_OPERATIONS)
        return self.recipe.stages or (whole,)

    @cached_property
    def stage_starts(self) -> list[int]:
        """The first epoch of every stage. A search with too few epochs for all stages ends in an earlier one."""
        ends = accumulate((stage.share for stage in self.stages[:-1]), initial=0.0)
        return [round(end * self.recipe.epochs) for end in ends]

    def epoch(self, step: int) -> int:
        return step // self.steps_per_epoch

    def is_epoch_start(self, step: int) -> bool:
        return step % self.steps_per_epoch == 0

    def target(self, step: int) -> int:
        """The index of the target whose turn the step is."""
        return step % self.targets

    def turn(self, step: int) -> int:
        """The number of steps that the step's target has had before."""
        return step // self.targets

    def stage(self, epoch: int) -> int:
        return max(index for index, start in enumerate(self.stage_starts) if index == 0 or start <= epoch)

    def logits_trainable(self, epoch: int, stage: int) -> bool:
        """True once the warm-up of the stage is over."""
        starts = [*self.stage_starts, self.recipe.epochs]
        first, length = starts[stage], starts[stage + 1] - starts[stage]
        return epoch >= first + self.recipe.logits_warm_up * length

    def progress(self, epoch: int) -> float:
        """The share of the epochs gone by: 0 in the first, 1 in the last."""
        return min(epoch / max(self.recipe.epochs - 1, 1), 1.0)

    def logits_progress(self, epoch: int) -> float:
        """The share gone by of the epochs in which logits learn: 0 up to the first of them, 1 in the last."""
        epochs = [number for number in range(self.recipe.epochs) if self.logits_trainable(number, self.stage(number))]
        before = sum(number < epoch for number in epochs)
        return min(before / max(len(epochs) - 1, 1), 1.0)

    def temperature(self, epoch: int) -> float:
        temperature = self.recipe.temperature
        return temperature.start + (temperature.end - temperature.start) * self.progress(epoch)

    def constrains(self, epoch: int) -> bool:
        """True in epochs in which lambda is being found by dual ascent."""
        penalty = self.recipe.penalty
        return penalty.mode == "dual" and epoch >= penalty.warm_up * self.recipe.epochs

    def damping(self, epoch: int) -> float:
        return self.recipe.penalty.damping if self.constrains(epoch) else 0.0

    @cached_property
    def dual_rate(self) -> float:
        """The step size of dual ascent: the recipe's total over all steps of one target at which lambda is found."""
        epochs = sum(map(self.constrains, range(self.recipe.epochs)))
        return self.recipe.penalty.total_rate * self.targets / max(epochs * self.steps_per_epoch, 1)

    def draw_context(self, step: int, purpose: Purpose, generator: torch.Generator | None = None) -> DrawContext:
        """Return the annealing state at a step, with its random numbers for ``purpose`` or those of ``generator``.

        All processes of a search draw the same numbers.
        """
        epoch = self.epoch(step)
        generator = generator or torch_generator(self.recipe.seed, purpose, step)
        return DrawContext(generator, self.temperature(epoch), self.progress(epoch))
