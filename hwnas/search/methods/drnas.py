"""DrNAS: Dirichlet neural architecture search (Chen et al., ICLR 2021).

Every edge's mixture is drawn from a Dirichlet distribution, theta[e] ~ Dir(beta[e]), beta = elu(eta) + 1. eta learns by
the pathwise (implicit) gradient of the sample, first order, from images that do not train the weights:

    min over eta of E[L_val(w, theta)] + weight * distance(Dir(beta), Dir(1)).

The distance is Adam's coupled weight decay on eta (the released code's default, ``logits.weight_decay``) or the
Kullback-Leibler divergence (``regulariser: dirichlet_kl``). A new sample is drawn for every batch. The derived cell has
every edge's argmax of eta, which is the argmax of the Dirichlet mean p = beta / sum(beta); E[C] is computed with p.

Progressive: the epochs are divided into ``stages``. In each, the first 1/k of the channels go through the candidates
(hwnas.networks.mixed_cell). At its start every edge keeps only its likeliest operations, and the candidates are widened
to the smaller k (hwnas.networks.widen). Pruned entries of a sample are set to 0 and the others scaled to sum to 1.

Differences from the paper: the derived cell is validated instead of a sample. Where the operations left after pruning
cannot meet a budget, derivation uses pruned ones, so that the budget is still met.
"""

from __future__ import annotations

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from hwnas.errors import HwnasError
from hwnas.search.choices import register
from hwnas.search.distribution import Distribution, Draw, DrawContext, EdgeLogits


@register("distribution", "dirichlet")
class DirichletEdges(EdgeLogits):
    """A point of the simplex for every edge, drawn from a Dirichlet distribution, with the gradient of the sample."""

    def concentration(self) -> dict[str, Tensor]:
        """Return beta [E, K] of every cell kind."""
        return {kind: torch.nn.functional.elu(eta) + 1 for kind, eta in self.logits.items()}

    def draw(self, context: DrawContext) -> Draw:
        mixture = {}
        for kind, beta in self.concentration().items():
            with torch.random.fork_rng(devices=[]):  # torch.distributions takes no generator
                torch.manual_seed(int(torch.randint(2**62, (), generator=context.generator)))
                sample = Dirichlet(beta, validate_args=False).rsample()  # validation would wait for a GPU
            sample = sample * self.allowed(kind)
            mixture[kind] = sample / sample.sum(dim=-1, keepdim=True)
        return Draw(mixture)

    def probabilities(self) -> dict[str, Tensor]:
        masked = {kind: beta * self.allowed(kind) for kind, beta in self.concentration().items()}
        return {kind: beta / beta.sum(dim=-1, keepdim=True) for kind, beta in masked.items()}


@register("regulariser", "dirichlet_kl")
@dataclass(frozen=True)
class DirichletKL:
    """The sum over edges of KL(Dir(beta) || Dir(1)), times ``weight``."""

    weight: float = 1e-3

    def check(self, distribution: Distribution) -> None:
        if not isinstance(distribution, DirichletEdges):
            raise HwnasError("regulariser dirichlet_kl needs a Dirichlet distribution", "use distribution: dirichlet")

    def __call__(self, distribution: Distribution, progress: float) -> Tensor:
        assert isinstance(distribution, DirichletEdges)
        terms = [
            kl_divergence(*(Dirichlet(b, validate_args=False) for b in (beta, torch.ones_like(beta)))).sum()
            for beta in distribution.concentration().values()
        ]
        return self.weight * torch.stack(terms).sum()
