"""A kind of searched cell: its nodes and edges, and the operations that these can have."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod

NONE = "none"
SKIP = "skip_connect"


@dataclass(frozen=True)
class Cell:
    """One kind of searched cell. Nodes ``0 .. num_inputs-1`` are its inputs; every later node sums its edges.

    The cell returns the concatenation of ``outputs`` (a single node is returned as it is). At least ``least_inputs`` of
    the edges into every node have an operation other than ``none``; 1 gives a free topology in which no node is empty.

    ``offers`` lists the operations of the space that each edge can have; None: every edge can have all of them. Of the
    edges of each group in ``skipped_last``, once one is ``skip_connect``, so are all after it: they set the group's
    depth. ``reads`` lists for each edge the earlier edges whose operations decide its numbers of channels; empty: there
    are none. An edge that others read computes nothing. The nodes of a ``recurrent`` cell are vectors, each the mean of
    its edges, and it returns the mean of ``outputs``.
    """

    num_inputs: int
    num_nodes: int
    edges: tuple[tuple[int, int], ...]
    outputs: tuple[int, ...]
    offers: tuple[tuple[str, ...], ...] | None = None
    skipped_last: tuple[tuple[int, ...], ...] = ()
    reads: tuple[tuple[int, ...], ...] = ()
    recurrent: bool = False
    least_inputs: int = 0

    @property
    def inner_nodes(self) -> range:
        return range(self.num_inputs, self.num_inputs + self.num_nodes)

    def edges_into(self, node: int) -> list[int]:
        return [index for index, (_, target) in enumerate(self.edges) if target == node]

    def edges_from(self, node: int) -> list[int]:
        return [index for index, (source, _) in enumerate(self.edges) if source == node]

    @property
    def is_chain(self) -> bool:
        """True for layers one after another, each with operations of its own: every node has one edge into it."""
        chain = tuple((node, node + 1) for node in range(self.num_nodes))
        return self.offers is not None and self.num_inputs == 1 and self.edges == chain

    @cached_property
    def coupled(self) -> dict[int, tuple[int, ...]]:
        """The edges that an edge reads, then the edge itself, by its index; only for edges that read others."""
        return {e: (*read, e) for e, read in enumerate(self.reads) if read}

    @cached_property
    def width_edges(self) -> tuple[int, ...]:
        """The edges that others read, in order."""
        return tuple(sorted({e for read in self.reads for e in read}))

    def offered(self, edge: int, operations: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of a space's ``operations`` that an edge can have."""
        return operations if self.offers is None else self.offers[edge]

    def num_choices(self, operations: tuple[str, ...]) -> int:
        """Return the number of cells that can be made of a space's ``operations``."""
        if self.least_inputs:
            return prod(self._num_node_choices(node, operations) for node in self.inner_nodes)
        sizes = [len(self.offered(e, operations)) for e in range(len(self.edges))]
        total = prod(size for e, size in enumerate(sizes) if not any(e in group for group in self.skipped_last))
        for group in self.skipped_last:
            ways = 1
            for e in reversed(group):
                ways = 1 + (sizes[e] - 1) * ways  # a skip leaves one way for the edges after it
            total *= ways
        return total

    def _num_node_choices(self, node: int, operations: tuple[str, ...]) -> int:
        """Return the number of ways to choose the operations of the edges into a node."""
        ways = [1]  # by the number of edges that are not ``none``
        for e in self.edges_into(node):
            offered = self.offered(e, operations)
            none = NONE in offered
            ways = [none * a + (len(offered) - none) * b for a, b in zip([*ways, 0], [0, *ways], strict=True)]
        return sum(ways[self.least_inputs :])

    def refuse(self, operations: tuple[str, ...]) -> str | None:
        """Return why the cell cannot have ``operations``, one an edge; None where it can."""
        for node in self.inner_nodes if self.least_inputs else ():
            used = sum(operations[e] != NONE for e in self.edges_into(node))
            if used < self.least_inputs:
                return f"node {node} has {used} inputs and needs at least {self.least_inputs}"
        what = "choice" if self.reads else "layer"
        for e, (op, offered) in enumerate(zip(operations, self.offers or (), strict=False)):
            if op not in offered:
                return f"{what} {e + 1} does not offer {op}; it offers {', '.join(offered)}"
        for group in self.skipped_last:
            for e, later in pairwise(group):
                if operations[e] == SKIP != operations[later]:
                    return f"{what} {e + 1} is {SKIP}, but {what} {later + 1} after it in its stage is not"
        return None

    def live_edges(self, operations: tuple[str, ...]) -> tuple[bool, ...]:
        """Return for each edge whether it lies on a path of operations other than ``none`` from an input to an output.

        The others are dead; a deployed network leaves them out.
        """
        carries = [op != NONE for op in operations]
        reached = set(range(self.num_inputs))
        for node in self.inner_nodes:
            if any(carries[e] and self.edges[e][0] in reached for e in self.edges_into(node)):
                reached.add(node)
        needed = set(self.outputs)
        for node in reversed(self.inner_nodes):
            if node in needed:
                needed.update(self.edges[e][0] for e in self.edges_into(node) if carries[e])
        return tuple(
            carries[e] and source in reached and target in needed for e, (source, target) in enumerate(self.edges)
        )
