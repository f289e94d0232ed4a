"""SVGe: search in the latent space of a graph autoencoder (Lukasik et al., 2020).

"Smooth Variational Graph Embeddings for Efficient Neural Architecture Search", arXiv 2010.04683. A variational
autoencoder learns the graphs of the space's architectures, without any training of networks: its encoder passes
messages along the edges and against them, and two decoders build the graph from the latent, one in its direction and
one against it. Its loss and its parts are those of hwnas.latent.autoencoder.

The supernet's weights learn with uniformly drawn paths, as in hwnas.search.methods.random_search. Then ``start`` random
architectures within the budget are scored with them on validation images. A Gaussian process is fitted to the scores
in the latent space, and proposes the next ``batch`` by expected improvement, among decoded latents within the budget,
until ``evaluations`` architectures are scored. With finalists, the Gaussian process proposes these, too: those of every
round but the first, from the results of the trainings before.

Differences from the paper: operations are on edges, as in the cells, and not on nodes, and decoded architectures are
exact, so isomorphic graphs have different latents. Of the two graphs that are built, the likelier one is taken.
Accuracies are those of a supernet or of short trainings. The paper's settings of the autoencoder (latent 56, width 250,
2 rounds, kl 0.005, Adam 1e-4, batches of 128, 300 epochs) are in the recipes of ``nasbench201`` and ``darts``; the
numbers of evaluations are our own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from hwnas.budgets.derive import Limits
from hwnas.compute.seeds import Purpose, numpy_generator
from hwnas.errors import HwnasError
from hwnas.latent.graphs import CellGraphs, Choices
from hwnas.latent.proposals import LatentSearch
from hwnas.latent.training import trained_autoencoder
from hwnas.search.axes import Scorer
from hwnas.search.choices import register
from hwnas.search.selection import TRIES, at_random, best_scored, within
from hwnas.search.target import TargetState
from hwnas.spaces import Architecture
from hwnas.spaces.encoding import decode, encode


@register("selection", "latent")
@dataclass(frozen=True)
class Latent:
    """Architectures proposed in the latent space of the recipe's ``autoencoder``; the value is log(accuracy)."""

    evaluations: int = Field(default=100, ge=2)
    start: int = Field(default=20, ge=1)
    batch: int = Field(default=10, ge=1)

    def best(self, scorer: Scorer, target: TargetState, limits: Limits) -> Iterator[tuple[Architecture, float]]:
        return best_scored(scorer, target, limits, lambda: self._search(scorer, target, limits))

    def _search(self, scorer: Scorer, target: TargetState, limits: Limits) -> None:
        recipe, space = scorer.recipe, scorer.space
        assert recipe.autoencoder is not None  # checked before the search
        known = self._random(scorer, limits)
        scorer.score(target, known)
        if len(known) >= self.evaluations:
            return
        graphs = CellGraphs(space, recipe.inputs_per_node, recipe.without)
        latents = trained_autoencoder(graphs, recipe.autoencoder, recipe.seed)
        search = LatentSearch(latents, lambda choices: _within(limits, choices))
        generator = numpy_generator(recipe.seed, Purpose.LATENT_DRAWS)
        while len(known) < self.evaluations:
            values = np.array([target.scores[architecture] for architecture in known])
            number = min(self.batch, self.evaluations - len(known))
            proposals = search.propose(encode(space, known), values, number, generator)
            found = [decode(space, choices) for choices in scorer.agreed(proposals.choices)]
            found = [architecture for architecture in found if within(scorer, architecture, limits)]
            if not found:
                return
            scorer.score(target, found)
            known += found

    def _random(self, scorer: Scorer, limits: Limits) -> list[Architecture]:
        """Return up to ``start`` different architectures within the limits, fewer where draws meet no others."""
        generator, found = scorer.draw_context().generator, dict[Architecture, None]()
        for _ in range(TRIES):
            found[at_random(scorer, limits, generator)] = None
            if len(found) == min(self.start, self.evaluations):
                break
        return list(found)

    def current_best(self, scorer: Scorer, target: TargetState) -> Architecture:
        """Return a random architecture within the limits: none is scored before the end.

        Raises HwnasError where the recipe has no autoencoder.
        """
        if scorer.recipe.autoencoder is None:
            raise HwnasError("selection latent needs a graph autoencoder", "add `autoencoder: {}` to the recipe")
        return at_random(scorer, target.limits, scorer.draw_context().generator)


def _within(limits: Limits, choices: Choices) -> np.ndarray:
    """Return a mask [N] of the choices [N, edges] within the limits."""
    allowed = [model.predict_many(choices) <= bound for model, bound in limits.values()]
    return np.logical_and.reduce([np.ones(len(choices), dtype=bool), *allowed])
