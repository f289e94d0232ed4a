"""The search loop: a supernet, a distribution for every budget, one step at a time, resumable to the bit.

What a step does is the recipe's choices (hwnas.search.choices); what is here is the same for every method.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import hwnas.search.methods  # noqa: F401  registers what recipes name
from hwnas.budgets.budget import Budget
from hwnas.budgets.derive import Limits
from hwnas.compute.device import CPU, choose_device, layout_on, to_device
from hwnas.compute.precision import choose_precision, multiply_in
from hwnas.cost.expectation import ExpectedCost
from hwnas.cost.metrics import Metric
from hwnas.cost.model import CostModel
from hwnas.data import ImageData
from hwnas.data.images import divide, seed_of
from hwnas.errors import HwnasError
from hwnas.files import append_lines
from hwnas.networks.drop_path import drop_path
from hwnas.networks.fast import accelerate
from hwnas.networks.supernet import Supernet, require_divisible
from hwnas.networks.widen import widen
from hwnas.recipe import Penalty, Recipe, Stage
from hwnas.search.choices import build
from hwnas.search.distribution import Distribution, Draw, DrawContext, EdgeLogits, entropy
from hwnas.search.epoch_row import EpochRow
from hwnas.search.lagrangian import dual_ascent, penalty_of, relative_costs
from hwnas.search.resources import ResourcePenalty
from hwnas.search.selection import Probable, first_excluding
from hwnas.spaces import NONE, Architecture, SearchSpace, SizedSpace
from hwnas.spaces.builtin_operations import SKIP
from hwnas.training.checkpoint import Checkpoint
from hwnas.training.child import accuracy
from hwnas.training.optimizers import make_optimizer, set_learning_rate
from hwnas.training.processes import ALONE, Processes
from hwnas.training.step_profile import StepProfile, span

Progress = Callable[[str, int, int], None]
VALIDATION_IMAGES = 2000  # watched after every epoch; the first of the validation split
EPOCH_MEANS = ("loss", "correct", "count")
# The last part of a seed, by what the random numbers of a step are for.
PURPOSES = {"weights": 5, "logits": 6, "samples": 7, "selection": 8, "widening": 9}


@dataclass(frozen=True)
class Objective:
    """What one network is to keep: a budget on a device, whose costs the models tell.

    ``device`` is "phone, cpu" where the budget names several. ``target`` is the id of the target in its run, empty
    where there is no run.
    """

    device: str
    budget: Budget
    costs: Mapping[str, Metric]
    target: str = ""

    @property
    def penalised(self) -> dict[str, float]:
        """The limits that are in the loss: those on costs that are linear in Z. Derivation keeps them all."""
        return {m: bound for m, bound in self.budget.limits.items() if isinstance(self.costs[m], CostModel)}


@dataclass(frozen=True)
class BatchResult:
    """What one batch gave, scalars where the supernet is: the task's loss, and how many images were told right."""

    task: Tensor
    right: Tensor


@dataclass
class Target:
    """One goal's share of the search: its distribution, and a multiplier for each limit in the loss.

    ``memory`` is what its learning keeps from step to step, ``judged`` what its selection has found. ``stopped`` says
    why its logits learn no more.
    """

    goal: Objective
    distribution: Distribution
    multipliers: Tensor
    expected: dict[str, ExpectedCost]
    resources: ResourcePenalty | None
    inputs_per_node: int | None
    memory: dict[str, Tensor] = field(default_factory=dict)
    judged: dict[Architecture, float] = field(default_factory=dict)
    before: dict[str, Tensor] = field(default_factory=dict)
    stopped: str = ""

    @property
    def budget(self) -> Budget:
        return self.goal.budget

    @property
    def limits(self) -> Limits:
        return {metric: (self.goal.costs[metric], bound) for metric, bound in self.budget.limits.items()}

    @property
    def logits(self) -> dict[str, nn.Parameter]:
        """The logits [E, K] of every cell kind; none where the distribution has no such."""
        return dict(self.distribution.logits.items()) if isinstance(self.distribution, EdgeLogits) else {}

    @property
    def learnt(self) -> list[nn.Parameter]:
        return list(self.distribution.parameters())

    def relative_costs(self) -> Tensor:
        return relative_costs(self.distribution.probabilities(), self.expected, self.goal.penalised)

    def weights_of_limits(self, excess: Tensor, damping: float) -> Tensor:
        """What the penalty pulls with on every limit: max(0, lambda + damping * g)."""
        return torch.clamp(self.multipliers.to(excess) + damping * excess, min=0)

    def log_probability(self) -> dict[str, NDArray[np.float64]]:
        """log p [E, K] of every cell kind, as float64 arrays.

        With ``inputs_per_node`` edges that are left out count nothing: DARTS keeps the edges whose best operation is
        likeliest, whatever their probability of ``none``.
        """
        log_p = self.distribution.log_probability()
        if self.inputs_per_node is not None:
            for values in log_p.values():
                values[:, self.distribution.space.operations.index(NONE)] = 0.0
        return log_p


class Search:
    """A search over ``space`` for several budgets, on one device or several, at once.

    Every random number is drawn from a generator seeded by (seed, purpose, step), so the state to be saved is weights,
    logits, optimisers and multipliers, and a resumed search takes exactly the steps that an uninterrupted one takes.

    A step on a GPU is queued, and not waited for; but where the draw says which candidates run, the gradients of what
    was drawn are.
    ``say`` hears what a user should know.
    """

    def __init__(
        self,
        sized: SizedSpace,
        goals: list[Objective],
        data: ImageData,
        recipe: Recipe,
        processes: Processes = ALONE,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.sized, self.space, self.recipe = sized, sized.space, recipe
        self.processes, self.log = processes, say
        self.device = choose_device(recipe.compute)
        self.data = data.on(self.device)
        self.runs, self.learning = build("runs", recipe.runs), build("learning", recipe.learning)
        self.regulariser = build("regulariser", recipe.regulariser) if recipe.regulariser else None
        self.selection = build("selection", recipe.selection)
        self.logits_device = CPU if getattr(self.runs, "on_host", True) else self.device
        self.precision, _ = choose_precision(recipe.precision, self.device)
        multiply_in(self.precision, self.device)
        if recipe.most_skips is not None and not isinstance(self.selection, Probable):
            raise HwnasError("most_skips watches what probabilities say", "use selection: probable, or leave it out")
        self.parts: dict[str, Tensor | None] = {"weights": None, "logits": None}
        if recipe.logits_share:
            shares = (1 - recipe.logits_share, recipe.logits_share)
            own, held = divide(data.train.targets.numpy(), shares, seed=3)
            self.parts = {"weights": torch.from_numpy(own), "logits": torch.from_numpy(held)}
        for images in self.parts.values():
            processes.require(data.images_a_step(recipe.batch_size, images))
        # Where the epochs do not reach to the last stage, the search ends in an earlier one.
        self.stages = recipe.stages or (Stage(share=1, partial_channels=recipe.partial_channels, operations=10**6),)
        self.stage = 0
        for stage in self.stages:
            require_divisible(sized.network, stage.partial_channels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(recipe.seed, 3))
            self._set_supernet(Supernet(sized, self.stages[0].partial_channels, recipe.shared_features))
        self.targets = []
        for number, goal in enumerate(goals):
            generator = torch.Generator().manual_seed(seed_of(recipe.seed, 4, number))
            distribution = build("distribution", recipe.distribution, self.space, recipe, generator).to(
                self.logits_device
            )
            for choice in (self.learning, self.regulariser):
                if check := getattr(choice, "check", None):  # whether it can be used with the distribution
                    check(distribution)
            pulled = isinstance(distribution, EdgeLogits) or distribution.pathwise
            if (self.regulariser or recipe.penalty.form != "relative") and not pulled:
                raise HwnasError(
                    f"a regulariser and resources pull on logits, which {recipe.distribution.name} has none of",
                    "leave them out",
                )
            weighs_limits = recipe.penalty.mode == "fixed" and recipe.penalty.form == "relative"
            start = recipe.penalty.weight if weighs_limits else 0.0
            expected = {m: ExpectedCost(model) for m, model in goal.costs.items() if isinstance(model, CostModel)}
            multipliers = torch.full((len(goal.penalised),), start, dtype=torch.float64, device=self.logits_device)
            resources = resource_penalty(recipe.penalty, sized, goal.costs)
            self.targets.append(Target(goal, distribution, multipliers, expected, resources, recipe.inputs_per_node))
        if recipe.stages and not all(isinstance(t.distribution, EdgeLogits) for t in self.targets):
            raise HwnasError(f"stages need logits, which {recipe.distribution.name} has none of", "leave them out")
        self.logit_optimizers = [make_optimizer(recipe.logits, t.learnt) if t.learnt else None for t in self.targets]
        self.step = 0
        self._forget_epoch()
        for target in self.targets:  # an impossible budget is refused before any training
            self.selection.watched(self, target)
            self._keep_logits(target)

    def _set_supernet(self, supernet: Supernet) -> None:
        self.processes.share_norms(supernet)
        self.layout = layout_on(self.device, supernet)
        self.supernet = supernet.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        self._accelerate()
        self.weights = list(self.supernet.parameters())
        self.weight_optimizer = make_optimizer(self.recipe.weights, self.weights)

    def _accelerate(self) -> None:
        # CUDA graphs need equal passes, and shared batch norms communicate inside a pass.
        replay = self.logits_device.type == "cuda" and self.processes.alone
        compiled = self.recipe.kernels == "compiled"
        self.passes = accelerate(
            self.supernet, precision=self.precision, compiled=compiled, replay=replay, log=self.log
        )

    def _forget_epoch(self) -> None:
        self.sums: list[dict[str, float | Tensor]] = [dict.fromkeys(EPOCH_MEANS, 0.0) for _ in self.targets]

    @property
    def steps_an_epoch(self) -> int:
        return self.data.steps_an_epoch(self.recipe.batch_size, self.parts["weights"])

    @property
    def total_steps(self) -> int:
        return self.recipe.epochs * self.steps_an_epoch

    @property
    def epoch(self) -> int:
        return self.step // self.steps_an_epoch

    @property
    def over(self) -> bool:
        """Whether all steps are taken, or no target's logits are left to learn."""
        return self.step >= self.total_steps or all(target.stopped for target in self.targets)

    def _stage_starts(self) -> list[int]:
        """The first epoch of every stage."""
        ends = np.cumsum([0.0, *(stage.share for stage in self.stages[:-1])])
        return [round(end * self.recipe.epochs) for end in ends]

    @property
    def logits_learn(self) -> bool:
        return self.learn_in(self.epoch)

    def learn_in(self, epoch: int) -> bool:
        """Whether in this epoch of the present stage its warm-up is over, and the logits learn."""
        starts = [*self._stage_starts(), self.recipe.epochs]
        first, length = starts[self.stage], starts[self.stage + 1] - starts[self.stage]
        return epoch >= first + self.recipe.logits_warm_up * length

    def moment(self, purpose: str, generator: torch.Generator | None = None) -> DrawContext:
        """Random numbers of their own for what a step does (all processes have the same), and how far the search is."""
        temperature, last = self.recipe.temperature, max(self.recipe.epochs - 1, 1)
        progress = min(self.epoch / last, 1.0)
        generator = generator or torch.Generator().manual_seed(seed_of(self.recipe.seed, PURPOSES[purpose], self.step))
        return DrawContext(generator, temperature.start + (temperature.end - temperature.start) * progress, progress)

    def draw(self, target: Target, purpose: str) -> Draw:
        return self._draw(target, self.moment(purpose))

    def _draw(self, target: Target, moment: DrawContext) -> Draw:
        with span("sampling"):
            return target.distribution.draw(moment)

    def task_loss(
        self,
        target: Target,
        draw: Draw,
        kind: str,
        generator: torch.Generator | None = None,
        frozen: bool = False,
    ) -> BatchResult:
        """Cross entropy of a draw on this step's batch of "weights" or "logits" images.

        ``generator`` gives the random numbers of drop path, which only the weights' batches know. ``frozen`` says that
        the gradient of the supernet's weights will not be asked for. Of several processes
        each runs its share of the batch and gets the whole batch's loss, but the gradient of its share, which a step or
        ``gradients`` averages.
        """
        recipe, chosen = self.recipe, self.parts[kind]
        total = self.data.images_a_step(recipe.batch_size, chosen)
        share = self.processes.share(total)
        with span("data"):
            images, classes = self.data.train_batch(self.step, recipe.batch_size, recipe.seed, chosen, share=share)
            images = images.to(self.weights[0].dtype).contiguous(memory_format=self.layout)
        with span("forward"), self.processes.one_batch(total):
            mixture, places = self.runs(self.supernet, target.distribution, draw)
            drop = None
            if recipe.drop_path and generator:
                drop = drop_path(recipe.drop_path, generator, self.supernet.num_edges, total, share, self.device)
            scores = self.passes(images, mixture, places, drop, frozen).to(images.dtype)
            task = nn.functional.cross_entropy(scores, classes)
            right = (scores.detach().argmax(dim=1) == classes).sum()
            return BatchResult(*self.processes.whole(task, right))

    def penalty(self, target: Target, draw: Draw) -> tuple[Tensor, Tensor]:
        """What the logits' loss has besides the task, and E[C]/B of every limit in it."""
        penalty = self.recipe.penalty
        with span("constraint"):
            p = target.distribution.probabilities()
            relative = relative_costs(p, target.expected, target.goal.penalised)
            total = penalty_of(target.multipliers, relative, self.damping)
            if target.resources:
                total = total + penalty.weight * target.resources(draw.mixture if penalty.costs_of == "sample" else p)
            if self.regulariser:
                total = total + self.regulariser(target.distribution, self.moment("logits").progress)
            return total, relative

    def loss(self, target: Target) -> tuple[Tensor, BatchResult]:
        """The whole loss of one step on one batch, task and penalty.

        Exactly what single-level learning back-propagates; a test compares its gradient with finite differences.
        """
        moment = self.moment("weights")
        draw = self._draw(target, moment)
        outcome = self.task_loss(target, draw, "weights", moment.generator)
        return outcome.task + self._beside(outcome.task, self.penalty(target, draw)[0]), outcome

    def weights_loss(self, target: Target) -> BatchResult:
        """The task's loss on the weights' batch; nothing flows back to the logits but by the draw."""
        moment = self.moment("weights")
        return self.task_loss(target, self._draw(target, moment), "weights", moment.generator)

    def logits_loss(self, target: Target, frozen: bool = True) -> tuple[Tensor, Tensor]:
        """The task's loss on the logits' batch, and the penalty; ``frozen`` as in ``task_loss``."""
        draw = self.draw(target, "logits")
        task = self.task_loss(target, draw, "logits", frozen=frozen).task
        return task, self._beside(task, self.penalty(target, draw)[0])

    def _beside(self, task: Tensor, penalty: Tensor) -> Tensor:
        """The penalty where and as the task's loss is."""
        return to_device(penalty.to(task.dtype), task.device)

    def weights_step(self, target: Target) -> BatchResult:
        """The weights learn from their batch with a draw of the target's distribution."""
        moment = self.moment("weights")
        with torch.no_grad():
            draw = self._draw(target, moment)
        outcome = self.task_loss(target, draw, "weights", moment.generator)
        self.weight_optimizer.zero_grad()
        self.backward(outcome.task)
        self.step_weights()
        return outcome

    def backward(self, loss: Tensor) -> None:
        with span("backward"):
            loss.backward()

    def gradients(self, loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
        """d loss / d parameter of each, zeros where the loss does not depend on one; the same in all processes."""
        if not loss.requires_grad:
            return [torch.zeros_like(p) for p in parameters]
        with span("backward"):
            found = torch.autograd.grad(loss, list(parameters), allow_unused=True)
        # A recorded pass has its gradients in one place, where the next one has its own.
        own = [g.clone() if g is not None and self.passes.enabled else g for g in found]
        return self.processes.means(
            [torch.zeros_like(p) if g is None else g for g, p in zip(own, parameters, strict=True)]
        )

    def zero_grad(self, target: Target) -> None:
        self.weight_optimizer.zero_grad()
        target.distribution.zero_grad()

    def step_weights(self) -> None:
        """One step of the weights, down the gradients that they hold."""
        self._step(self.weight_optimizer, self.weights, self.recipe.weights.clip_norm)

    def step_logits(self, target: Target) -> None:
        """One step of what the distribution has to learn, once its warm-up is over."""
        optimizer = self.logit_optimizers[self.targets.index(target)]
        if optimizer is not None and self.logits_learn and not target.stopped:
            self._step(optimizer, target.learnt, self.recipe.logits.clip_norm)

    def _step(self, optimizer: torch.optim.Optimizer, learnt: list[nn.Parameter], clip_norm: float) -> None:
        self.processes.average([parameter.grad for parameter in learnt if parameter.grad is not None])
        with span("optimiser"):
            nn.utils.clip_grad_norm_(learnt, clip_norm)
            optimizer.step()

    def constrains(self, epoch: int) -> bool:
        """Whether lambda is being found in this epoch."""
        penalty = self.recipe.penalty
        return penalty.mode == "dual" and epoch >= penalty.warm_up * self.recipe.epochs

    @property
    def damping(self) -> float:
        return self.recipe.penalty.damping if self.constrains(self.epoch) else 0.0

    @property
    def dual_rate(self) -> float:
        """What g is multiplied by at one of a target's steps at which lambda is being found."""
        epochs = sum(map(self.constrains, range(self.recipe.epochs)))
        return self.recipe.penalty.total_rate * len(self.targets) / max(epochs * self.steps_an_epoch, 1)

    def take_step(self) -> None:
        """Weights and the logits of the target whose turn it is learn from this step's batches."""
        if self.step % self.steps_an_epoch == 0:
            self._enter_stage()
        recipe, epoch = self.recipe, self.epoch
        number = self.step % len(self.targets)
        target, logit_optimizer = self.targets[number], self.logit_optimizers[number]
        set_learning_rate(self.weight_optimizer, recipe.weights, epoch, recipe.epochs)
        if logit_optimizer is not None:
            set_learning_rate(logit_optimizer, recipe.logits, epoch, recipe.epochs)
        if not self.supernet.training:
            self.supernet.train()
        with span("constraint"):
            relative = target.relative_costs().detach()
        outcome = self.learning.learn(self, target)
        if self.constrains(epoch):
            target.multipliers = dual_ascent(target.multipliers, relative, self.dual_rate)
        sums = self.sums[number]
        sums["loss"] = sums["loss"] + outcome.task.detach().double()
        sums["correct"] = sums["correct"] + outcome.right.double() / recipe.batch_size
        sums["count"] += 1
        if self.device == CPU:  # a GPU is asked when it is waited for anyway
            self._require_finite()
        self.step += 1

    def _require_finite(self) -> None:
        for sums in self.sums:
            if not math.isfinite(sums["loss"]):
                raise HwnasError(
                    f"the loss became {float(sums['loss'])} at step {self.step}", "lower the learning rates"
                )

    def _enter_stage(self) -> None:
        """Prune and widen where a stage of a progressive search begins."""
        starts = self._stage_starts()
        while self.stage + 1 < len(self.stages) and self.epoch >= starts[self.stage + 1]:
            self.stage += 1
            stage = self.stages[self.stage]
            for target in self.targets:
                assert isinstance(target.distribution, EdgeLogits)
                target.distribution.prune(min(stage.operations, len(self.space.operations)))
            self._accelerate()
            self._widen(stage.partial_channels)

    def _widen(self, partial: int) -> None:
        if partial == self.supernet.partial:
            return
        state = self.weight_optimizer.state
        names = {p: name for name, p in self.supernet.named_parameters()}
        momentum = {n: state[p]["momentum_buffer"] for p, n in names.items() if "momentum_buffer" in state.get(p, {})}
        self._set_supernet(widen(self.supernet, partial, momentum, self.moment("widening").generator))
        for name, parameter in self.supernet.named_parameters():
            if name in momentum:
                self.weight_optimizer.state[parameter]["momentum_buffer"] = momentum[name]

    def propose(
        self, target: Target, limits: Limits, excluded: Collection[Architecture] = ()
    ) -> tuple[Architecture, float] | None:
        """The best architecture within ``limits`` that is not ``excluded`` and what the method gives for it; None where
        there is none.
        """
        return first_excluding(self.selection.best(self, target, limits), excluded)

    def choose(self, target: Target) -> Architecture:
        """The architecture that the method takes in the end (never over the budget)."""
        found = self.propose(target, target.limits)
        assert found is not None  # an impossible budget was refused before the search
        return found[0]

    def validate(self, architecture: Architecture) -> float:
        """Accuracy of one architecture with the supernet's weights on (at most 2,000) validation images."""
        watched = self.data.validation
        if len(watched) > VALIDATION_IMAGES:
            watched = type(watched)(watched.images[:VALIDATION_IMAGES], watched.targets[:VALIDATION_IMAGES])
        statistics = batch_statistics if self.recipe.judged_with == "batch" else running_statistics
        with statistics(self.supernet):
            return accuracy(
                lambda x: self.supernet.run_architecture(x, architecture), self.data, watched, processes=self.processes
            )

    def judge(self, target: Target, architectures: Iterable[Architecture]) -> None:
        """Put into ``target.judged`` the logarithm of every architecture's accuracy, what is there already left out."""
        for architecture in architectures:
            if architecture not in target.judged:
                target.judged[architecture] = math.log(max(self.validate(architecture), 1e-6))

    @property
    def kind_of_step(self) -> str:
        """What learns in the next step."""
        return "weights and logits" if self.logits_learn and any(self.logit_optimizers) else "weights alone"

    def evaluate(self) -> float:
        """What is done for a target at the end of an epoch: take an architecture, and validate it."""
        return self.validate(self.selection.watched(self, self.targets[0]))

    def epoch_report(self) -> list[EpochRow]:
        """Return one row for each target, for the epoch that has just ended."""
        self._require_finite()
        rows = [self._epoch_row(target, sums) for target, sums in zip(self.targets, self.sums, strict=True)]
        self._forget_epoch()
        return rows

    def _epoch_row(self, target: Target, sums: Mapping[str, float | Tensor]) -> EpochRow:
        p = {kind: values.detach() for kind, values in target.distribution.probabilities().items()}
        penalised = target.goal.penalised
        relative = relative_costs(p, target.expected, penalised).tolist()
        architecture = self.selection.watched(self, target)
        skips = share_of_skips(self.space, architecture)
        self._watch_skips(target, skips)
        rounded = {kind: [[round(v, 6) for v in row] for row in values.tolist()] for kind, values in p.items()}
        known = {"target": target.goal.target, "stopped": target.stopped}
        optional: dict[str, Any] = {name: text for name, text in known.items() if text}
        if target.resources:
            optional["resource_penalty"] = target.resources(p).item()
        return EpochRow(
            epoch=self.epoch,
            step=self.step,
            device=target.goal.device,
            budget=target.budget.text,
            train_loss=float(sums["loss"] / max(sums["count"], 1)),
            train_accuracy=float(sums["correct"] / max(sums["count"], 1)),
            validation_accuracy=self.validate(architecture),
            expected_cost={m: share * bound for share, (m, bound) in zip(relative, penalised.items(), strict=True)},
            expected_over_budget=dict(zip(penalised, relative, strict=True)),
            multipliers=dict(zip(penalised, target.multipliers.tolist(), strict=True)),
            entropy=entropy(p),
            skip_share=skips,
            architecture=self.space.format(architecture, all_edges=True),
            probabilities=rounded,
            **optional,
        )

    def _watch_skips(self, target: Target, skips: float) -> None:
        """Stop a target's logits, as they were an epoch ago, when its cell collapses to ``skip_connect``."""
        most = self.recipe.most_skips
        if most is None or target.stopped:
            return
        if skips >= most and self.learn_in(self.epoch - 1):
            target.distribution.load_state_dict(target.before)
            target.stopped = f"{skips:.0%} of the edges became skip_connect in epoch {self.epoch}"
        else:
            self._keep_logits(target)

    def _keep_logits(self, target: Target) -> None:
        """For a collapse in the next epoch."""
        if self.recipe.most_skips is not None:
            target.before = {key: value.detach().clone() for key, value in target.distribution.state_dict().items()}

    def state(self) -> dict[str, Any]:
        self._require_finite()
        return {
            "step": self.step,
            "stage": self.stage,
            "supernet": self.supernet.state_dict(),
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "distributions": [t.distribution.state_dict() for t in self.targets],
            "logit_optimizers": [o.state_dict() if o else None for o in self.logit_optimizers],
            "multipliers": [t.multipliers for t in self.targets],
            "log_probability": [self._log_probability(t) for t in self.targets],
            "memory": [t.memory for t in self.targets],
            "before": [t.before for t in self.targets],
            "stopped": [t.stopped for t in self.targets],
            "sums": [{name: float(value) for name, value in sums.items()} for sums in self.sums],
        }

    def _log_probability(self, target: Target) -> dict[str, Tensor] | None:
        """For who reads the search later (hwnas.runs.probabilities); None where architectures are not taken by it."""
        if not isinstance(self.selection, Probable):
            return None
        return {kind: torch.from_numpy(values) for kind, values in target.log_probability().items()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.step, self.stage, self.sums = state["step"], state["stage"], state["sums"]
        partial = self.stages[self.stage].partial_channels
        if partial != self.supernet.partial:
            self._set_supernet(Supernet(self.sized, partial, self.recipe.shared_features))
        self.supernet.load_state_dict(state["supernet"])
        self.weight_optimizer.load_state_dict(state["weight_optimizer"])
        for number, target in enumerate(self.targets):
            target.distribution.load_state_dict(state["distributions"][number])
            if optimizer := self.logit_optimizers[number]:
                optimizer.load_state_dict(state["logit_optimizers"][number])
            target.multipliers = state["multipliers"][number].to(self.logits_device)
            target.memory = {name: value.to(self.logits_device) for name, value in state["memory"][number].items()}
            target.before, target.stopped = state["before"][number], state["stopped"][number]


def resource_penalty(penalty: Penalty, sized: SizedSpace, costs: Mapping[str, Metric]) -> ResourcePenalty | None:
    """The SNAS paper's penalty, if the recipe asks for it."""
    if penalty.form == "relative":
        return None
    places = {kind: len(sized.network.places(kind)) for kind in sized.space.cells}
    linear = {metric: model for metric, model in costs.items() if isinstance(model, CostModel)}
    return ResourcePenalty(linear, places, penalty.form, penalty.resources)


def share_of_skips(space: SearchSpace, architecture: Architecture) -> float:
    """The share of ``skip_connect`` among the edges that are not ``none``, over all cell kinds."""
    used = [op for cell in architecture.cells for op in cell if op != NONE]
    return used.count(SKIP) / max(len(used), 1)


def run_search(
    search: Search,
    folder: Path,
    digest: str,
    progress: Progress,
    report: Callable[[EpochRow], None],
    profile: StepProfile | None = None,
) -> None:
    """Run to the end, from the checkpoint in ``folder`` if there is one; ``metrics.jsonl`` gets a line an epoch and
    target, and ``report`` hears each. Of several processes the first alone reads and writes. ``profile`` looks at some
    steps and changes nothing.
    """
    checkpoint, leads = Checkpoint(folder / "checkpoint.pt", digest), search.processes.leads
    saved = checkpoint.load() if leads else None
    if saved:
        search.load_state(saved)
    if not search.processes.alone:
        search.load_state(search.processes.from_leader(search.state()))
    if leads:
        _drop_later_lines(folder / "metrics.jsonl", search.step)
        write = append_lines(folder / "metrics.jsonl")
    while not search.over:
        if profile:
            profile.step(search.kind_of_step, search.take_step, search.evaluate)
        else:
            search.take_step()
        progress("searching", search.step, search.total_steps)
        if search.step % search.steps_an_epoch == 0:
            for row in search.epoch_report():
                if leads:
                    write(json.dumps(row.to_json()))
                report(row)
        if leads and (checkpoint.due() or search.over):
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


@contextmanager
def running_statistics(module: nn.Module) -> Any:
    """Batch norms use what they have gathered while the supernet was trained."""
    module.eval()
    try:
        yield
    finally:
        module.train()
