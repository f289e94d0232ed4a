"""The price of finalists: processor time by a rule without any timing, so that equal runs decide alike on any machine.

A pass of a batch through a network takes EDGE_S for every edge and a second for every MACS_PER_S multiply-accumulates.
A training step counts as three passes (forward, and the gradients of activations and of weights), the scores of an
architecture as SCORING_PASSES, and the processes of every stage take START_S to start. MACs are those of the largest
network within a target's limits, so the price of average ones is less. This is a rule and no measurement: cells of many
small operations, as those of DARTS, take longer.

A training step of a graph autoencoder takes GRAPH_EDGE_S for every edge of the cells, and its MACs. GRAPH_EDGE_S is
chosen so that this gives the 31 s recorded for NAS-Bench-201 (benchmarks/results/latent_search).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwnas.budgets.derive import Limits, largest
from hwnas.cost.counts import count_metrics
from hwnas.cost.metric import MACS
from hwnas.cost.model import CostModel
from hwnas.finalists.judge import most_proposed
from hwnas.recipe import Autoencoder, Finalists
from hwnas.search.evaluation import SCORED_IMAGES
from hwnas.spaces import SearchSpace, SizedSpace

CHEAP_S = 600.0  # up to which finalists are trained by default
MACS_PER_S, EDGE_S, START_S = 2e10, 2e-4, 8.0
TRAINING_PASSES, SCORING_PASSES = 3, 8
GRAPH_EDGE_S, GRAPH_MACS = 1.9e-3, 30  # MACs: those of a pass for each edge of a graph, in squares of the width


@dataclass(frozen=True)
class Images:
    """The numbers of images that train and validate a network."""

    training: int
    validation: int


def price(
    settings: Finalists, sized: SizedSpace, targets: Sequence[Limits], images: Images, inputs_per_node: int | None
) -> float:
    """Return the processor time, in seconds, that scores and trainings of all targets' finalists take at most.

    ``sized`` is the network that they are trained as; targets may share some trainings. Baselines are not included.
    Raises HwnasError where no architecture is within a target's limits.
    """
    macs = count_metrics(sized)[MACS.name]
    assert isinstance(macs, CostModel)
    edges = sum(len(cell.edges) * len(sized.network.cell_instances(kind)) for kind, cell in sized.space.cells.items())
    total = (settings.rounds + 2) * START_S
    for limits in targets:
        most = macs.predict(largest(macs, limits, inputs_per_node)) / MACS_PER_S
        batches = -(-images.training // settings.batch_size), -(-images.validation // settings.batch_size)
        epoch = (TRAINING_PASSES * batches[0] + batches[1]) * edges * EDGE_S
        epoch += (TRAINING_PASSES * images.training + images.validation) * most
        scores = SCORING_PASSES * (edges * EDGE_S + SCORED_IMAGES * most)
        total += settings.epochs_of_target * epoch + _candidates(settings) * scores
    return total


def autoencoder_price(settings: Autoencoder, space: SearchSpace) -> float:
    """Return the processor time, in seconds, that the training of a graph autoencoder takes."""
    graphs = min(settings.graphs, space.num_architectures)
    batches = -(-graphs // settings.batch_size)
    macs = TRAINING_PASSES * graphs * GRAPH_MACS * settings.width**2
    return settings.epochs * space.num_edges * (batches * GRAPH_EDGE_S + macs / MACS_PER_S)


def _candidates(settings: Finalists) -> int:
    """Return the most candidates of a target: random ones, and rankings by the method, two counts and the model."""
    return settings.candidates + (2 + settings.rounds) * most_proposed(settings)
