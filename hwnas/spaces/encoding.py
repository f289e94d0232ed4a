"""Architectures as arrays of operation indices, one index for every edge of all cells: all of a space, or some."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.cell import NONE, SKIP, Cell
from hwnas.spaces.space import Architecture, SearchSpace

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
    options = [np.flatnonzero(row) for row in offered(space)]
    numbers = np.arange(math.prod(map(len, options)))
    choices = np.empty((len(numbers), len(options)), dtype=np.intp)
    for e in reversed(range(len(options))):
        numbers, digits = np.divmod(numbers, len(options[e]))
        choices[:, e] = options[e][digits]
    return choices[possible(space, choices)]


def random_choices(
    space: SearchSpace, number: int, generator: np.random.Generator, inputs_per_node: int | None = None
) -> NDArray[np.intp]:
    """Draw ``number`` architectures uniformly, as operation indices [N, edges of all cells].

    With ``inputs_per_node`` exactly this number of edges into every node, drawn at random, is other than ``none``.
    """
    if inputs_per_node is not None:
        return _random_inputs(space, number, generator, inputs_per_node)
    if all(cell.offers is None for cell in space.cells.values()):
        choices = generator.integers(len(space.operations), size=(number, space.num_edges))
        for into, least in needed_inputs(space):
            while len(few := np.flatnonzero(_num_used(space, choices[:, into]) < least)):
                choices[few[:, None], into] = generator.integers(len(space.operations), size=(len(few), len(into)))
        return choices
    options = [np.flatnonzero(row) for row in offered(space)]
    found = np.empty((0, len(options)), dtype=np.intp)
    while len(found) < number:
        drawn = np.stack([generator.choice(row, size=number) for row in options], axis=1)
        found = np.concatenate([found, drawn[possible(space, drawn)]])
    return found[:number]


def _random_inputs(
    space: SearchSpace, number: int, generator: np.random.Generator, inputs_per_node: int
) -> NDArray[np.intp]:
    none = space.operations.index(NONE)
    others = np.array([o for o in range(len(space.operations)) if o != none])
    choices = generator.choice(others, size=(number, space.num_edges))
    for kind, own in space.by_cell(choices).items():  # views: what is written here is written to choices
        cell = space.cells[kind]
        for node in cell.inner_nodes:
            into = list(cell.edges_into(node))
            order = generator.permuted(np.tile(np.arange(len(into)), (number, 1)), axis=1)
            own[:, into] = np.where(order < inputs_per_node, own[:, into], none)
    return choices


def offered(space: SearchSpace) -> NDArray[np.bool_]:
    """Return a mask [edges of all cells, operations] of the operations that each edge can have."""
    edges = [(cell, e) for cell in space.cells.values() for e in range(len(cell.edges))]
    return np.array([[op in cell.offered(e, space.operations) for op in space.operations] for cell, e in edges])


def possible(space: SearchSpace, choices: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return a mask [N] of the rows [N, edges of all cells] that are architectures of the space.

    Each edge has an operation that it offers, edges that are skipped last are, and nodes have the inputs that they need
    (hwnas.spaces.cell.Cell).
    """
    found = offered(space)[np.arange(space.num_edges), choices].all(axis=1)
    for kind, chosen in space.by_cell(choices).items():
        for group in space.cells[kind].skipped_last:
            skipped = chosen[:, list(group)] == space.operations.index(SKIP)
            found &= (skipped[:, :-1] <= skipped[:, 1:]).all(axis=1)
    for into, least in needed_inputs(space):
        found &= _num_used(space, choices[:, into]) >= least
    return np.asarray(found)


def needed_inputs(space: SearchSpace) -> list[tuple[list[int], int]]:
    """Return the edges into every node that needs inputs, counted over all cells, and their least number."""
    found, start = [], 0
    for cell in space.cells.values():
        if cell.least_inputs:
            nodes = ([start + e for e in cell.edges_into(node)] for node in cell.inner_nodes)
            found += [(into, cell.least_inputs) for into in nodes]
        start += len(cell.edges)
    return found


def _num_used(space: SearchSpace, chosen: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return for each row the number of edges that have an operation other than ``none``."""
    return np.asarray((chosen != space.operations.index(NONE)).sum(axis=1))


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
