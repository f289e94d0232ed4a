"""Peak memory: the most bytes that activations hold at once while a deployed child network runs, by analysis.

For one image, in float32. A layer's inputs and what it writes are alive together; a tensor lives from the layer that
writes it until the last layer that reads it. The layers are those of hwnas.spaces.layers, in the order of
hwnas.networks.child: dead edges are left out, a node's edges run one after the other and are then added up. Nothing is
written in place (no ReLU, no addition), every operation has a ReLU of its own, an identity and a node with one input
are the tensor that they pass on, and a cell's inputs are preprocessed whether or not an edge reads them. A node without
inputs holds zeros. Weights, and the scratch memory within a layer, are not counted; a runtime that shares, fuses or
reorders layers may need less or more.

The peak is no sum over edges, so it is not in a search's loss; derivation keeps it. But it is the greatest over the
network's parts, and what is alive in a cell depends on the operations of that kind of cell alone. So patterns of one
kind are too large or not whatever the others are, and there are few: operations that differ in their kernel write the
same tensors. (This holds as long as what a cell gives is a tensor of its own, or is read by one part alone.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwnas.cost.memory import VALUE_BYTES
from hwnas.cost.metric import PEAK_MEMORY
from hwnas.cost.model import Array
from hwnas.spaces import (
    NONE,
    Architecture,
    Cell,
    CellInstance,
    FixedModule,
    Network,
    SearchSpace,
    SizedSpace,
    Workload,
)
from hwnas.spaces.encoding import encode, live_edges
from hwnas.spaces.operation import counted_layers

FREE = -1  # in a pattern: an edge of which nothing is known
ORDERS = 6  # in which a pattern's edges are tried, for as many covers
Pattern = tuple[int, ...]  # an operation an edge, or FREE


@dataclass(frozen=True)
class Site:
    """A part where it runs. ``inputs`` number the tensors that it reads, of ``input_bytes`` each; ``kept`` says which
    of them later parts read, too; ``elsewhere_bytes`` is what later parts read of earlier ones beside these.
    """

    part: FixedModule | CellInstance
    inputs: tuple[int, ...]
    input_bytes: tuple[int, ...]
    kept: tuple[bool, ...]
    elsewhere_bytes: int


@dataclass(frozen=True)
class Cover:
    """Choices in cells of one kind with which a network needs ``least_bytes``, whatever its other edges are.

    ``choices`` are edges, each with the operations that are as bad.
    """

    kind: str
    choices: tuple[tuple[int, tuple[int, ...]], ...]
    least_bytes: int


@dataclass
class _Schedule:
    """Layers in the order in which they run: which tensors each reads, and the one it writes."""

    sizes: list[int]
    steps: list[tuple[tuple[int, ...], int]] = field(default_factory=list)

    def write(self, size: int, reads: tuple[int, ...] = ()) -> int:
        self.sizes.append(size)
        self.steps.append((reads, len(self.sizes) - 1))
        return len(self.sizes) - 1

    def run(self, workload: Workload | None, *inputs: int) -> int:
        """Run an operation; the tensor with its result. None is the identity."""
        if workload is None:
            return inputs[0]
        numbers = list(inputs)
        for layer in counted_layers(workload):
            reads = tuple(numbers[number] for number in layer.reads)
            numbers.append(self.write(VALUE_BYTES * layer.written_values, reads))
        return numbers[-1]

    def peak_bytes(self, outlive: set[int]) -> int:
        """The most bytes alive at once; the tensors ``outlive`` live on to the end."""
        last = {number: step for step, (reads, _) in enumerate(self.steps) for number in reads}
        needed = outlive | set(last)
        alive = sum(self.sizes[number] for number in needed) - sum(self.sizes[w] for _, w in self.steps if w in needed)
        greatest = alive
        for step, (reads, written) in enumerate(self.steps):
            alive += self.sizes[written]
            greatest = max(greatest, alive)
            ended = {number for number in reads if last[number] == step} | ({written} - set(last))
            alive -= sum(self.sizes[number] for number in ended - outlive)
        return greatest


@dataclass(frozen=True)
class PeakModel:
    """The peak memory of every architecture: ``fixed_bytes`` is the most that any part needs that is not searched,
    ``sites[kind]`` where cells of a kind run (one of those that are alike).
    """

    space: SearchSpace
    metric: str
    fixed_bytes: int
    sites: Mapping[str, tuple[Site, ...]]
    _known: dict[tuple[str, Pattern], int] = field(default_factory=dict, repr=False, compare=False)
    _covers: dict[Cover, None] = field(default_factory=dict, repr=False, compare=False)

    def predict(self, architecture: Architecture) -> float:
        """The peak in bytes of the deployed network of one architecture."""
        return float(self.predict_many(encode(self.space, [architecture]))[0])

    def predict_many(self, choices: NDArray[np.intp]) -> Array:
        """Peaks in bytes of many architectures: ``choices`` [N, edges of all cells] are indices into the operations."""
        greatest = np.full(len(choices), float(self.fixed_bytes))
        for kind, chosen in self.space.by_cell(choices).items():
            live = live_edges(self.space.cells[kind], chosen != self._none)
            alike = np.take_along_axis(self._alike[kind], chosen.T, axis=1).T
            patterns, which = np.unique(np.where(live, alike, self._none), axis=0, return_inverse=True)
            peaks = np.array([self.pattern_bytes(kind, tuple(pattern)) for pattern in patterns.tolist()])
            greatest = np.maximum(greatest, peaks[which.ravel()])
        return greatest

    def pattern_bytes(self, kind: str, pattern: Pattern) -> int:
        """The most bytes alive while cells of this kind run; with FREE edges, the least that this can be, whatever
        they are.
        """
        key = kind, pattern
        if key not in self._known:
            cell, names = self.space.cells[kind], self.space.operations
            chosen = tuple(None if o == FREE else names[o] for o in pattern)
            self._known[key] = max((_cell_bytes(site, cell, chosen) for site in self.sites[kind]), default=0)
        return self._known[key]

    @cached_property
    def floor_bytes(self) -> int:
        """No architecture's peak is lower (and some may reach it)."""
        free = [self.pattern_bytes(kind, (FREE,) * len(cell.edges)) for kind, cell in self.space.cells.items()]
        return max(self.fixed_bytes, *free)

    def heaviest(self) -> NDArray[np.intp]:
        """On every edge [edges of all cells] the operation that needs most on its own."""
        alone = [
            np.array(
                [[sum(_workspace(s, e, op) for s in self.sites[kind]) for op in self.space.operations] for e in at]
            )
            for kind, at in ((kind, range(len(cell.edges))) for kind, cell in self.space.cells.items())
        ]
        return np.concatenate([needs.argmax(axis=1) for needs in alone])

    def known_covers(self, bound: float) -> list[Cover]:
        """The covers found so far that no architecture within ``bound`` holds."""
        return [cover for cover in self._covers if cover.least_bytes > bound]

    def find_covers(self, choices: NDArray[np.intp], bound: float) -> list[Cover]:
        """Covers above ``bound`` in one architecture's ``choices`` [edges of all cells], none if its peak is within.

        From every pattern that is too large, edges are set free one after the other as long as what is left of it is
        too large on its own; in several orders, for the sets that are left differ.
        """
        found: dict[Cover, None] = {}
        if self.fixed_bytes > bound:
            found[Cover(next(iter(self.space.cells)), (), self.fixed_bytes)] = None
        for kind, chosen in self.space.by_cell(choices[None]).items():
            used = chosen != self._none
            dead = used & ~live_edges(self.space.cells[kind], used)
            alike = self._alike[kind][np.arange(chosen.shape[1]), chosen[0]]
            whole = np.where(dead[0], FREE, alike)
            if self.pattern_bytes(kind, tuple(whole.tolist())) <= bound:
                continue
            generator = np.random.default_rng(0)
            for _ in range(ORDERS):
                pattern = whole.copy()
                for e in generator.permutation(len(pattern)):
                    pattern[e] = FREE
                    if self.pattern_bytes(kind, tuple(pattern.tolist())) <= bound:
                        pattern[e] = whole[e]
                fixed = [(e, self._as_bad[kind][e][o]) for e, o in enumerate(pattern.tolist()) if o != FREE]
                found[Cover(kind, tuple(fixed), self.pattern_bytes(kind, tuple(pattern.tolist())))] = None
        self._covers.update(found)
        return list(found)

    @cached_property
    def _none(self) -> int:
        return self.space.operations.index(NONE)

    @cached_property
    def _alike(self) -> dict[str, NDArray[np.intp]]:
        """[E, K] of every kind: the first operation that writes the same tensors there."""
        return {
            kind: np.array([[row.index(written) for written in row] for row in grid])
            for kind, grid in self._written.items()
        }

    @cached_property
    def _as_bad(self) -> dict[str, list[list[tuple[int, ...]]]]:
        """Of every kind, edge and operation: the operations that write all the same tensors, and perhaps more."""
        return {
            kind: [
                [tuple(o for o, more in enumerate(row) if _begins(more, written)) for written in row] for row in grid
            ]
            for kind, grid in self._written.items()
        }

    @cached_property
    def _written(self) -> dict[str, list[list[tuple | None]]]:
        """Of every kind, edge and operation: what its layers read and write at every site; None for ``none``."""
        operations = self.space.operations
        return {
            kind: [
                [None if op == NONE else tuple(_tensors(s, e, op) for s in self.sites[kind]) for op in operations]
                for e in range(len(cell.edges))
            ]
            for kind, cell in self.space.cells.items()
        }


def peak_model(sized: SizedSpace) -> PeakModel:
    """The peak memory of the networks of a space at some sizes; no table is needed."""
    sites = _sites(sized.network)
    cells = {
        kind: tuple(s for s in sites if isinstance(s.part, CellInstance) and s.part.kind == kind)
        for kind in sized.space.cells
    }
    fixed = [_fixed_bytes(site, site.part.workload) for site in sites if isinstance(site.part, FixedModule)]
    return PeakModel(sized.space, PEAK_MEMORY.name, max(fixed, default=0), cells)


def _sites(network: Network) -> list[Site]:
    """Every part with what is alive around it, those that are alike once."""
    setting = network.setting
    sizes = {-1: VALUE_BYTES * setting.image_channels * setting.height * setting.width}
    last = {source: index for index, part in enumerate(network.parts) for source in part.inputs}
    found: list[Site] = []
    for index, part in enumerate(network.parts):
        own = sorted(set(part.inputs))
        site = Site(
            part=_without_inputs(part),
            inputs=tuple(own.index(source) for source in part.inputs),
            input_bytes=tuple(sizes[source] for source in own),
            kept=tuple(last[source] > index for source in own),
            elsewhere_bytes=sum(size for source, size in sizes.items() if source not in own and last[source] > index),
        )
        if site not in found:
            found.append(site)
        ends = part.workload if isinstance(part, FixedModule) else part.concat or part.node_sum
        sizes[index] = VALUE_BYTES * counted_layers(ends)[-1].written_values
        last.setdefault(index, index)
    return found


def _without_inputs(part: FixedModule | CellInstance) -> FixedModule | CellInstance:
    """The part as it is anywhere in a network."""
    if isinstance(part, FixedModule):
        return FixedModule("", part.workload, ())
    return CellInstance(part.kind, part.preprocess, part.candidates, part.node_sum, part.concat, ())


def _fixed_bytes(site: Site, workload: Workload) -> int:
    schedule = _Schedule(list(site.input_bytes))
    return _bytes_at(site, schedule, schedule.run(workload, *site.inputs))


def _cell_bytes(site: Site, cell: Cell, chosen: Sequence[str | None]) -> int:
    """The most bytes alive while a cell runs with the operations ``chosen``, None where nothing is known of an edge.

    Such an edge is left out. Whatever it is, the layers of the others run in the same order, and for every tensor that
    is counted here there is one of at least its size: itself, what an unknown operation makes of it, or the sum that it
    goes into. Only zeros could vanish; they are counted where a node certainly has no input.
    """
    place = site.part
    assert isinstance(place, CellInstance)
    schedule = _Schedule(list(site.input_bytes))
    nodes: list[int | None] = [schedule.run(w, x) for w, x in zip(place.preprocess, site.inputs, strict=True)]
    live = cell.live_edges(tuple(op or NONE for op in chosen))
    empty: set[int] = set()
    for node in cell.inner_nodes:
        terms = []
        for e in cell.edges_into(node):
            source = nodes[cell.edges[e][0]]
            if live[e] and source is not None:
                terms.append(schedule.run(place.candidates[e][str(chosen[e])], source))
        if all(chosen[e] == NONE or cell.edges[e][0] in empty for e in cell.edges_into(node)):
            empty.add(node)
        total = terms[0] if terms else None
        for term in terms[1:]:
            assert total is not None
            total = schedule.run(place.node_sum, total, term)
        if total is None and node in empty and node in cell.outputs:
            total = schedule.write(VALUE_BYTES * counted_layers(place.node_sum)[-1].written_values)
        nodes.append(total)
    outputs = tuple(number for number in (nodes[node] for node in cell.outputs) if number is not None)
    if place.concat:
        outputs = (schedule.write(VALUE_BYTES * counted_layers(place.concat)[-1].written_values, outputs),)
    return _bytes_at(site, schedule, *outputs)


def _bytes_at(site: Site, schedule: _Schedule, *outputs: int) -> int:
    kept = {number for number, kept in enumerate(site.kept) if kept}
    return site.elsewhere_bytes + schedule.peak_bytes(kept | set(outputs))


def _tensors(site: Site, edge: int, op: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    """What each layer of an operation reads and how much it writes; nothing for an identity."""
    assert isinstance(site.part, CellInstance)
    workload = site.part.candidates[edge][op]
    return tuple((layer.reads, layer.written_values) for layer in counted_layers(workload)) if workload else ()


def _workspace(site: Site, edge: int, op: str) -> int:
    """The most bytes that an operation holds on its own, its input among them; none for ``none`` and an identity."""
    assert isinstance(site.part, CellInstance)
    workload = site.part.candidates[edge][op]
    if workload is None:
        return 0
    schedule = _Schedule([VALUE_BYTES * counted_layers(workload)[0].read_values[0]])
    return schedule.peak_bytes({schedule.run(workload, 0)})


def _begins(longer: tuple | None, shorter: tuple | None) -> bool:
    """Whether at every site the first layers of one are the other's."""
    if longer is None or shorter is None:
        return longer is shorter
    return all(more[: len(less)] == less for more, less in zip(longer, shorter, strict=True))
