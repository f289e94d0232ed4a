"""The graph autoencoder of SVGe (Lukasik et al., "Smooth Variational Graph Embeddings for Efficient Neural
Architecture Search", arXiv 2010.04683): one encoder, and two decoders that build the graph forward and reversed.

The encoder passes messages along the edges and against them, in rounds, and reads mean mu and log variance of a normal
distribution q over latents z from the gated sum of the node features. Each decoder starts every node from z and takes
the edges one at a time: the features of both ends, and z, give the probability of each operation; the chosen one
changes the features of the edge's target. One decoder follows the graph's direction, the other goes against it. The
loss of a graph G is

    -log p_forward(G | z) - log p_reversed(G | z) + kl * KL(q(z | G) || N(0, I)),  z ~ q(z | G).

The paper's networks have operations on nodes and decode these and the edges between them. Here operations are on
edges, as in the cells, and a node knows its place in its cell, so that an architecture is decoded to the letter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hwnas.latent.graphs import CellGraphs, Step
from hwnas.recipe import Autoencoder
from hwnas.spaces import NONE
from hwnas.spaces.encoding import offered


class Messages(nn.Module):
    """Messages along edges: a function of the features at the source and of the operation; none passes on ``none``."""

    def __init__(self, width: int, labels: int, none: int) -> None:
        super().__init__()
        self.source, self.label, self.none = nn.Linear(width, width), nn.Embedding(labels, width), none

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the messages [..., width] of source features [..., width] and labels [...]."""
        carried = (labels != self.none).to(features.dtype).unsqueeze(-1)
        return torch.relu(carried * self.source(features) + self.label(labels))


class Encoder(nn.Module):
    """Return mean and log variance [N, latent] of the latents of graphs [N, edges]."""

    sources: Tensor
    targets: Tensor

    def __init__(self, graphs: CellGraphs, settings: Autoencoder) -> None:
        super().__init__()
        width, labels = settings.width, len(graphs.space.operations) + 1
        none = graphs.space.operations.index(NONE)
        steps = graphs.steps
        self.register_buffer("sources", torch.tensor([step.source for step in steps]), persistent=False)
        self.register_buffer("targets", torch.tensor([step.target for step in steps]), persistent=False)
        self.edges = [step.edge for step in steps]
        self.link, self.rounds = labels - 1, settings.rounds
        self.node = nn.Parameter(torch.randn(graphs.nodes, width) * width**-0.5)
        self.along, self.against = Messages(width, labels, none), Messages(width, labels, none)
        self.update = nn.GRUCell(2 * width, width)
        self.gate, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.mean, self.log_variance = nn.Linear(width, settings.latent), nn.Linear(width, settings.latent)

    def forward(self, graphs: Tensor) -> tuple[Tensor, Tensor]:
        number, (nodes, width) = len(graphs), self.node.shape
        labels = torch.stack(
            [torch.full_like(graphs[:, 0], self.link) if e is None else graphs[:, e] for e in self.edges], dim=1
        )
        features = self.node.expand(number, nodes, width)
        for _ in range(self.rounds):
            along = self.along(features[:, self.sources], labels)
            against = self.against(features[:, self.targets], labels)
            into = torch.zeros(number, nodes, width).index_add(1, self.targets, along)
            out = torch.zeros(number, nodes, width).index_add(1, self.sources, against)
            received = torch.cat([into, out], dim=-1).flatten(0, 1)
            features = self.update(received, features.flatten(0, 1)).view(number, nodes, width)
        whole = (torch.sigmoid(self.gate(features)) * self.value(features)).sum(dim=1)
        return self.mean(whole), self.log_variance(whole)


class Decoder(nn.Module):
    """Builds graphs from latents [N, latent], one edge after another in the order of ``steps``."""

    offered: Tensor

    def __init__(self, graphs: CellGraphs, steps: Sequence[Step], settings: Autoencoder) -> None:
        super().__init__()
        width, operations = settings.width, len(graphs.space.operations)
        self.steps, self.link = steps, operations
        self.register_buffer("offered", torch.tensor(offered(graphs.space)), persistent=False)
        self.start = nn.Linear(settings.latent, width)
        self.node = nn.Parameter(torch.randn(graphs.nodes, width) * width**-0.5)
        self.edge = nn.Parameter(torch.randn(graphs.space.num_edges, width) * width**-0.5)
        self.message = Messages(width, operations + 1, graphs.space.operations.index(NONE))
        self.update = nn.GRUCell(width, width)
        self.latent = nn.Linear(settings.latent, width)
        self.ends = nn.Linear(2 * width, width)
        self.operation = nn.Linear(width, operations)

    def forward(self, latents: Tensor, graphs: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return graphs [N, edges] and the log probability [N] of each.

        They are ``graphs``, or by default the likeliest operation of every edge after those before it.
        """
        begin, direct = self.start(latents), self.latent(latents)
        features = [torch.tanh(begin + own) for own in self.node]
        total = torch.zeros(len(latents))
        chosen: list[Tensor] = [torch.empty(0)] * len(self.edge)
        for step in self.steps:
            source, target = features[step.source], features[step.target]
            if step.edge is None:
                labels = torch.full((len(latents),), self.link)
            else:
                ends = self.ends(torch.cat([source, target], dim=-1))
                logits = self.operation(torch.relu(ends + direct + self.edge[step.edge]))
                log_p = logits.masked_fill(~self.offered[step.edge], -torch.inf).log_softmax(dim=-1)
                labels = log_p.argmax(dim=-1) if graphs is None else graphs[:, step.edge]
                total = total + log_p.gather(1, labels[:, None])[:, 0]
                chosen[step.edge] = labels
            features[step.target] = self.update(self.message(source, labels), target)
        return torch.stack(chosen, dim=1), total


class GraphAutoencoder(nn.Module):
    """The encoder and both decoders for the graphs of a space."""

    def __init__(self, graphs: CellGraphs, settings: Autoencoder) -> None:
        super().__init__()
        self.encoder = Encoder(graphs, settings)
        self.decoders = nn.ModuleList(
            Decoder(graphs, steps, settings) for steps in (graphs.steps, graphs.reversed_steps)
        )
        self.kl = settings.kl

    def loss(self, graphs: Tensor, noise: Tensor) -> Tensor:
        """Return the mean loss of graphs [N, edges]; ``noise`` [N, latent] is standard normal."""
        mean, log_variance = self.encoder(graphs)
        latents = mean + (0.5 * log_variance).exp() * noise
        reconstruction = -sum(decoder(latents, graphs)[1] for decoder in self.decoders)
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=-1)
        return (reconstruction + self.kl * divergence).mean()

    @torch.no_grad()
    def encode(self, graphs: Tensor) -> Tensor:
        """Return the mean latents [N, latent] of graphs [N, edges]."""
        mean: Tensor = self.encoder(graphs)[0]
        return mean

    @torch.no_grad()
    def decode(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return what both decoders build from latents [N, latent]: two graphs each [N, edges], the likelier first.

        The likelihood is the product of that of both decoders.
        """
        ahead, back = self.decoders
        (forward, of_ahead), (backward, of_back) = ahead(latents), back(latents)
        likelier = (of_ahead + back(latents, forward)[1] >= of_back + ahead(latents, backward)[1])[:, None]
        return torch.where(likelier, forward, backward), torch.where(likelier, backward, forward)
