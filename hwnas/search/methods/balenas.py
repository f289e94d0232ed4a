"""BaLeNAS: a posterior over the logits, learnt by variational Adam (Zhang et al., CVPR 2022).

The logits have a normal distribution with independent entries, q(alpha) = N(mu, 1 / P). Every batch has a sample of its
own, whose mixture is softmax(alpha): wide posteriors explore. mu is derived, and E[C] and reports are computed with
p = softmax(mu). The posterior is learnt by variational Adam (Khan et al., ICML 2018) from the gradient g of the logits'
loss at samples, with N images for the logits and a prior N(0, 1 / lambda0):

    alpha = mu + noise / sqrt(P),   P = N s + lambda0
    m  <- b1 m + (1 - b1) (mean of g + lambda0 / N * mu)
    s  <- b2 s + (1 - b2) (mean of g^2)
    mu <- mu - lr * m^ / (sqrt(s^) + lambda0 / N)

where the means are over ``samples`` samples and ^ is Adam's correction of the bias at the start. N is the number of
images that the logits learn from, lambda0 ``prior_precision``; P starts at ``precision``, an option of the
distribution. lr, lr_end, betas and clip_norm of the recipe's ``logits`` are used; the prior replaces weight decay and
eps. g is the gradient of a batch's mean loss, as in the code: its squares are smaller than those of single images, so
the posterior is wider than that of Bayes' rule by up to the square root of the batch size.

BaLeNAS-TF selects by scores that need no training (``selection: untrained``): ``samples`` samples of the logits are
each derived within the budget, and the architecture of the largest sum of ranks in the scores of the finalists'
shortlist is taken (parameters, MACs, SynFlow, NASWOT and ZiCo at the sizes of the search network).

Differences from the paper: BaLeNAS's own code was not published, and the equations are those of the variational Adam in
a related repository of its authors. Budgets' penalties are part of the loss. The paper's scores and their number of
samples are not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from pydantic import Field, FiniteFloat
from pydantic.dataclasses import dataclass
from torch import Tensor

from hwnas.budgets.derive import Limits, derive
from hwnas.compute.device import to_device
from hwnas.compute.seeds import Purpose
from hwnas.errors import HwnasError
from hwnas.recipe import Recipe
from hwnas.scores.score import SCORES, rank_sums
from hwnas.search.axes import BatchResult, LearningStep, Scorer
from hwnas.search.choices import register
from hwnas.search.distribution import Distribution, Draw, DrawContext, EdgeLogits
from hwnas.search.selection import best_scored
from hwnas.search.target import TargetState
from hwnas.spaces import Architecture, SearchSpace


@register("distribution", "gaussian")
class GaussianLogits(EdgeLogits):
    """The softmax of logits that are drawn from a normal posterior; p is that of its mean.

    ``precision`` is the inverse variance at the start. Raises HwnasError where it is not positive, or where the recipe
    asks for another optimiser of the logits than Adam, or for weight decay.
    """

    final_zeros = True

    def __init__(
        self, space: SearchSpace, recipe: Recipe, generator: torch.Generator, precision: FiniteFloat = 1.0
    ) -> None:
        super().__init__(space, recipe, generator)
        if not precision > 0:
            raise HwnasError(f"distribution gaussian: a precision of {precision}", "give a positive one")
        if recipe.logits.name != "adam" or recipe.logits.weight_decay:
            raise HwnasError(
                "distribution gaussian is learnt by variational Adam, whose prior replaces weight decay",
                "in the recipe's logits, set name: adam and weight_decay: 0.0",
            )
        for kind, logits in self.logits.items():
            start = torch.full(logits.shape, precision, dtype=torch.float64)
            self.register_buffer(f"precision_{kind}", start)

    def precision(self, kind: str) -> Tensor:
        """Return the precision [E, K] of the posterior, float64."""
        return self.get_buffer(f"precision_{kind}")

    def sample(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw logits [E, K] of every cell kind; minus infinity where a candidate is out of the search."""
        drawn = {}
        for kind, mean in self.scores().items():
            noise = to_device(torch.randn(mean.shape, generator=generator), mean.device)
            drawn[kind] = mean + (noise / self.precision(kind).sqrt()).to(mean.dtype)
        return drawn

    def draw(self, context: DrawContext) -> Draw:
        drawn = self.sample(context.generator)
        return Draw({kind: torch.softmax(alpha / context.temperature, dim=-1) for kind, alpha in drawn.items()})


@register("learning", "variational")
@dataclass(frozen=True)
class Variational:
    """Variational Adam: a step of the logits' posterior on its batch, then a step of the weights on theirs."""

    samples: int = Field(default=1, ge=1)
    prior_precision: FiniteFloat = Field(default=1.0, gt=0)

    def check(self, distribution: Distribution) -> None:
        if not isinstance(distribution, GaussianLogits):
            raise HwnasError("learning variational needs a posterior over logits", "use distribution: gaussian")
        least = min(float(distribution.precision(kind).min()) for kind in distribution.logits)
        if least < self.prior_precision:
            raise HwnasError(
                f"the posterior starts with a precision of {least:g}, the prior has {self.prior_precision:g}",
                "give distribution gaussian a larger precision, or lower prior_precision",
            )

    def learn(self, step: LearningStep, target: TargetState) -> BatchResult:
        if step.logits_trainable and not target.stopped:
            self._logits_step(step, target)
        return step.weights_step(target)

    def _logits_step(self, step: LearningStep, target: TargetState) -> None:
        posterior, optimizer = target.distribution, target.optimizer
        assert isinstance(posterior, GaussianLogits)
        assert optimizer is not None
        context, clip = step.draw_context(Purpose.LOGITS_DRAW), step.recipe.logits.clip_norm
        slopes = []
        for _ in range(self.samples):
            step.zero_grad(target)
            task, penalty = step.logits_loss(target, context=context)
            slopes.append(clipped(step.gradients(task + penalty, list(posterior.logits.values())), clip))
        taken = target.memory.get("steps", torch.zeros((), dtype=torch.long)) + 1
        target.memory["steps"] = taken
        images, rate = step.batches["logits"].images, optimizer.optimizer.param_groups[0]["lr"]
        for (kind, mean), *own in zip(posterior.logits.items(), *slopes, strict=True):
            moment = target.memory.setdefault(f"moment_{kind}", torch.zeros_like(mean))
            precision = posterior.precision(kind)
            with torch.no_grad():
                change = variational_adam(
                    mean.detach(), moment, precision, torch.stack(own), int(taken), images, self.prior_precision,
                    step.recipe.logits.betas,
                )  # fmt: skip
                mean -= rate * change


def variational_adam(
    mean: Tensor,
    moment: Tensor,
    precision: Tensor,
    slopes: Tensor,
    taken: int,
    images: int,
    prior: float,
    betas: tuple[float, float],
) -> Tensor:
    """Update ``moment`` and ``precision`` in place by ``slopes`` [samples, …], and return the change of the mean that a
    learning rate scales. ``taken`` is the number of steps, this one included.
    """
    first, second = betas
    moment.lerp_(slopes.mean(dim=0) + prior / images * mean, 1 - first)
    squares = ((precision - prior) / images).lerp_(slopes.double().square().mean(dim=0), 1 - second)
    precision.copy_(images * squares + prior)
    spread = (squares / (1 - second**taken)).sqrt() + prior / images
    return (moment.double() / (1 - first**taken) / spread).to(mean.dtype)


def clipped(slopes: Sequence[Tensor], most: float) -> list[Tensor]:
    """Return gradients scaled so that their common norm is at most ``most``."""
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(slope) for slope in slopes]))
    factor = (most / (norm + 1e-6)).clamp(max=1.0)
    return [slope * factor for slope in slopes]


@register("selection", "untrained")
@dataclass(frozen=True)
class Untrained:
    """The best by training-free scores of the architectures within the limits that ``samples`` of the posterior favour.

    The value of an architecture is its mean rank in the scores, as a share of the number of architectures.
    """

    samples: int = Field(default=100, ge=1)

    def best(self, scorer: Scorer, target: TargetState, limits: Limits) -> Iterator[tuple[Architecture, float]]:
        return best_scored(scorer, target, limits, lambda: self._score(scorer, target, limits))

    def _score(self, scorer: Scorer, target: TargetState, limits: Limits) -> None:
        generator = scorer.draw_context().generator
        found = [self._favourite(scorer, target, limits, generator) for _ in range(self.samples)]
        architectures = list(dict.fromkeys([*target.scores, *found]))  # ranks of different pools do not compare
        scores = scorer.score_untrained(architectures, tuple(SCORES))
        ranks = rank_sums(scores) / (len(scores) * len(architectures))
        target.scores.update(zip(architectures, ranks.tolist(), strict=True))

    def _favourite(
        self, scorer: Scorer, target: TargetState, limits: Limits, generator: torch.Generator
    ) -> Architecture:
        """Return the most probable architecture within the limits for one sample of the logits."""
        draw = target.distribution.draw(scorer.draw_context(generator))
        log_p = target.for_derivation({k: p.detach().double().log().cpu().numpy() for k, p in draw.mixture.items()})
        return derive(scorer.space, log_p, limits, scorer.recipe.inputs_per_node)

    def current_best(self, scorer: Scorer, target: TargetState) -> Architecture:
        """Return the most probable architecture within the limits: none is scored before the end."""
        return derive(scorer.space, target.log_probability(), target.limits, scorer.recipe.inputs_per_node)
