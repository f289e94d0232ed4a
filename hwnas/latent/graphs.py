"""The architectures of a cell space as graphs: nodes are those of its cells, edges carry operations.

The cells of a space form one acyclic graph: links without an operation lead from the outputs of a cell kind to the
inputs of the next kind. ``none`` on an edge is its absence. All graphs of a space have the same nodes and possible
edges, so a batch of N graphs is an array of operation indices [N, edges of all cells].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwnas.budgets.derive import follows_rules
from hwnas.compute.seeds import Purpose, numpy_generator
from hwnas.errors import HwnasError
from hwnas.spaces import SearchSpace
from hwnas.spaces.encoding import ENUMERABLE, every_choice, random_choices, without_dead_edges

Choices = NDArray[np.intp]
HELD_OUT, MOST_HELD_OUT = 0.1, 1000  # share of an enumerable space's architectures, and their largest number
TRIES = 100


@dataclass(frozen=True)
class Step:
    """One edge in the order in which a graph is built: from node ``source`` to ``target``.

    ``edge`` is its index among the edges of all cells; None for a link between two cells.
    """

    source: int
    target: int
    edge: int | None


@dataclass(frozen=True)
class CellGraphs:
    """The graphs of a space's architectures; ``inputs_per_node`` as in hwnas.budgets.derive.

    Operations in ``without`` are not used.
    """

    space: SearchSpace
    inputs_per_node: int | None = None
    without: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, int | None, tuple[str, ...]]:
        """Equal for equal graphs."""
        return self.space.key, self.inputs_per_node, self.without

    @cached_property
    def nodes(self) -> int:
        """The number of nodes of all cells."""
        return sum(cell.num_inputs + cell.num_nodes for cell in self.space.cells.values())

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """All edges and links in the order of their targets: a node is complete before an edge leaves it."""
        steps: list[Step] = []
        outputs: list[int] = []
        first, edge = 0, 0
        for cell in self.space.cells.values():
            steps += [Step(output, first + node, None) for output in outputs for node in range(cell.num_inputs)]
            for source, target in cell.edges:
                steps.append(Step(first + source, first + target, edge))
                edge += 1
            outputs = [first + node for node in cell.outputs]
            first += cell.num_inputs + cell.num_nodes
        return tuple(sorted(steps, key=lambda step: (step.target, step.source)))

    @cached_property
    def reversed_steps(self) -> tuple[Step, ...]:
        """All edges and links turned around, in the order in which a graph is built from its last node to its first."""
        turned = (Step(step.target, step.source, step.edge) for step in self.steps)
        return tuple(sorted(turned, key=lambda step: (-step.target, -step.source)))

    def valid(self, choices: Choices) -> NDArray[np.bool_]:
        """Return a mask [N] of the graphs [N, edges] that are architectures which a search may propose."""
        left_out = [self.space.operations.index(op) for op in self.without if op in self.space.operations]
        return follows_rules(self.space, choices, self.inputs_per_node) & ~np.isin(choices, left_out).any(axis=1)

    def networks(self, choices: Choices) -> Choices:
        """Return the graphs without dead edges: equal for architectures that are the same network."""
        return without_dead_edges(self.space, choices)

    def sample(self, number: int, generator: np.random.Generator) -> Choices:
        """Draw ``number`` valid graphs uniformly, with repetition. Raises HwnasError where hardly any is valid."""
        found = np.empty((0, self.space.num_edges), dtype=np.intp)
        for _ in range(TRIES):
            drawn = random_choices(self.space, max(number, 1000), generator, self.inputs_per_node)
            found = np.concatenate([found, drawn[self.valid(drawn)]])
            if len(found) >= number:
                return found[:number]
        raise HwnasError(
            f"hardly any architecture of space {self.space.name} follows the recipe's rules",
            "change inputs_per_node or without in the recipe",
        )

    @cached_property
    def _shuffled(self) -> Choices:
        """All valid graphs of an enumerable space, the held-out ones first; the same for every seed."""
        choices = every_choice(self.space)
        return numpy_generator(0, Purpose.HELD_OUT_GRAPHS).permutation(choices[self.valid(choices)])

    @cached_property
    def held_out(self) -> Choices:
        """Valid graphs that are never learnt from."""
        if self._enumerable:
            return self._shuffled[: min(MOST_HELD_OUT, max(1, int(HELD_OUT * len(self._shuffled))))]
        return self.sample(MOST_HELD_OUT, numpy_generator(0, Purpose.HELD_OUT_GRAPHS))

    def training(self, number: int, seed: int, epoch: int) -> Choices:
        """Return up to ``number`` graphs to learn from in an epoch, none of them held out, in random order.

        In a space that can be enumerated they are the same in every epoch, in another new ones.
        """
        generator = numpy_generator(seed, Purpose.TRAINING_GRAPHS, epoch)
        if self._enumerable:
            learnt = self._shuffled[len(self.held_out) :]
            return generator.permutation(learnt[:number] if len(learnt) else self._shuffled)  # all, where there is one
        drawn = self.sample(number, generator)
        held_out = {row.tobytes() for row in self.held_out}
        return drawn[[row.tobytes() not in held_out for row in drawn]]

    @property
    def _enumerable(self) -> bool:
        return self.space.num_architectures <= ENUMERABLE


def require_cells(space: SearchSpace) -> None:
    """Raise HwnasError for a chain of layers, whose graph is always the same."""
    if space.is_chain or any(cell.width_edges for cell in space.cells.values()):
        raise HwnasError(
            f"space {space.name} is a chain of layers, and a graph autoencoder is of cells",
            "remove autoencoder from the recipe, or search with --method single-path",
        )
