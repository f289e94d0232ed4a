"""Costs of edges whose numbers of channels other edges decide: one value for each combination of their operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces import Cell, CellInstance, SearchSpace, Workload

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Coupling:
    """The cost of an edge that reads others: ``values`` [K, K, ..., K], one axis for each of ``edges``, itself last.

    It is defined where every axis has an operation that its edge offers, and 0 elsewhere; ``offers`` are their indices.
    """

    edges: tuple[int, ...]
    offers: tuple[tuple[int, ...], ...]
    values: Array

    @property
    def offered(self) -> Array:
        """The costs of the offered operations alone, one axis for each edge."""
        return self.values[np.ix_(*self.offers)]

    def of(self, chosen: NDArray[np.intp]) -> Array:
        """Return the costs [N] in cells with the operations ``chosen`` [N, E]."""
        return np.asarray(self.values[tuple(chosen[:, e] for e in self.edges)])

    def main_effects(self) -> tuple[float, dict[int, Array]]:
        """Return the mean over all offered operations and, by edge, the difference [K] of each operation's mean to it.

        Their sum is the best approximation of the cost by a sum over edges.
        """
        block, result = self.offered, {}
        for axis, (e, offered) in enumerate(zip(self.edges, self.offers, strict=True)):
            means = block.mean(axis=tuple(other for other in range(block.ndim) if other != axis))
            effects = np.zeros(len(self.values))
            effects[list(offered)] = means - block.mean()
            result[e] = effects
        return float(block.mean()), result


def couplings_of(
    space: SearchSpace, cell: Cell, instances: Sequence[CellInstance], cost: Callable[[Workload], float]
) -> Iterator[Coupling]:
    """Yield the couplings of a cell kind, summed over its instances."""
    index = {op: o for o, op in enumerate(space.operations)}
    for e, edges in cell.coupled.items():
        offers = tuple(tuple(index[op] for op in cell.offered(other, space.operations)) for other in edges)
        values = np.zeros((len(index),) * len(edges))
        for instance in instances:
            for read, candidates in instance.variants_of(e).items():
                for op, workload in candidates.items():
                    if workload:
                        values[tuple(index[choice] for choice in (*read, op))] += cost(workload)
        yield Coupling(edges, offers, values)
