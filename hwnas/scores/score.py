"""Score architectures without training them, at the sizes of the search network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from hwnas.compute.seeds import Purpose, seed_of
from hwnas.cost.counts import count_metrics
from hwnas.cost.metric import MACS, PARAMS, Metric
from hwnas.cost.model import Array
from hwnas.errors import HwnasError
from hwnas.files import sha256_of
from hwnas.networks.child import ChildNetwork
from hwnas.scores.naswot import naswot
from hwnas.scores.synflow import synflow
from hwnas.scores.zico import zico
from hwnas.spaces import Architecture, SizedSpace
from hwnas.spaces.encoding import decode, encode, without_dead_edges

MIN_IMAGES = 4  # two in each half of a batch


@dataclass(frozen=True)
class UntrainedChild:
    """One architecture to score: without dead edges, with random weights.

    The weights depend on ``seed`` and the architecture alone. ``batch`` is a batch of normalised images [N, C, H, W],
    or None.
    """

    sized: SizedSpace
    architecture: Architecture
    seed: int
    batch: Tensor | None

    @property
    def images(self) -> Tensor:
        """The batch. Raises HwnasError when there is none."""
        if self.batch is None:
            raise HwnasError("this score needs images, and none were given", "give a batch of at least four images")
        return self.batch

    @property
    def labels(self) -> Tensor:
        """Classes [N] for the images, all equally frequent: before training, a loss hardly depends on the true ones."""
        return torch.arange(len(self.images)) % self.sized.setting.classes

    @cached_property
    def network(self) -> ChildNetwork:
        """The child network. All scores of the architecture share it, so they must not change it."""
        with torch.random.fork_rng(devices=[]):
            self.seed_generator()
            return ChildNetwork(self.sized, self.architecture, prune=True)

    def seed_generator(self) -> None:
        """Seed torch's generator on the CPU with this architecture's seed."""
        digest = sha256_of(self.architecture.cells)
        torch.default_generator.manual_seed(seed_of(self.seed, Purpose.SCORED_WEIGHTS, int(digest[:16], 16)))


Score = Callable[[UntrainedChild], float]  # larger is better


def params(child: UntrainedChild) -> float:
    """Return the number of parameters of a child, dead edges left out."""
    return _count(child, PARAMS)


def macs(child: UntrainedChild) -> float:
    """Return the multiply-accumulates of a child by the space's convention, dead edges left out."""
    return _count(child, MACS)


def _count(child: UntrainedChild, metric: Metric) -> float:
    return count_models(child.sized)[metric.name].predict(child.architecture)


count_models = lru_cache(maxsize=4)(count_metrics)  # counting takes longer than scoring

SCORES: dict[str, Score] = {
    "params": params,
    "macs": macs,
    "synflow": lambda child: synflow(child.network, child.sized.setting.images[:3]),
    "naswot": lambda child: naswot(child.network, child.images),
    "zico": lambda child: zico(child.network, child.images, child.labels),
}


def score_architectures(
    sized: SizedSpace,
    architectures: Sequence[Architecture],
    names: Sequence[str],
    images: Tensor | None = None,
    seed: int = 0,
) -> dict[str, Array]:
    """Return the scores [len(architectures)] of architectures, float64 and finite, by the names in ``SCORES``.

    ``images`` [N, C, H, W] are normalised, of the sizes of ``sized``, and at least four; scores that read no images
    need none. A score depends on its architecture, the images and ``seed`` alone, not on the other architectures. Two
    that differ in dead edges only are scored once. Computed on the CPU; torch's generator is left as it was.

    Raises HwnasError for an unknown name, missing images or images of other sizes, and a score that is not finite.
    """
    functions = {name: _score(name) for name in names}
    batch = None if images is None else _batch(sized, images)
    if not architectures:
        return {name: np.empty(0) for name in functions}
    choices = without_dead_edges(sized.space, encode(sized.space, list(architectures)))
    distinct, index = np.unique(choices, axis=0, return_inverse=True)
    scores = {name: np.empty(len(distinct)) for name in functions}
    with torch.random.fork_rng(devices=[]):
        for row, choice in enumerate(distinct):
            child = UntrainedChild(sized, decode(sized.space, choice), seed, batch)
            for name, function in functions.items():
                child.seed_generator()  # for a score or an operation that draws random numbers
                scores[name][row] = _finite(name, function(child), child)
    return {name: values[index.ravel()] for name, values in scores.items()}


def _score(name: str) -> Score:
    if name not in SCORES:
        raise HwnasError(f"unknown score {name!r}", f"use one of {', '.join(sorted(SCORES))}")
    return SCORES[name]


def _batch(sized: SizedSpace, images: Tensor) -> Tensor:
    shape = sized.setting.images[:3]
    if images.ndim != 4 or len(images) < MIN_IMAGES or tuple(images.shape[1:]) != shape:
        raise HwnasError(
            f"the images to score with have shape {list(images.shape)}",
            f"give at least {MIN_IMAGES} images of shape {list(shape)}",
        )
    return images.detach().to("cpu", torch.float32)


def _finite(name: str, value: float, child: UntrainedChild) -> float:
    if not np.isfinite(value):
        text = child.sized.space.format(child.architecture, all_edges=True)
        raise HwnasError(f"score {name} of {text} is {value}", "return a finite number for every architecture")
    return value


def rank_sums(scores: Mapping[str, Array]) -> Array:
    """Return the sum over all scores [N] of the ranks of architectures [N], 1 for the lowest."""
    from scipy.stats import rankdata  # takes most of a second to import

    return np.sum([rankdata(values) for values in scores.values()], axis=0)
