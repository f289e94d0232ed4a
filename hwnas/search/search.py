"""A search: a supernet, a distribution for every objective, one step at a time.

The recipe's choices (hwnas.search.axes) decide what a step does; this module assembles the parts that are the same for
every method. Built-in choices must be registered first: ``hwnas.search.methods.register_builtin()``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hwnas.compute.device import CPU
from hwnas.compute.seeds import Purpose
from hwnas.data import ImageData
from hwnas.latent.graphs import require_cells
from hwnas.networks.mixed_cell import one_width_needed
from hwnas.networks.pretrained_supernet import require_chain
from hwnas.networks.shared_blocks import require_shareable
from hwnas.networks.supernet import Supernet, require_divisible
from hwnas.recipe import Recipe
from hwnas.search.axes import (
    Execution,
    Learning,
    Regulariser,
    Selection,
    require_usable,
    required_precision,
    runs_on_host,
)
from hwnas.search.batches import training_batches
from hwnas.search.choices import build
from hwnas.search.epoch_row import EpochRow
from hwnas.search.evaluation import Evaluator
from hwnas.search.kind_of_data import require_settings
from hwnas.search.lagrangian import dual_ascent
from hwnas.search.objective import Objective
from hwnas.search.schedule import Position, Schedule
from hwnas.search.step import Step
from hwnas.search.supernet_state import SupernetState
from hwnas.search.target import TargetState, load_states, states_of
from hwnas.spaces import SizedSpace
from hwnas.training.batches import set_up_numerics
from hwnas.training.processes import SINGLE_PROCESS, Processes
from hwnas.training.step_profile import span


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
        self.learning: Learning = build("learning", recipe.learning)
        self.device, precision = set_up_numerics(recipe.compute, required_precision(recipe, self.learning))
        self.data = data.on(self.device)
        runs: Execution = build("runs", recipe.runs)
        regulariser: Regulariser | None = build("regulariser", recipe.regulariser) if recipe.regulariser else None
        selection: Selection = build("selection", recipe.selection)
        logits_device = CPU if runs_on_host(runs) else self.device

        self.batches = training_batches(self.data, recipe, processes)
        self.position = Position()
        self.schedule = Schedule(recipe, self.batches["weights"].steps_per_epoch, len(objectives))
        for stage in self.schedule.stages:
            require_divisible(sized.network, stage.partial_channels)
        if any(cell.width_edges for cell in self.space.cells.values()) and not runs_on_host(runs):
            raise one_width_needed()
        if recipe.autoencoder:
            require_cells(self.space)
        if recipe.pretrained:
            require_chain(self.space)
        if recipe.shared_blocks:
            require_shareable(sized.network, self.space.name)
        require_settings(recipe, words=self.space.is_recurrent)
        # CUDA graphs need equal passes, and shared batch norms communicate inside a pass; words are not tried.
        replays = logits_device.type == "cuda" and processes.is_single and not self.space.is_recurrent
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
        self.evaluator = Evaluator(sized.space, recipe, self.data, *shared, selection, processes)
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
        target.sums.add(result.task, result.correct, self.batches["weights"].count * self.data.train.predictions)
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

    def evaluate(self) -> float:
        """Do what the end of an epoch does for one target: choose an architecture and validate it."""
        return self.evaluator.validate(self.evaluator.current_best(self.targets[0]))

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
        targets = states_of(self.targets, self.evaluator.by_probability)
        return {"step": self.step, "stage": self.position.stage, **self.supernet_state.state(), **targets}

    def load_state(self, state: dict[str, Any]) -> None:
        self.step, self.position.stage = state["step"], state["stage"]
        self.supernet_state.load_state(state, self.schedule.stages[state["stage"]].partial_channels)
        load_states(self.targets, state)
