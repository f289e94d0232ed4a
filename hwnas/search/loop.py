"""The search loop: a supernet, logits for every budget, one step at a time, resumable to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hwnas.cost.budget import Budget
from hwnas.cost.derive import derive
from hwnas.cost.expectation import ExpectedCost
from hwnas.cost.metrics import Metric
from hwnas.cost.model import CostModel
from hwnas.data import ImageData
from hwnas.data.images import seed_of
from hwnas.errors import HwnasError
from hwnas.files import append_lines
from hwnas.networks.supernet import DropPath, Supernet
from hwnas.recipe import Penalty, Recipe
from hwnas.search.resources import ResourcePenalty
from hwnas.search.snas import (
    dual_ascent,
    entropy,
    initial_logits,
    probabilities,
    relative_costs,
    sample_concrete,
    snas_loss,
    temperature_at,
)
from hwnas.spaces import Architecture, SearchSpace, Setting
from hwnas.training.checkpoint import Checkpoint
from hwnas.training.child import accuracy
from hwnas.training.optimizers import make_optimizer, set_learning_rate

Progress = Callable[[str, int, int], None]
VALIDATION_IMAGES = 2000  # watched after every epoch; the first of the validation split
EPOCH_MEANS = ("loss", "correct", "count")


@dataclass(frozen=True)
class Goal:
    """What one network is to keep: a budget on a device, whose costs the models tell.

    ``device`` is "phone, cpu" where the budget names several.
    """

    device: str
    budget: Budget
    costs: Mapping[str, Metric]

    @property
    def penalised(self) -> dict[str, float]:
        """The limits that are in the loss: those on costs that are linear in Z. Derivation keeps them all."""
        return {m: bound for m, bound in self.budget.limits.items() if isinstance(self.costs[m], CostModel)}


@dataclass
class Target:
    """One goal's share of the search: its logits, and a multiplier for each limit in the loss."""

    goal: Goal
    logits: dict[str, nn.Parameter]
    multipliers: Tensor
    expected: dict[str, ExpectedCost]
    resources: ResourcePenalty | None

    @property
    def budget(self) -> Budget:
        return self.goal.budget

    def log_probability(self) -> dict[str, Any]:
        """log p [E, K] of every cell kind, as float64 arrays."""
        return {k: torch.log_softmax(v.detach().double(), dim=-1).numpy() for k, v in self.logits.items()}


class Search:
    """A search over ``space`` for several budgets, on one device or several, at once.

    Every random number is drawn from a generator seeded by (seed, purpose, step), so the state to be saved is weights,
    logits, optimisers and multipliers, and a resumed search takes exactly the steps that an uninterrupted one takes.
    """

    def __init__(
        self,
        space: SearchSpace,
        setting: Setting,
        goals: list[Goal],
        data: ImageData,
        recipe: Recipe,
    ) -> None:
        self.space, self.data, self.recipe = space, data, recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(recipe.seed, 3))
            self.supernet = Supernet(space, setting)
        self.supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.targets = []
        for number, goal in enumerate(goals):
            generator = torch.Generator().manual_seed(seed_of(recipe.seed, 4, number))
            logits = initial_logits(space, recipe.logits_mean, recipe.logits_std, generator)
            weighs_limits = recipe.penalty.mode == "fixed" and recipe.penalty.form == "relative"
            start = recipe.penalty.weight if weighs_limits else 0.0
            expected = {m: ExpectedCost(model) for m, model in goal.costs.items() if isinstance(model, CostModel)}
            multipliers = torch.full((len(goal.penalised),), start, dtype=torch.float64)
            resources = resource_penalty(recipe.penalty, space, setting, goal.costs)
            self.targets.append(Target(goal, logits, multipliers, expected, resources))
        self.weight_optimizer = make_optimizer(recipe.weights, self.supernet.parameters())
        self.logit_optimizers = [make_optimizer(recipe.logits, t.logits.values()) for t in self.targets]
        self.step = 0
        self.sums = [dict.fromkeys(EPOCH_MEANS, 0.0) for _ in self.targets]
        for target in self.targets:  # an impossible budget is refused before any training
            self.derive(target)

    @property
    def steps_an_epoch(self) -> int:
        return self.data.steps_an_epoch(self.recipe.batch_size)

    @property
    def total_steps(self) -> int:
        return self.recipe.epochs * self.steps_an_epoch

    def loss(self, target: Target, step: int) -> tuple[Tensor, Tensor, Tensor, int]:
        """The whole loss of one step, E[C]/B of every limit in it, the task loss, and the number of right answers.

        Exactly what the training step back-propagates; a test compares its gradient with finite differences.
        """
        recipe, epoch = self.recipe, step // self.steps_an_epoch
        penalty = recipe.penalty
        generator = torch.Generator().manual_seed(seed_of(recipe.seed, 5, step))
        images, classes = self.data.train_batch(step, recipe.batch_size, recipe.seed)
        temperature = temperature_at(recipe.temperature.start, recipe.temperature.end, epoch, recipe.epochs)
        mixture = sample_concrete(target.logits, temperature, generator)
        drop = DropPath(recipe.drop_path, generator) if recipe.drop_path else None
        images = images.to(next(self.supernet.parameters()).dtype)
        scores = self.supernet(images.contiguous(memory_format=torch.channels_last), mixture, drop=drop)
        task = nn.functional.cross_entropy(scores, classes)
        relative = relative_costs(target.logits, target.expected, target.goal.penalised)
        right = int((scores.detach().argmax(dim=1) == classes).sum())
        damping = penalty.damping if self.constrains(epoch) else 0.0
        loss = snas_loss(task, target.multipliers, relative, damping)
        if target.resources:
            shares = mixture if penalty.costs_of == "sample" else probabilities(target.logits)
            loss = loss + (penalty.weight * target.resources(shares)).to(loss)
        return loss, relative, task, right

    def constrains(self, epoch: int) -> bool:
        """Whether lambda is being found in this epoch."""
        penalty = self.recipe.penalty
        return penalty.mode == "dual" and epoch >= penalty.warm_up * self.recipe.epochs

    @property
    def dual_rate(self) -> float:
        """What g is multiplied by at one of a target's steps at which lambda is being found."""
        epochs = sum(map(self.constrains, range(self.recipe.epochs)))
        return self.recipe.penalty.total_rate * len(self.targets) / max(epochs * self.steps_an_epoch, 1)

    def take_step(self) -> None:
        """Weights and the logits of the target whose turn it is learn from one backward pass."""
        recipe, epoch = self.recipe, self.step // self.steps_an_epoch
        number = self.step % len(self.targets)
        target, logit_optimizer = self.targets[number], self.logit_optimizers[number]
        set_learning_rate(self.weight_optimizer, recipe.weights, epoch, recipe.epochs)
        set_learning_rate(logit_optimizer, recipe.logits, epoch, recipe.epochs)
        self.supernet.train()
        loss, relative, task, right = self.loss(target, self.step)
        if not torch.isfinite(loss):
            raise HwnasError(f"the loss became {loss.item()} at step {self.step}", "lower the learning rates")
        self.weight_optimizer.zero_grad()
        logit_optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.supernet.parameters(), recipe.weights.clip_norm)
        nn.utils.clip_grad_norm_(target.logits.values(), recipe.logits.clip_norm)
        self.weight_optimizer.step()
        if epoch >= recipe.logits_warm_up * recipe.epochs:
            logit_optimizer.step()
        if self.constrains(epoch):
            target.multipliers = dual_ascent(target.multipliers, relative, self.dual_rate)
        sums = self.sums[number]
        sums["loss"] += float(task.detach())
        sums["correct"] += right / recipe.batch_size
        sums["count"] += 1
        self.step += 1

    def derive(self, target: Target) -> Architecture:
        """The most probable architecture within the target's budget (never over it)."""
        limits = {metric: (target.goal.costs[metric], bound) for metric, bound in target.budget.limits.items()}
        return derive(self.space, target.log_probability(), limits, self.recipe.inputs_per_node)

    def validate(self, architecture: Architecture) -> float:
        """Accuracy of one architecture with the supernet's weights and the batch's own norm statistics."""
        watched = self.data.validation
        if len(watched) > VALIDATION_IMAGES:
            watched = type(watched)(watched.images[:VALIDATION_IMAGES], watched.targets[:VALIDATION_IMAGES])
        with batch_statistics(self.supernet):
            return accuracy(lambda x: self.supernet.run_architecture(x, architecture), self.data, watched)

    def epoch_report(self) -> list[dict[str, Any]]:
        """One record a target for the epoch that has just ended."""
        epoch = self.step // self.steps_an_epoch
        rows = []
        for target, sums in zip(self.targets, self.sums, strict=True):
            relative = relative_costs(target.logits, target.expected, target.goal.penalised).detach()
            architecture = self.derive(target)
            resources = target.resources(probabilities(target.logits)).item() if target.resources else None
            limits = enumerate(target.goal.penalised.items())
            rows.append(
                {
                    "epoch": epoch,
                    "step": self.step,
                    "device": target.goal.device,
                    "budget": target.budget.text,
                    "train_loss": sums["loss"] / max(sums["count"], 1),
                    "train_accuracy": sums["correct"] / max(sums["count"], 1),
                    "validation_accuracy": self.validate(architecture),
                    "expected_cost": {m: float(relative[i]) * bound for i, (m, bound) in limits},
                    "expected_over_budget": dict(zip(target.goal.penalised, relative.tolist(), strict=True)),
                    "lambda": dict(zip(target.goal.penalised, target.multipliers.tolist(), strict=True)),
                    **({"resource_penalty": resources} if target.resources else {}),
                    "entropy": entropy(target.logits),
                    "architecture": self.space.format(architecture, all_edges=True),
                }
            )
        self.sums = [dict.fromkeys(EPOCH_MEANS, 0.0) for _ in self.targets]
        return rows

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "supernet": self.supernet.state_dict(),
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "logits": [{k: v.detach() for k, v in t.logits.items()} for t in self.targets],
            "logit_optimizers": [o.state_dict() for o in self.logit_optimizers],
            "multipliers": [t.multipliers for t in self.targets],
            "sums": self.sums,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.step, self.sums = state["step"], state["sums"]
        self.supernet.load_state_dict(state["supernet"])
        self.weight_optimizer.load_state_dict(state["weight_optimizer"])
        for number, target in enumerate(self.targets):
            for kind, values in state["logits"][number].items():
                target.logits[kind].data.copy_(values)
            self.logit_optimizers[number].load_state_dict(state["logit_optimizers"][number])
            target.multipliers = state["multipliers"][number]


def resource_penalty(
    penalty: Penalty, space: SearchSpace, setting: Setting, costs: Mapping[str, Metric]
) -> ResourcePenalty | None:
    """The SNAS paper's penalty, if the recipe asks for it."""
    if penalty.form == "relative":
        return None
    network = space.network(setting)
    places = {kind: len(network.places(kind)) for kind in space.cells}
    linear = {metric: model for metric, model in costs.items() if isinstance(model, CostModel)}
    return ResourcePenalty(linear, places, penalty.form, penalty.resources)


def run_search(
    search: Search, folder: Path, digest: str, progress: Progress, report: Callable[[dict[str, Any]], None]
) -> None:
    """Run to the end, from the checkpoint in ``folder`` if there is one; ``metrics.jsonl`` gets a line an epoch and
    target, and ``report`` hears each.
    """
    checkpoint = Checkpoint(folder / "checkpoint.pt", digest)
    saved = checkpoint.load()
    if saved:
        search.load_state(saved)
    _drop_later_lines(folder / "metrics.jsonl", search.step)
    write = append_lines(folder / "metrics.jsonl")
    while search.step < search.total_steps:
        search.take_step()
        progress("searching", search.step, search.total_steps)
        if search.step % search.steps_an_epoch == 0:
            for row in search.epoch_report():
                write(json.dumps(row))
                report(row)
        if checkpoint.due() or search.step == search.total_steps:
            checkpoint.save(search.state())


def _drop_later_lines(metrics: Path, step: int) -> None:
    """Forget what an interrupted run wrote after its last checkpoint; it will be written again."""
    if metrics.exists():
        lines = [line for line in metrics.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
        metrics.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a torn line


@contextmanager
def batch_statistics(module: nn.Module) -> Any:
    """Batch norms use each batch's own statistics and learn nothing from it (running ones describe the mixture)."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    kept = [(m.momentum, m.num_batches_tracked.clone()) for m in norms]  # type: ignore[union-attr]
    module.train()
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(tracked)  # type: ignore[union-attr]
