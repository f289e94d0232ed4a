"""beta-DARTS: beta-decay regularisation of the logits (Ye et al., CVPR 2022).

First-order DARTS whose logits alpha minimise

    L_val(w, alpha) + lambda * (mean over edges e of log sum over k of exp(alpha[e, k])),   lambda = weight * progress

where progress rises linearly from 0 in the first epoch in which logits learn to 1 in the last. The gradient of the term
is lambda / E * beta, beta = softmax(alpha): it lowers likely operations more than unlikely ones, which keeps the
probabilities close together and, with them, the supernet's sensitivity to its logits.

Published searches let logits learn for 100 epochs, over which the weight rises to 50, by half a unit an epoch. Short
recipes keep that slope, and so have a smaller weight: Adam divides a gradient by its usual size, so a weight of 50 from
the start leaves nothing of the images' gradient, and logits remain equal.

The regulariser is a choice of its own: ``regulariser: {name: beta_decay, weight: 50}`` in the recipe of any method with
logits (SNAS, DrNAS, GDAS, PC-DARTS, AdvantageNAS, EnTranNAS) adds the same term. With DrNAS alpha is eta, of which the
concentration is elu(eta) + 1. Operations that are out of the search do not count.

Differences from the released code: the mean is over the edges of all cell kinds, where the code has one kind of cell.
Adam's weight decay on the logits stays on, as there.
"""

from __future__ import annotations

import torch
from pydantic import Field, FiniteFloat
from pydantic.dataclasses import dataclass
from torch import Tensor

from hwnas.errors import HwnasError
from hwnas.search.choices import register
from hwnas.search.distribution import Distribution, EdgeLogits


@register("regulariser", "beta_decay")
@dataclass(frozen=True)
class BetaDecay:
    """The mean over edges of log sum exp(logits), times a weight that rises linearly from 0 to ``weight``.

    It rises over the epochs in which logits learn.
    """

    weight: FiniteFloat = Field(default=50.0, ge=0)

    def check(self, distribution: Distribution) -> None:
        if not isinstance(distribution, EdgeLogits):
            raise HwnasError("regulariser beta_decay needs a logit for every operation", "remove it from the recipe")

    def __call__(self, distribution: EdgeLogits, progress: float) -> Tensor:
        edges = [torch.logsumexp(alpha, dim=-1) for alpha in distribution.scores().values()]
        return self.weight * progress * torch.cat(edges).mean()
