"""AdvantageNAS: differentiable search by credit assignment (Sato, Sakuma & Akimoto, AAAI 2021).

One operation is drawn for every edge, a[e] ~ Categorical(p[e]), p = softmax(theta), and only this one runs. The score
function's estimate of the gradient is (L - b) (a - p). Here the credit of the edge replaces the loss of the network:

    adv[e] = sum over k of a[e, k] dL/da[e, k] = <dL/dh[e], o(x)>,   g[e] = adv[e] * (a[e] - p[e]),

which is, to first order, the decrease of the loss if the operation's output were zero: a baseline that does not depend
on the draw. E[C] is exact and added to g. Logits and weights learn from separate images; after the warm-up they
alternate by iteration, as in the released code.

``baseline: edge`` subtracts a moving average of the edge's advantage. The advantage of the zero operation is always 0;
with ``zero_credit`` it gets the largest (worst) moving average among the operations of its edge, as in the code. For
NAS-Bench-201 the released code leaves ``none`` out of the search (``without``); derivation within a budget may use it
again. ``credit: loss`` is plain REINFORCE for comparison: the loss with a moving average as its baseline.

Differences from the code: it clips uniform noise and probabilities at 0.001, which flattens extreme ones; here the draw
is exact. Convolutions of the released supernet have no ReLU (its result is overwritten); here they have one. The cosine
schedule of the logits' learning rate starts after the warm-up there and with the first epoch here, so the rate is lower
while they learn. On words, the code drops channels in the logits' batches, too.
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

NEW = 0.05  # weight of a new value in the moving averages


@register("learning", "advantage")
@dataclass(frozen=True)
class Advantage:
    """The score function estimator with an advantage for every edge."""

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
        """Return the credit [E] of every edge."""
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
