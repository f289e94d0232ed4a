"""ENAS: efficient architecture search by parameter sharing (Pham et al., ICML 2018).

A recurrent controller writes an architecture down edge after edge, each operation given those before it; of every edge
one operation runs. Weights learn with an architecture drawn for the batch. The controller learns by REINFORCE from the
accuracy of ``samples`` architectures on a batch of images that the weights do not see:

    R = accuracy + 1e-4 * entropy - sum over limits of lambda (C(a) / B - 1),   b <- b + (1 - 0.99) (R - b)
    loss = -mean over samples of log P(a) (R - b)

In the end ``samples`` architectures are drawn within the budget and the one that does best on held-out images is taken
(``selection: best_of``). The settings are those of the NAS-Bench-201 authors' version.

Where this differs: the controller takes a step behind every ``every``-th step of the weights, instead of 50 behind
every epoch; the cost is in its reward, where the other methods differentiate E[C]. Where a recipe says
``inputs_per_node``, an edge's choices are masked so that just so many into a node are other than ``none``. p, which
E[C] and the reports are taken with, is the mean over 64 fixed draws of what every operation's probability was in turn.
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
TANH = 1.1  # logits are kept within these bounds, as in the published controller
DRAWS = 64
NEW = 0.01  # the weight of a new reward in the baseline
ENTROPY = 1e-4


@register("distribution", "controller")
class Controller(Distribution):
    """An LSTM that chooses the operations of all edges of all cell kinds in turn."""

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
        """``number`` architectures: operations [N, E] and their conditional probabilities [N, E, K] of every kind, and
        log P [N].
        """
        state: tuple[Tensor, Tensor] | None = None
        before = torch.full((number,), len(self.space.operations))  # nothing yet
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
        """Which operations [N, K] may stand on edge e after those picked."""
        open_ = self.allowed(kind)[e].expand(number, -1).clone()
        if self.inputs_per_node is None:
            return open_
        none, into = self.space.operations.index(NONE), self.space.cells[kind].edges_into(self._target(kind, e))
        used = sum(((picks[other] != none).long() for other in into if other < e), torch.zeros(number).long())
        missing, left = self.inputs_per_node - used, sum(other >= e for other in into)
        real = torch.arange(open_.shape[1]) != none
        open_[missing <= 0] = ~real  # all inputs are there
        open_[missing >= left] &= real  # every edge that is left is needed
        return open_

    def _target(self, kind: str, e: int) -> int:
        return self.space.cells[kind].edges[e][1]

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
    """Weights by gradient at every step, the controller by REINFORCE behind every ``every``-th."""

    samples: int = Field(default=20, ge=1)
    every: int = Field(default=8, ge=1)

    def check(self, distribution: Distribution) -> None:
        if not isinstance(distribution, Controller):
            raise HwnasError("learning reinforce teaches a controller", "use distribution: controller")

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
                rewards[n] = float(task.correct) / step.recipe.batch_size - (pull * excess).sum()
        entropy = -sum((p * p.clamp_min(1e-30).log()).sum(dim=(1, 2)) for p in conditional.values())
        rewards = rewards + ENTROPY * entropy.detach()  # type: ignore[union-attr]
        baseline = target.memory.get("reward", rewards.mean())
        target.memory["reward"] = baseline + NEW * (rewards.mean() - baseline)
        step.zero_grad(target)
        step.backward(-(log_p * (rewards - baseline)).mean())
        step.step_logits(target)
