"""Architectures as arrays of operation indices, one index for every edge of all cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.space import NONE, Architecture, Cell, SearchSpace

ENUMERABLE = 100_000  # architectures: a space with at most this many is enumerated as a whole


def encode(space: SearchSpace, architectures: list[Architecture]) -> NDArray[np.intp]:
    """Return operation indices [N, edges of all cells]."""
    index = {op: number for number, op in enumerate(space.operations)}
    return np.array([[index[op] for cell in a.cells for op in cell] for a in architectures], dtype=np.intp)


def decode(space: SearchSpace, choices: NDArray[np.intp]) -> Architecture:
    """Return the architecture of one row of operation indices [edges of all cells]."""
    cells = [tuple(space.operations[int(o)] for o in chosen) for chosen in space.by_cell(choices).values()]
    return Architecture(space.name, tuple(cells))


def every_choice(space: SearchSpace) -> NDArray[np.intp]:
    """Return every architecture of a space as operation indices [N, edges of all cells]."""
    k, e = len(space.operations), space.num_edges
    return (np.arange(space.num_architectures)[:, None] // k ** np.arange(e - 1, -1, -1)) % k


def live_edges(cell: Cell, used: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which of the used edges [N, E] lie on a path from an input to an output."""
    count = cell.num_inputs + cell.num_nodes
    reached = np.zeros((len(used), count), dtype=bool)
    needed = np.zeros((len(used), count), dtype=bool)
    reached[:, : cell.num_inputs] = True
    needed[:, list(cell.outputs)] = True
    for node in cell.inner_nodes:
        for e in cell.edges_into(node):
            reached[:, node] |= used[:, e] & reached[:, cell.edges[e][0]]
    for node in reversed(cell.inner_nodes):
        for e in cell.edges_into(node):
            needed[:, cell.edges[e][0]] |= used[:, e] & needed[:, node]
    sources, targets = np.array(cell.edges).T
    return used & reached[:, sources] & needed[:, targets]


def without_dead_edges(space: SearchSpace, choices: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return operation indices [N, edges of all cells] in which every dead edge is ``none``.

    Architectures with equal rows have the same deployed network.
    """
    none = space.operations.index(NONE)
    live = [live_edges(space.cells[kind], chosen != none) for kind, chosen in space.by_cell(choices).items()]
    return np.where(np.concatenate(live, axis=1), choices, none)
