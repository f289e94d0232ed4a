"""Torch modules of recurrent networks (hwnas.spaces.recurrent_operations): vectors [N, C] and numbers of words [N]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hwnas.spaces import Workload

ROWS = 10_000  # words of an embedding that is timed alone; reading one row takes the same time in any table
RANGE = 0.1  # weights of words are drawn from -RANGE to RANGE
ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid, "identity": lambda x: x}


class Highway(nn.Module):
    """The gated update of a vector s: ``s + sigmoid(gate(s)) * (f(update(s)) - s)``."""

    def __init__(self, workload: Workload, affine: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(workload.in_channels, workload.out_channels, bias=False)
        self.update = nn.Linear(workload.in_channels, workload.out_channels, bias=False)
        self.activation = workload.op.rpartition("_")[2]

    def forward(self, x: Tensor) -> Tensor:
        new = ACTIVATIONS[self.activation](self.update(x))
        return x + torch.sigmoid(self.gate(x)) * (new - x)


class RecurrentState(nn.Module):
    """The first node of a cell, from the word's embedding and the state after the word before: a gated tanh."""

    def __init__(self, workload: Workload, affine: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * workload.in_channels, workload.out_channels, bias=False)
        self.update = nn.Linear(2 * workload.in_channels, workload.out_channels, bias=False)

    def forward(self, word: Tensor, state: Tensor) -> Tensor:
        both = torch.cat([word, state], dim=-1)
        return state + torch.sigmoid(self.gate(both)) * (torch.tanh(self.update(both)) - state)


class WordEmbedding(nn.Module):
    """The vector of each word: the row of its weights in the decoder (Press & Wolf, EACL 2017).

    Before ``tie`` it has random vectors of its own, for timing, and no parameters.
    """

    def __init__(self, workload: Workload, affine: bool) -> None:
        super().__init__()
        self.register_buffer("table", torch.empty(ROWS, workload.out_channels).uniform_(-RANGE, RANGE), False)
        self.decoder: nn.Linear | None = None

    def tie(self, decoder: nn.Linear) -> None:
        """Read the weights of a decoder, which stays the only module that holds them."""
        del self.table
        self.__dict__["decoder"] = decoder  # not a submodule: states have the weights once

    def forward(self, words: Tensor) -> Tensor:
        weight = self.get_buffer("table") if self.decoder is None else self.decoder.weight
        return nn.functional.embedding(words, weight)


class Blend(nn.Module):
    """The mean of two vectors: a node makes one for each edge after the first."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return blend(x, y, 2)


class Mean(nn.Module):
    """The mean of several vectors."""

    def forward(self, *vectors: Tensor) -> Tensor:
        return mean_of(vectors)


def blend(mean: Tensor, x: Tensor, number: int) -> Tensor:
    """Return the mean of ``number`` tensors: of x and of ``number`` - 1 others, whose mean is given."""
    return mean + (x - mean) * (1 / number)


def mean_of(vectors: Sequence[Tensor]) -> Tensor:
    """Return the mean of tensors of one shape."""
    total = vectors[0]
    for vector in vectors[1:]:
        total = total + vector
    return total * (1 / len(vectors))


def blend_of_two(workload: Workload, affine: bool) -> Blend:
    return Blend()


def mean_of_vectors(workload: Workload, affine: bool) -> Mean:
    return Mean()


def word_decoder(workload: Workload, affine: bool) -> nn.Linear:
    decoder = nn.Linear(workload.in_channels, workload.out_channels)
    nn.init.uniform_(decoder.weight, -RANGE, RANGE)
    nn.init.zeros_(decoder.bias)
    return decoder
