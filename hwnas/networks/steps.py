"""Run the parts of a network: once on images, word after word on text."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hwnas.spaces import HIDDEN, Network

Run = Callable[..., Tensor]  # the index of a part and its inputs -> its output


def over_words(network: Network, run: Run, words: Tensor, drop: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Return the scores [N * T, vocabulary] of the words after each of ``words`` [N, T]; rows begin with zero states.

    All words are embedded at once, all states are decoded at once, and ``run`` computes the parts between word after
    word. ``drop`` is applied to the embeddings and to the states that are decoded, each [N, T, C].
    """
    last = len(network.parts) - 1
    embedded = run(0, words)
    embedded = drop(embedded) if drop else embedded
    state = embedded.new_zeros(len(words), network.setting.channels)
    states = []
    for vectors in embedded.unbind(dim=1):
        values = {0: vectors, HIDDEN: state}
        for index, part in enumerate(network.parts[1:last], 1):
            values[index] = run(index, *(values[source] for source in part.inputs))
        state = values[last - 1]
        states.append(state)
    decoded = torch.stack(states, dim=1)
    return run(last, (drop(decoded) if drop else decoded).flatten(0, 1))


def values_of(network: Network, run: Run, inputs: dict[int, Tensor]) -> dict[int, Tensor]:
    """Return the outputs of all parts by index, and the ``inputs``, which a recurrent network has of one word."""
    values = dict(inputs)
    for index, part in enumerate(network.parts):
        values[index] = run(index, *(values[source] for source in part.inputs))
    return values


def zeros(shape: tuple[int, ...], batch: int = 1) -> Tensor:
    """Return a batch of inputs of a shape, of torch's default type; numbers of words where it is ()."""
    return torch.zeros(batch, *shape, dtype=torch.get_default_dtype() if shape else torch.int64)
