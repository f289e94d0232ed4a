"""Knowledge distillation (Hinton, Vinyals & Dean, 2015): a network learns a teacher's scores besides the classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from hwnas.training.recipe import Distillation


@dataclass(frozen=True)
class Teacher:
    """A trained network: ``scores`` maps images [N, C, H, W], normalised as for the student, to scores [N, classes].

    The scores are on the images' device and carry no gradient. ``fingerprint`` names the teacher's weights by a hash.
    """

    name: str
    fingerprint: str
    scores: Callable[[Tensor], Tensor]


def soft_loss(scores: Tensor, taught: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T^2 times the mean Kullback-Leibler divergence of the softmax of scores [N, K] / T from the teacher's.

    Its gradient is that of the cross entropy with the teacher's probabilities; T^2 makes its size independent of T.
    """
    log_p = nn.functional.log_softmax(scores / temperature, dim=1)
    target = nn.functional.log_softmax(taught / temperature, dim=1)
    return temperature**2 * nn.functional.kl_div(log_p, target, reduction="batchmean", log_target=True)


def distilled(loss: Tensor, scores: Tensor, taught: Tensor, settings: Distillation) -> Tensor:
    """Return the mean, weighted by the recipe, of the classes' ``loss`` and the soft loss."""
    soft = soft_loss(scores.float(), taught.float(), settings.temperature)
    return (1 - settings.weight) * loss + settings.weight * soft
