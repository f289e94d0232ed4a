"""AdvantageNAS: differentiable search by credit assignment (Sato, Sakuma & Akimoto, AAAI 2021).

Of every edge one operation is drawn, a[e] ~ Categorical(p[e]), p = softmax(theta), and only this one runs. The score
function's estimate of the gradient is (L - b) (a - p); the credit of a single edge replaces the loss of the network:

    adv[e] = sum over k of a[e, k] dL/da[e, k] = <dL/dh[e], o(x)>,   g[e] = adv[e] * (a[e] - p[e]),

which is to first order what the loss would gain if the operation's output were zero: a baseline that does not depend on
what was drawn. E[C] is exact and added to g. Logits learn from images of their own; after the warm-up they and the
weights take turns by iteration, as in the released code.

``baseline: edge`` takes off a moving average of an edge's advantage. The zero operation's own advantage is always 0;
with ``zero_credit`` it gets the largest (worst) moving average among the operations of its edge (the code's remedy).
For NAS-Bench-201 the released code leaves ``none`` out of the search (``without``); a budget's derivation may bring it
back. ``credit: loss`` is plain REINFORCE, the loss with a moving average as its baseline, to compare with.

Where this differs: the code clips its uniform noise and its probabilities at 0.001, which flattens extreme ones; here
the draw is exact. In the released supernet convolutions have no ReLU (its result is overwritten); here they have.
The cosine of the logits' rate begins after the warm-up there, and with the first epoch here: it is lower as they learn.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from hwnas.compute.seeds import Purpose
from hwnas.errors import HwnasError
from hwnas.search.axes import BatchResult, LearningStep
from hwnas.search.choices import register
from hwnas.search.distribution import Categorical, Distribution
from hwnas.search.methods.darts import set_gradients
from hwnas.search.target import TargetState
from hwnas.spaces import NONE

NEW = 0.05  # the weight of what is new in the moving averages


@register("learning", "advantage")
@dataclass(frozen=True)
class Advantage:
    """The score function with an edge's own credit."""

    credit: Literal["edge", "loss"] = "edge"
    baseline: Literal["none", "edge"] = "none"
    zero_credit: bool = False
    alternate: bool = True

    def check(self, distribution: Distribution) -> None:
        if not isinstance(distribution, Categorical):
            raise HwnasError("learning advantage needs one drawn operation an edge", "use distribution: categorical")

    def learn(self, step: LearningStep, target: TargetState) -> BatchResult:
        if not step.logits_trainable:
            return step.weights_step(target)
        if not self.alternate or step.turn % 2 == 0:
            outcome = self._logits_step(step, target)
            if self.alternate:
                return outcome
        return step.weights_step(target)

    def _logits_step(self, step: LearningStep, target: TargetState) -> BatchResult:
        draw = step.draw(target, Purpose.LOGITS_DRAW)
        gates = {kind: a.clone().requires_grad_() for kind, a in draw.mixture.items()}
        outcome = step.task_loss(target, draw.with_mixture(gates), "logits")
        slopes = dict(zip(gates, step.gradients(outcome.task, list(gates.values())), strict=True))
        set_gradients(step, target, step.penalty(target, draw))
        p = {kind: values.detach() for kind, values in target.distribution.probabilities().items()}
        for kind, a in draw.mixture.items():
            credit = self._credit(step, target, kind, a, slopes[kind], outcome.task.detach().to(a.device))
            logits = target.logits[kind]
            assert logits.grad is not None
            logits.grad += credit[:, None] * (a - p[kind])
        step.step_logits(target)
        return outcome

    def _credit(
        self, step: LearningStep, target: TargetState, kind: str, a: Tensor, slope: Tensor, loss: Tensor
    ) -> Tensor:
        """[E]: what every edge is to be blamed for."""
        memory = target.memory
        if self.credit == "loss":
            mean = memory.setdefault("loss", loss.clone())
            credit = (loss - mean).expand(len(a))
            if kind == list(target.logits)[-1]:
                memory["loss"] = mean + NEW * (loss - mean)
            return credit
        advantage = (a * slope).sum(dim=-1)
        if self.zero_credit:
            table = memory.setdefault(f"slopes_{kind}", torch.zeros_like(slope))
            drawn = a.bool()
            table = torch.where(drawn, table + NEW * (slope - table), table)
            memory[f"slopes_{kind}"] = table
            none = step.space.operations.index(NONE)
            others = table.clone()
            others[:, none] = -torch.inf
            advantage = torch.where(drawn[:, none], others.max(dim=-1).values, advantage)
        if self.baseline == "edge":
            mean = memory.setdefault(f"advantage_{kind}", torch.zeros_like(advantage))
            memory[f"advantage_{kind}"] = mean + NEW * (advantage - mean)
            advantage = advantage - mean
        return advantage
