"""The state of one target of a search: its distribution, optimiser, multipliers and sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwnas.budgets.budget import Budget
from hwnas.budgets.derive import Limits
from hwnas.compute.seeds import Purpose, torch_generator
from hwnas.cost.build import CostFunction
from hwnas.cost.expectation import ExpectedCost
from hwnas.cost.model import CostModel
from hwnas.errors import HwnasError
from hwnas.recipe import Penalty, Recipe
from hwnas.search.choices import build
from hwnas.search.distribution import Distribution
from hwnas.search.lagrangian import relative_costs
from hwnas.search.objective import Objective
from hwnas.search.resources import ResourcePenalty
from hwnas.spaces import NONE, Architecture, SizedSpace
from hwnas.training.batches import EpochSums
from hwnas.training.optimizers import ParameterOptimizer
from hwnas.training.processes import Processes

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


class TargetState:
    """One objective's share of a search: a distribution of its own, and a multiplier for each limit in the loss.

    ``memory`` holds the tensors that a learning rule keeps from step to step, ``scores`` the value of every
    architecture that a selection has scored. ``stopped`` is the reason why the logits no longer learn, "" while they
    do.
    """

    def __init__(
        self,
        objective: Objective,
        index: int,
        sized: SizedSpace,
        recipe: Recipe,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self.objective, self.device, self.space = objective, device, sized.space
        self.inputs_per_node = recipe.inputs_per_node
        generator = torch_generator(recipe.seed, Purpose.DISTRIBUTION, index)
        self.distribution: Distribution = build("distribution", recipe.distribution, sized.space, recipe, generator)
        self.distribution.to(device)
        require_capabilities(self.distribution, recipe)
        weighs_limits = recipe.penalty.mode == "fixed" and recipe.penalty.form == "relative"
        start = recipe.penalty.weight if weighs_limits else 0.0
        self.multipliers = torch.full((len(objective.penalised),), start, dtype=torch.float64, device=device)
        self.expected = {m: ExpectedCost(model) for m, model in objective.costs.items() if isinstance(model, CostModel)}
        self.resources = resource_penalty(recipe.penalty, objective.target_sized or sized, objective.costs)
        self.parameters: list[nn.Parameter] = list(self.distribution.parameters())
        self.optimizer = ParameterOptimizer(recipe.logits, self.parameters, processes) if self.parameters else None
        self.sums = EpochSums()
        self.memory: dict[str, Tensor] = {}
        self.scores: dict[Architecture, float] = {}
        self.stopped = ""
        self._before: dict[str, Tensor] = {}

    @property
    def budget(self) -> Budget:
        return self.objective.budget

    @property
    def limits(self) -> Limits:
        return self.objective.limits

    @property
    def logits(self) -> dict[str, nn.Parameter]:
        """The logits [E, K] of every cell kind; empty where the distribution has none."""
        return self.distribution.logits_by_kind()

    def relative_costs(self, probabilities: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return E[C_m] / B_m for every limit in the loss, under the distribution's probabilities by default."""
        p = self.distribution.probabilities() if probabilities is None else probabilities
        return relative_costs(p, self.expected, self.objective.penalised)

    def limit_weights(self, excess: Tensor, damping: float) -> Tensor:
        """Return the penalty's weight of every limit, max(0, lambda + damping * g), for g = ``excess``."""
        return torch.clamp(self.multipliers.to(excess) + damping * excess, min=0)

    def log_probability(self) -> dict[str, NDArray[np.float64]]:
        """Return log p [E, K] of every cell kind, as float64 arrays, for a derivation."""
        return self.for_derivation(self.distribution.log_probability())

    def for_derivation(self, log_p: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        """Return log p [E, K] of every cell kind as a derivation needs it; the arrays are changed.

        With ``inputs_per_node``, 0 for ``none``: DARTS keeps the edges whose best operation is likeliest, whatever
        their probability of ``none``.
        """
        if self.inputs_per_node is not None:
            for values in log_p.values():
                values[:, self.space.operations.index(NONE)] = 0.0
        return log_p

    def set_learning_rate(self, epoch: int, epochs: int) -> None:
        if self.optimizer is not None:
            self.optimizer.set_learning_rate(epoch, epochs)

    def remember_distribution(self) -> None:
        """Keep a copy of the distribution, to which ``stop`` returns."""
        self._before = {key: value.detach().clone() for key, value in self.distribution.state_dict().items()}

    def stop(self, reason: str) -> None:
        """Return to the remembered distribution and end its learning."""
        self.distribution.load_state_dict(self._before)
        self.stopped = reason

    def state(self, with_probability: bool) -> dict[str, Any]:
        """Return everything a resumed search needs, and on request log p, for readers of the finished search
        (hwnas.runs.probabilities).
        """
        log_p = self.log_probability() if with_probability else None
        return {
            "distribution": self.distribution.state_dict(),
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            "multipliers": self.multipliers,
            "log_probability": None if log_p is None else {k: torch.from_numpy(values) for k, values in log_p.items()},
            "memory": self.memory,
            "before": self._before,
            "stopped": self.stopped,
            "sums": self.sums.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.distribution.load_state_dict(state["distribution"])
        if self.optimizer:
            self.optimizer.load_state_dict(state["optimizer"])
        self.multipliers = state["multipliers"].to(self.device)
        self.memory = {name: value.to(self.device) for name, value in state["memory"].items()}
        self._before, self.stopped = state["before"], state["stopped"]
        self.sums.load_state(state["sums"])


def states_of(targets: Sequence[TargetState], with_probability: bool) -> dict[str, list[Any]]:
    """Return the targets' states as a checkpoint holds them: each part as a list over targets."""
    states = [target.state(with_probability) for target in targets]
    return {saved: [state[name] for state in states] for name, saved in CHECKPOINT_LISTS.items()}


def load_states(targets: Sequence[TargetState], saved: Mapping[str, Any]) -> None:
    """Load the states that ``states_of`` returned."""
    for index, target in enumerate(targets):
        target.load_state({name: saved[key][index] for name, key in CHECKPOINT_LISTS.items()})


def require_capabilities(distribution: Distribution, recipe: Recipe) -> None:
    """Raise HwnasError where the recipe asks of a distribution what it cannot do."""
    name = recipe.distribution.name
    if (recipe.regulariser or recipe.penalty.form != "relative") and not distribution.differentiable:
        raise HwnasError(
            f"a regulariser and resource penalties need logits, which distribution {name} does not have",
            "remove them from the recipe",
        )
    if recipe.stages and not distribution.prunable:
        raise HwnasError(
            f"stages need logits, which distribution {name} does not have", "remove stages from the recipe"
        )


def resource_penalty(penalty: Penalty, sized: SizedSpace, costs: Mapping[str, CostFunction]) -> ResourcePenalty | None:
    """Build the SNAS paper's penalty; None where the recipe asks for none. ``costs`` are those of the network."""
    if penalty.form == "relative":
        return None
    instances = {kind: len(sized.network.cell_instances(kind)) for kind in sized.space.cells}
    linear = {metric: model for metric, model in costs.items() if isinstance(model, CostModel)}
    return ResourcePenalty(linear, instances, penalty.form, penalty.resources)
