"""A search: a supernet, a distribution for every objective, one step at a time.

The recipe's choices (hwnas.search.axes) decide what a step does; this module assembles the parts that are the same for
every method. Built-in choices must be registered first: ``hwnas.search.methods.register_builtin()``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch

from hwnas.budgets.derive import Limits
from hwnas.compute.device import CPU
from hwnas.compute.seeds import Purpose, SplitSeed
from hwnas.data import ImageData
from hwnas.data.images import divide
from hwnas.errors import HwnasError
from hwnas.networks.supernet import Supernet, require_divisible
from hwnas.recipe import Recipe
from hwnas.search.axes import (
    Execution,
    Learning,
    Regulariser,
    Selection,
    require_usable,
    runs_on_host,
    selects_by_probability,
)
from hwnas.search.choices import build
from hwnas.search.epoch_row import EpochRow
from hwnas.search.evaluation import Evaluator
from hwnas.search.lagrangian import dual_ascent
from hwnas.search.objective import Objective
from hwnas.search.schedule import Position, Schedule
from hwnas.search.selection import first_excluding
from hwnas.search.step import Step
from hwnas.search.supernet_state import SupernetState
from hwnas.search.target import TargetState
from hwnas.spaces import Architecture, SizedSpace
from hwnas.training.batches import Batches, set_up_numerics
from hwnas.training.processes import SINGLE_PROCESS, Processes
from hwnas.training.step_profile import span

# The name under which a checkpoint holds each part of the targets' states, as a list over targets.
CHECKPOINT_LISTS = {
    "distribution": "distributions",
    "optimizer": "logit_optimizers",
    "multipliers": "multipliers",
    "log_probability": "log_probability",
    "memory": "memory",
    "before": "before",
    "stopped": "stopped",
    "sums": "sums",
}


class Search:
    """A search over a sized space for several objectives at once; ``log`` gets messages for the user.

    ``sized`` is the search network, which is trained. The objectives' costs may be of another network of the space.

    State is weights, distributions, optimisers and multipliers: random numbers follow from the step
    (hwnas.compute.seeds), so a resumed search takes exactly the steps that an uninterrupted one takes.

    Raises HwnasError where recipe, space and data do not fit, or where no architecture is within a budget.
    """

    def __init__(
        self,
        sized: SizedSpace,
        objectives: list[Objective],
        data: ImageData,
        recipe: Recipe,
        processes: Processes = SINGLE_PROCESS,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.sized, self.space, self.recipe, self.processes = sized, sized.space, recipe, processes
        self.device, precision = set_up_numerics(recipe.compute, recipe.precision)
        self.data = data.on(self.device)
        runs: Execution = build("runs", recipe.runs)
        self.learning: Learning = build("learning", recipe.learning)
        regulariser: Regulariser | None = build("regulariser", recipe.regulariser) if recipe.regulariser else None
        self.selection: Selection = build("selection", recipe.selection)
        self.by_probability = selects_by_probability(self.selection)
        if recipe.most_skips is not None and not self.by_probability:
            raise HwnasError(
                "most_skips needs a selection by probability", "use selection: probable, or remove most_skips"
            )
        logits_device = CPU if runs_on_host(runs) else self.device

        self.batches = training_batches(self.data, recipe, processes)
        self.position = Position()
        self.schedule = Schedule(recipe, self.batches["weights"].steps_per_epoch, len(objectives))
        for stage in self.schedule.stages:
            require_divisible(sized.network, stage.partial_channels)
        # CUDA graphs need equal passes, and shared batch norms communicate inside a pass.
        replays = logits_device.type == "cuda" and processes.is_single
        self.supernet_state = SupernetState(sized, recipe, self.device, precision, replays, processes, log)
        self.supernet_state.build(self.schedule.stages[0].partial_channels)

        self.targets = [
            TargetState(objective, index, sized, recipe, logits_device, processes)
            for index, objective in enumerate(objectives)
        ]
        for target in self.targets:
            require_usable(self.learning, target.distribution)
            require_usable(regulariser, target.distribution)
        shared = self.schedule, self.position, self.supernet_state
        self.current_step = Step(sized.space, recipe, *shared, self.batches, runs, regulariser, processes)
        self.evaluator = Evaluator(sized.space, recipe, self.data, *shared, self.selection, processes)
        for target in self.targets:  # raises for an impossible budget, before any training
            self.evaluator.current_best(target)
            if recipe.most_skips is not None:
                target.remember_distribution()

    @property
    def supernet(self) -> Supernet:
        return self.supernet_state.module

    @property
    def step(self) -> int:
        """The number of steps taken."""
        return self.position.step

    @step.setter
    def step(self, step: int) -> None:
        self.position.step = step

    @property
    def over(self) -> bool:
        """True once all steps are taken, or all targets' logits are stopped."""
        return self.step >= self.schedule.total_steps or all(target.stopped for target in self.targets)

    @property
    def kind_of_step(self) -> str:
        """A name for the kind of the next step, by what it trains."""
        trains_logits = self.current_step.logits_trainable and any(target.optimizer for target in self.targets)
        return "weights and logits" if trains_logits else "weights alone"

    def take_step(self) -> None:
        """Train the weights, and the logits of the target whose turn it is, on this step's batches."""
        if self.schedule.is_epoch_start(self.step):
            self.enter_stages()
        epoch, target = self.schedule.epoch(self.step), self.targets[self.schedule.target(self.step)]
        self.supernet_state.weights.set_learning_rate(epoch, self.recipe.epochs)
        target.set_learning_rate(epoch, self.recipe.epochs)
        if not self.supernet.training:
            self.supernet.train()
        with span("constraint"):
            relative = target.relative_costs().detach()
        result = self.learning.learn(self.current_step, target)
        if self.schedule.constrains(epoch):
            target.multipliers = dual_ascent(target.multipliers, relative, self.schedule.dual_rate)
        target.sums.add(result.task, result.correct, self.recipe.batch_size)
        if self.device == CPU:  # on a GPU this would wait for the step
            self._require_finite()
        self.step += 1

    def enter_stages(self) -> None:
        """Prune the distributions and widen the supernet where a stage of a progressive search begins."""
        last = self.schedule.stage(self.schedule.epoch(self.step))
        while self.position.stage < last:
            self.position.stage += 1
            stage = self.schedule.stages[self.position.stage]
            for target in self.targets:
                target.distribution.prune(min(stage.operations, len(self.space.operations)))
            self.supernet_state.accelerate()
            generator = self.current_step.draw_context(Purpose.WIDENING).generator
            self.supernet_state.widen(stage.partial_channels, generator)

    def propose(
        self, target: TargetState, limits: Limits, excluded: Collection[Architecture] = ()
    ) -> tuple[Architecture, float] | None:
        """Return the best architecture within ``limits`` that is not ``excluded``, and its value; None without one."""
        return first_excluding(self.selection.best(self.evaluator, target, limits), excluded)

    def choose(self, target: TargetState) -> Architecture:
        """Return the final architecture of a target, always within its budget."""
        found = self.propose(target, target.limits)
        assert found is not None  # an impossible budget was refused before the search
        return found[0]

    def validate(self, architecture: Architecture) -> float:
        """Return an architecture's accuracy with the supernet's weights on validation images."""
        return self.evaluator.validate(architecture)

    def evaluate(self) -> float:
        """Do what the end of an epoch does for one target: choose an architecture and validate it."""
        return self.validate(self.evaluator.current_best(self.targets[0]))

    def epoch_report(self) -> list[EpochRow]:
        """Return a row a target for the epoch that has just ended, and start the sums of the next."""
        self._require_finite()
        rows = [self.evaluator.epoch_row(target) for target in self.targets]
        for target in self.targets:
            target.sums.reset()
        return rows

    def _require_finite(self) -> None:
        for target in self.targets:
            target.sums.require_finite(self.step, "lower the learning rates")

    def state(self) -> dict[str, Any]:
        """Return everything a resumed search needs: tensors, numbers and texts."""
        self._require_finite()
        targets = [target.state(self.by_probability) for target in self.targets]
        lists = {saved: [state[name] for state in targets] for name, saved in CHECKPOINT_LISTS.items()}
        return {"step": self.step, "stage": self.position.stage, **self.supernet_state.state(), **lists}

    def load_state(self, state: dict[str, Any]) -> None:
        self.step, self.position.stage = state["step"], state["stage"]
        self.supernet_state.load_state(state, self.schedule.stages[state["stage"]].partial_channels)
        for index, target in enumerate(self.targets):
            target.load_state({name: state[saved][index] for name, saved in CHECKPOINT_LISTS.items()})


def training_batches(data: ImageData, recipe: Recipe, processes: Processes) -> dict[str, Batches]:
    """Return the batches that train weights and logits: all training images for both, or a separate subset for each."""
    subsets: list[torch.Tensor | None] = [None, None]
    if recipe.logits_share:
        shares = (1 - recipe.logits_share, recipe.logits_share)
        subsets = [
            torch.from_numpy(part) for part in divide(data.train.targets.cpu().numpy(), shares, SplitSeed.LOGITS)
        ]
    return {
        name: Batches(data, recipe.batch_size, recipe.seed, processes, subset)
        for name, subset in zip(("weights", "logits"), subsets, strict=True)
    }
