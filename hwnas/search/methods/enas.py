"""ENAS: efficient architecture search by parameter sharing (Pham et al., ICML 2018).

A recurrent controller chooses the operations of an architecture edge after edge, each given those before it; one
operation an edge runs. Weights learn with an architecture drawn for the batch. The controller learns by REINFORCE from
the accuracy of ``samples`` architectures on a batch of images that do not train the weights:

    R = accuracy + 1e-4 * entropy - sum over limits of lambda (C(a) / B - 1),   b <- b + (1 - 0.99) (R - b)
    loss = -mean over samples of log P(a) (R - b)

For text the reward is 80 / perplexity in place of the accuracy, as in the paper.

The final architecture is the one of ``samples`` draws within the budget with the best accuracy on held-out images
(``selection: best_of``). The settings are those of the NAS-Bench-201 authors' version.

Differences from the paper: the controller takes one step after every ``every``-th step of the weights, not 50 after
every epoch; the cost is part of its reward, where the other methods differentiate E[C]. With ``inputs_per_node`` in the
recipe, choices are masked so that exactly this number of edges into a node is other than ``none``, and in a space that
asks for inputs so that every node has them. p, with which E[C] and reports are computed, is the mean of the conditional
probabilities over 64 fixed draws.
"""

from __future__ import annotations

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hwnas.compute.seeds import Purpose
from hwnas.errors import HwnasError
from hwnas.recipe import Recipe
from hwnas.search.axes import BatchResult, LearningStep
from hwnas.search.choices import register
from hwnas.search.distribution import Distribution, Draw, DrawContext, one_hot
from hwnas.search.target import TargetState
from hwnas.spaces import NONE, SearchSpace

HIDDEN = 32
TANH = 1.1  # bound of the logits, as in the published controller
DRAWS = 64
NEW = 0.01  # the weight of a new reward in the baseline
ENTROPY = 1e-4


@register("distribution", "controller")
class Controller(Distribution):
    """An LSTM that chooses the operations of all edges of all cell kinds, one after the other."""

    pathwise = False

    def __init__(self, space: SearchSpace, recipe: Recipe, generator: torch.Generator) -> None:
        super().__init__(space, recipe, generator)
        self.inputs_per_node = recipe.inputs_per_node
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            self.embedding = nn.Embedding(len(space.operations) + 1, HIDDEN)
            self.lstm = nn.LSTMCell(HIDDEN, HIDDEN)
            self.head = nn.Linear(HIDDEN, len(space.operations))
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -0.1, 0.1)

    def sample(self, number: int, generator: torch.Generator) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Draw N = ``number`` architectures.

        Return, for every cell kind, operation indices [N, E] and conditional probabilities [N, E, K]; and log P [N].
        """
        state: tuple[Tensor, Tensor] | None = None
        before = torch.full((number,), len(self.space.operations))  # the start token
        total = torch.zeros(number)
        chosen, conditional = {}, {}
        for kind, cell in self.space.cells.items():
            picks: list[Tensor] = []
            shares: list[Tensor] = []
            for e in range(len(cell.edges)):
                state = self.lstm(self.embedding(before), state)
                logits = TANH * torch.tanh(self.head(state[0]))
                logs = torch.log_softmax(logits.masked_fill(~self._open(kind, e, picks, number), -torch.inf), dim=-1)
                p = logs.exp()
                before = torch.multinomial(p.detach(), 1, generator=generator)[:, 0]
                total = total + logs.gather(1, before[:, None])[:, 0]
                picks.append(before)
                shares.append(p)
            chosen[kind], conditional[kind] = torch.stack(picks, dim=1), torch.stack(shares, dim=1)
        return chosen, conditional, total

    def _open(self, kind: str, e: int, picks: list[Tensor], number: int) -> Tensor:
        """Return the mask [N, K] of the operations that edge e may get after ``picks``."""
        open_, cell = self.allowed(kind)[e].expand(number, -1).clone(), self.space.cells[kind]
        needed = self.inputs_per_node or cell.least_inputs
        if not needed:
            return open_
        none, into = self.space.operations.index(NONE), cell.edges_into(cell.edges[e][1])
        used = sum(((picks[other] != none).long() for other in into if other < e), torch.zeros(number).long())
        missing, left = needed - used, sum(other >= e for other in into)
        real = torch.arange(open_.shape[1]) != none
        if self.inputs_per_node is not None:
            open_[missing <= 0] = ~real  # the node has all its inputs
        open_[missing >= left] &= real  # the node needs every edge that is left
        return open_

    def draw(self, context: DrawContext) -> Draw:
        with torch.no_grad():
            picks = self.sample(1, context.generator)[0]
        chosen = {kind: values[0] for kind, values in picks.items()}
        like = torch.zeros(len(self.space.operations))
        return Draw({kind: one_hot(c, like) for kind, c in chosen.items()}, chosen)

    def probabilities(self) -> dict[str, Tensor]:
        with torch.no_grad():
            _, conditional, _ = self.sample(DRAWS, torch.Generator().manual_seed(0))
        return {kind: p.mean(dim=0) for kind, p in conditional.items()}


@register("learning", "reinforce")
@dataclass(frozen=True)
class Reinforce:
    """Train weights at every step, and the controller by REINFORCE after every ``every``-th step."""

    samples: int = Field(default=20, ge=1)
    every: int = Field(default=8, ge=1)

    def check(self, distribution: Distribution) -> None:
        if not isinstance(distribution, Controller):
            raise HwnasError("learning reinforce trains a controller", "use distribution: controller")

    def learn(self, step: LearningStep, target: TargetState) -> BatchResult:
        outcome = step.weights_step(target)
        if step.logits_trainable and step.turn % self.every == self.every - 1:
            self._controller_step(step, target)
        return outcome

    def _controller_step(self, step: LearningStep, target: TargetState) -> None:
        controller = target.distribution
        assert isinstance(controller, Controller)
        chosen, conditional, log_p = controller.sample(
            self.samples, step.draw_context(Purpose.CONTROLLER_SAMPLES).generator
        )
        rewards = torch.zeros(self.samples)
        for n in range(self.samples):
            picks = {kind: values[n] for kind, values in chosen.items()}
            mixture = {kind: one_hot(c, conditional[kind][n]) for kind, c in picks.items()}
            with torch.no_grad():
                task = step.task_loss(target, Draw(mixture, picks), "logits")
                excess = target.relative_costs(mixture) - 1
                pull = target.limit_weights(excess, step.damping)
                batches = step.batches["logits"]
                reward = batches.data.reward(task.task, task.correct, batches.count)
                rewards[n] = reward - (pull * excess).sum()
        entropy = -sum((p * p.clamp_min(1e-30).log()).sum(dim=(1, 2)) for p in conditional.values())
        rewards = rewards + ENTROPY * entropy.detach()  # type: ignore[union-attr]
        baseline = target.memory.get("reward", rewards.mean())
        target.memory["reward"] = baseline + NEW * (rewards.mean() - baseline)
        step.zero_grad(target)
        step.backward(-(log_p * (rewards - baseline)).mean())
        step.step_logits(target)
