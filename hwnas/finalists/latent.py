"""The latent space in which finalists are proposed, trained once a run."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from hwnas.files import sha256_of
from hwnas.finalists.evidence import Advance, Evidence
from hwnas.latent.graphs import CellGraphs
from hwnas.latent.latent_space import LatentSpace
from hwnas.latent.training import new_autoencoder, train_autoencoder
from hwnas.recipe import Autoencoder
from hwnas.training.checkpoint import pack, unpack


@dataclass(frozen=True)
class AutoencoderTraining:
    """The graphs and the settings of a graph autoencoder, and the seed of its random numbers."""

    graphs: CellGraphs
    settings: Autoencoder
    seed: int

    def latent_space(self, evidence: Evidence) -> Generator[Advance, None, LatentSpace]:
        """Return the latent space; the weights are those among the files of the evidence, or are trained.

        Yields an advance for every epoch; the last has the file of the weights.
        """
        name = f"autoencoder-{sha256_of([evidence.digest, 'autoencoder'])[:16]}.pt"
        if name in evidence.files:
            autoencoder = new_autoencoder(self.graphs, self.settings, self.seed)
            autoencoder.load_state_dict(unpack(evidence.files[name]))
            return LatentSpace(self.graphs, autoencoder.eval())
        stage, epochs = "training the graph autoencoder", self.settings.epochs
        training = train_autoencoder(self.graphs, self.settings, self.seed)
        while True:
            try:
                yield Advance(stage, next(training), epochs)
            except StopIteration as end:
                space: LatentSpace = end.value
                break
        weights = dict(space.autoencoder.state_dict())
        yield Advance(stage, epochs, epochs, {name: pack(evidence.digest, weights)})
        return space
