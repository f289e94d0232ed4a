"""Architectures as rows of a design matrix: the operation of every edge, and whether the edge is live."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwnas.cost.model import Array
from hwnas.errors import HwnasError
from hwnas.spaces import NONE, SearchSpace
from hwnas.spaces.encoding import every_choice, live_edges, random_choices

REFERENCE = 2_000  # networks that represent a space
CANDIDATES = 20_000  # networks considered in a larger space


def num_features(space: SearchSpace) -> int:
    return 1 + 2 * space.num_edges * (len(space.operations) - 1)


def require_additive(space: SearchSpace) -> None:
    """Raise HwnasError where the costs of edges do not add up: in a chain whose stages have several widths."""
    if any(cell.reads for cell in space.cells.values()):
        raise HwnasError(
            f"space {space.name} searches the widths of its stages: a layer's cost depends on two choices more, which "
            "the latencies of few whole networks do not determine",
            f"time its layers on the device: hwnas profile --space {space.origin.spec if space.origin else space.name}",
        )


def design_matrix(space: SearchSpace, choices: NDArray[np.intp]) -> Array:
    """Return the design matrix [N, F] of ``choices`` [N, edges of all cells].

    The first column is one. Then follow, cell by cell, one indicator for each edge and operation other than ``none``,
    and the same indicators for live edges only. EdgeCosts.covariance has the same order.
    """
    columns: list[Array] = [np.ones((len(choices), 1))]
    for kind, chosen in space.by_cell(choices).items():
        cell = space.cells[kind]
        used = chosen != space.operations.index(NONE)
        has = np.stack([chosen == o for o in _operations(space)], axis=2)  # [N, E, K - 1]
        for kept in (used, live_edges(cell, used)):
            columns.append((has & kept[:, :, None]).reshape(len(choices), -1).astype(float))
    return np.concatenate(columns, axis=1)


def grids(space: SearchSpace, values: Array) -> tuple[float, dict[str, tuple[Array, Array]]]:
    """Split ``values`` [F] into the first one and, by cell kind, the values of all and of live edges, [E, K] each."""
    result, at = {}, 1
    for kind in space.cells:
        edges, found = len(space.cells[kind].edges), []
        for _ in range(2):
            grid = np.zeros((edges, len(space.operations)))
            size = edges * len(_operations(space))
            grid[:, _operations(space)] = values[at : at + size].reshape(edges, -1)
            found.append(grid)
            at += size
        result[kind] = (found[0], found[1])
    return float(values[0]), result


def flat(space: SearchSpace, base: float, cells: dict[str, tuple[Array, Array]]) -> Array:
    """Return the vector [F] that ``grids`` splits."""
    rows = [np.array([base])]
    for kind in space.cells:
        rows += [grid[:, _operations(space)].ravel() for grid in cells[kind]]
    return np.concatenate(rows)


def not_negative(space: SearchSpace) -> NDArray[np.bool_]:
    """Return a mask [F] of the columns whose costs cannot be below 0: those of live edges.

    There are none in a chain. Every layer runs one of its candidates, so latencies determine only how much more one
    candidate costs than another, and a constraint on single costs would change these differences.
    """
    result = np.zeros(num_features(space), dtype=bool)
    if space.is_chain:
        return result
    number = len(_operations(space))
    at = 1
    for kind in space.cells:
        size = len(space.cells[kind].edges) * number
        result[at + size : at + 2 * size] = True
        at += 2 * size
    return result


def groups(space: SearchSpace) -> list[NDArray[np.intp]]:
    """Return groups of columns that differ only in the edge: same operation, same cell kind, live edges or all."""
    number, result = len(_operations(space)), []
    at = 1
    for kind in space.cells:
        edges = len(space.cells[kind].edges)
        for _ in range(2):
            result += [at + o + number * np.arange(edges) for o in range(number)]
            at += edges * number
    return result


def connected_choices(space: SearchSpace, number: int, seed: int = 0) -> NDArray[np.intp]:
    """Draw ``number`` different architectures with a path through every cell, or all where there are fewer."""
    generator = np.random.default_rng(seed)
    if space.num_architectures <= 2 * CANDIDATES:
        choices = every_choice(space)
    else:
        choices = np.unique(random_choices(space, 4 * number, generator), axis=0)
    choices = choices[connected(space, choices)]
    return choices[np.sort(generator.permutation(len(choices))[:number])]


def connected(space: SearchSpace, choices: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return a mask [N] of the architectures that have a path from an input to an output in every cell."""
    found = np.ones(len(choices), dtype=bool)
    for kind, chosen in space.by_cell(choices).items():
        used = chosen != space.operations.index(NONE)
        found &= live_edges(space.cells[kind], used).any(axis=1)
    return found


def _operations(space: SearchSpace) -> list[int]:
    return [o for o, op in enumerate(space.operations) if op != NONE]
