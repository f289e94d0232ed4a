"""Select the whole networks of a profile: random ones, of which some fit the correction and the others report."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hwnas.cost.memory import memory_access_model
from hwnas.errors import HwnasError
from hwnas.spaces import NONE, Architecture, SearchSpace, SizedSpace
from hwnas.spaces.encoding import decode, needed_inputs, offered, possible, random_choices

MOST_DRAWS = 20_000  # of random architectures, to find those to time
LEAST_NETWORKS = 8  # the least number of networks for a fit and a report
MOST_TILT = 6.0  # of the logarithm of probabilities, from an edge's lightest operation to its heaviest

Draw = Callable[[np.random.Generator], NDArray[np.intp]]


def random_architectures(sized: SizedSpace, number: int) -> list[Architecture]:
    """Return different random architectures that have a path from input to output in every cell.

    There are ``number`` of them, or fewer if the space has few. Raises HwnasError if it has almost none.
    """
    generator, space = np.random.default_rng(201), sized.space
    if space.is_chain:
        draw = spanning_draw(sized)
    else:
        draw = topology_draw(space) if needed_inputs(space) else uniform_draw(space)
    found: dict[Architecture, None] = {}
    wanted = min(number, space.num_architectures // 4)
    for _ in range(MOST_DRAWS):
        if len(found) == wanted:
            break
        architecture = decode(space, draw(generator))
        cells = zip(space.cells.values(), architecture.cells, strict=True)
        if all(any(cell.live_edges(operations)) for cell, operations in cells):
            found[architecture] = None
    if len(found) < min(LEAST_NETWORKS, number):
        raise HwnasError(
            f"too few architectures of space {space.name} have a path from input to output ({len(found)} found)",
            "give its cells more nodes, edges or operations",
        )
    return list(found)


def uniform_draw(space: SearchSpace) -> Draw:
    """Draw every architecture with the same probability."""
    return lambda generator: random_choices(space, 1, generator)[0]


def topology_draw(space: SearchSpace) -> Draw:
    """Draw architectures of a free topology from sparse to dense ones: operation indices [edges of all cells].

    Uniformly drawn ones have nearly all edges, because only one of many operations is ``none``. Here each draw keeps
    edges with a probability of its own, and more where a node needs them.
    """
    none = space.operations.index(NONE)
    others = [np.setdiff1d(np.flatnonzero(row), none) for row in offered(space)]

    def draw(generator: np.random.Generator) -> NDArray[np.intp]:
        kept = generator.random(space.num_edges) < generator.random()
        for into, least in needed_inputs(space):
            missing = max(least - int(kept[into].sum()), 0)
            dropped = np.array([e for e in into if not kept[e]], dtype=np.intp)
            kept[generator.permutation(dropped)[:missing]] = True
        return np.where(kept, [generator.choice(row) for row in others], none)

    return draw


def spanning_draw(sized: SizedSpace) -> Draw:
    """Draw architectures of a chain from light to heavy ones: operation indices [E].

    Uniformly drawn, chains of many layers nearly all have the same depth and latency, and say nothing about the small
    networks that a low budget leads to. Here each draw prefers light operations, or heavy ones, by a random degree:
    the probability of an operation grows exponentially with the bytes that it moves.
    """
    space, options = sized.space, offered(sized.space)
    (moved,) = memory_access_model(sized).linear()[1].values()
    least = np.where(options, moved, np.inf).min(axis=1, keepdims=True)
    most = np.where(options, moved, -np.inf).max(axis=1, keepdims=True)
    weight = np.where(options, moved - least, 0) / np.maximum(most - least, 1)

    def draw(generator: np.random.Generator) -> NDArray[np.intp]:
        probability = np.exp(generator.uniform(-MOST_TILT, MOST_TILT) * weight) * options
        ends = np.cumsum(probability, axis=1)
        while True:
            drawn = (generator.random((len(ends), 1)) * ends[:, -1:] < ends).argmax(axis=1)
            if possible(space, drawn[None])[0]:
                return drawn

    return draw
