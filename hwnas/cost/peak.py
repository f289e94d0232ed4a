"""Peak memory: the most bytes of activations alive at once while a deployed child network runs, by analysis.

For one image, in float32. A layer's inputs and output are alive together; a tensor lives from the layer that writes it
to the last layer that reads it. The layers are those of hwnas.spaces.layers, in the order of
hwnas.networks.child: dead edges are left out, a node's edges run one after the other and are then added up. Nothing is
written in place (no ReLU, no addition), every operation has a ReLU of its own, an identity and a node with one input
are their input tensor, and a cell's inputs are preprocessed whether or not an edge reads them. A node without inputs
holds zeros. Weights, and the scratch memory within a layer, are not counted; a runtime that shares, fuses or
reorders layers may need less or more.

The peak is no sum over edges, so it is not in the loss of a search: only derivation takes it into account. It is the
maximum over the network's parts, and the bytes alive in a cell depend only on the operations of that cell kind. A
pattern of one kind is therefore too large or not, whatever the other kinds are. There are few patterns, because
operations that differ in their kernel write the same tensors. (This holds as long as a cell's output is a tensor of its
own, or is read by one part only.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from hwnas.cost.memory import VALUE_BYTES
from hwnas.cost.metric import PEAK_MEMORY
from hwnas.cost.model import Array
from hwnas.spaces import (
    HIDDEN,
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

WORD_BYTES = 8  # of the number of a word
UNKNOWN = "?"  # stands for an unknown operation, of a layer that certainly runs
FREE = -1  # in a pattern: an edge with an unknown operation
ORDERS = 6  # random orders in which the edges of a pattern are freed; each gives a cover
Pattern = tuple[int, ...]  # one operation, or FREE, for each edge


@dataclass(frozen=True)
class Site:
    """A part of a network: the tensors that it reads, and those alive while it runs.

    ``inputs`` are indices into ``input_bytes``, the sizes of the tensors that it reads. ``kept`` marks those that later
    parts read, too. ``elsewhere_bytes`` is the size of all other tensors that are alive meanwhile.
    """

    part: FixedModule | CellInstance
    inputs: tuple[int, ...]
    input_bytes: tuple[int, ...]
    kept: tuple[bool, ...]
    elsewhere_bytes: int


@dataclass(frozen=True)
class Cover:
    """Choices in one cell kind that need at least ``least_bytes``, whatever the other edges are.

    ``choices`` are edges, each with the operations that need at least as much there.
    """

    kind: str
    choices: tuple[tuple[int, tuple[int, ...]], ...]
    least_bytes: int


@dataclass
class _Schedule:
    """Layers in the order in which they run: the tensors that each reads, and the one that it writes."""

    sizes: list[int]
    steps: list[tuple[tuple[int, ...], int]] = field(default_factory=list)

    def write(self, size: int, reads: tuple[int, ...] = ()) -> int:
        self.sizes.append(size)
        self.steps.append((reads, len(self.sizes) - 1))
        return len(self.sizes) - 1

    def run(self, workload: Workload | None, *inputs: int) -> int:
        """Add the layers of an operation and return the tensor with its result. None is the identity."""
        if workload is None:
            return inputs[0]
        numbers = list(inputs)
        for layer in counted_layers(workload):
            reads = tuple(numbers[number] for number in layer.reads)
            numbers.append(self.write(VALUE_BYTES * layer.written_values, reads))
        return numbers[-1]

    def peak_bytes(self, outlive: set[int]) -> int:
        """Return the most bytes alive at once; the tensors in ``outlive`` live to the end."""
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
    """The peak memory of every architecture.

    ``fixed_bytes`` is the maximum over the parts that are not searched. ``sites[kind]`` are the sites of a cell kind,
    without repetitions.
    """

    space: SearchSpace
    metric: str
    fixed_bytes: int
    sites: Mapping[str, tuple[Site, ...]]
    _known: dict[tuple[str, Pattern], int] = field(default_factory=dict, repr=False, compare=False)
    _covers: dict[Cover, None] = field(default_factory=dict, repr=False, compare=False)

    def predict(self, architecture: Architecture) -> float:
        """Return the peak in bytes of the deployed network of one architecture."""
        return float(self.predict_many(encode(self.space, [architecture]))[0])

    def predict_many(self, choices: NDArray[np.intp]) -> Array:
        """Return peaks [N] in bytes of the architectures ``choices`` [N, edges of all cells], as operation indices."""
        greatest = np.full(len(choices), float(self.fixed_bytes))
        for kind, chosen in self.space.by_cell(choices).items():
            live = live_edges(self.space.cells[kind], chosen != self._none)
            alike = np.take_along_axis(self._alike[kind], chosen.T, axis=1).T
            patterns, which = np.unique(np.where(live, alike, self._none), axis=0, return_inverse=True)
            peaks = np.array([self.pattern_bytes(kind, tuple(pattern)) for pattern in patterns.tolist()])
            greatest = np.maximum(greatest, peaks[which.ravel()])
        return greatest

    def pattern_bytes(self, kind: str, pattern: Pattern) -> int:
        """Return the most bytes alive while cells of this kind run, or with FREE edges a lower bound of it."""
        key = kind, pattern
        if key not in self._known:
            cell, names = self.space.cells[kind], self.space.operations
            chosen = tuple(None if o == FREE else names[o] for o in pattern)
            self._known[key] = max((_cell_bytes(site, cell, chosen) for site in self.sites[kind]), default=0)
        return self._known[key]

    @cached_property
    def floor_bytes(self) -> int:
        """A lower bound of the peak of all architectures, which some may reach."""
        free = [self.pattern_bytes(kind, (FREE,) * len(cell.edges)) for kind, cell in self.space.cells.items()]
        return max(self.fixed_bytes, *free)

    def heaviest(self) -> NDArray[np.intp]:
        """Return for every edge [edges of all cells] the operation that needs most on its own."""
        alone = [
            np.array(
                [
                    [sum(_workspace(site, cell, e, op) for site in self.sites[kind]) for op in self.space.operations]
                    for e in range(len(cell.edges))
                ]
            )
            for kind, cell in self.space.cells.items()
        ]
        return np.concatenate([needs.argmax(axis=1) for needs in alone])

    def known_covers(self, bound: float) -> list[Cover]:
        """Return the covers found so far that exclude no architecture within ``bound``."""
        return [cover for cover in self._covers if cover.least_bytes > bound]

    def find_covers(self, choices: NDArray[np.intp], bound: float) -> list[Cover]:
        """Find covers above ``bound`` in one architecture's ``choices`` [edges of all cells]; none if it is within.

        The edges of a pattern that is too large are freed, one after the other, as long as the rest is too large on its
        own. Several orders give several covers.
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
        """By kind, [E, K]: the first operation that writes the same tensors there."""
        return {
            kind: np.array([[row.index(written) for written in row] for row in grid])
            for kind, grid in self._written.items()
        }

    @cached_property
    def _as_bad(self) -> dict[str, list[list[tuple[int, ...]]]]:
        """By kind, edge and operation: the operations that write all the same tensors, and perhaps more."""
        return {
            kind: [
                [tuple(o for o, more in enumerate(row) if _begins(more, written)) for written in row] for row in grid
            ]
            for kind, grid in self._written.items()
        }

    @cached_property
    def _written(self) -> dict[str, list[list[tuple | None]]]:
        """By kind, edge and operation: the reads and writes of its layers at every site; None for ``none``."""
        operations = self.space.operations
        return {
            kind: [
                [None if op == NONE else _written_at(self.sites[kind], cell, e, op) for op in operations]
                for e in range(len(cell.edges))
            ]
            for kind, cell in self.space.cells.items()
        }


def peak_model(sized: SizedSpace) -> PeakModel:
    """Build the model of peak memory; it needs no table."""
    sites = _sites(sized.network)
    cells = {
        kind: tuple(s for s in sites if isinstance(s.part, CellInstance) and s.part.kind == kind)
        for kind in sized.space.cells
    }
    fixed = [_fixed_bytes(site, site.part.workload) for site in sites if isinstance(site.part, FixedModule)]
    return PeakModel(sized.space, PEAK_MEMORY.name, max(fixed, default=0), cells)


def _sites(network: Network) -> list[Site]:
    """Return the sites of all parts, without repetitions."""
    setting = network.setting
    sizes = {-1: VALUE_BYTES * setting.image_channels * setting.height * setting.width}
    if setting.words:
        sizes = {-1: WORD_BYTES, HIDDEN: VALUE_BYTES * setting.channels}
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
        if isinstance(part, FixedModule):
            values = counted_layers(part.workload)[-1].written_values
        else:
            values = prod(part.output_shape)
        sizes[index] = VALUE_BYTES * values
        last.setdefault(index, index)
    return found


def _without_inputs(part: FixedModule | CellInstance) -> FixedModule | CellInstance:
    """Return a part without its name and inputs."""
    if isinstance(part, FixedModule):
        return FixedModule("", part.workload, ())
    return replace(part, inputs=())


def _fixed_bytes(site: Site, workload: Workload) -> int:
    schedule = _Schedule(list(site.input_bytes))
    return _bytes_at(site, schedule, schedule.run(workload, *site.inputs))


def _cell_bytes(site: Site, cell: Cell, chosen: Sequence[str | None]) -> int:
    """Return the most bytes alive while a cell runs with the operations ``chosen``, None for an unknown one.

    Unknown edges are left out, which gives a lower bound. Whatever they are, the other layers run in the same order,
    and for every tensor counted here there is one of at least its size: the tensor itself, an unknown operation's
    output from it, or the sum that it goes into. Zeros might vanish; they are counted only where a node certainly has
    no input. In a chain, whose layers all run, an unknown one is only its output, where all its operations write as
    much: without this, no layer after it would have an input, and the bound would be of no use.
    """
    cell_instance = site.part
    assert isinstance(cell_instance, CellInstance)
    schedule = _Schedule(list(site.input_bytes))
    nodes: list[int | None] = [schedule.run(w, x) for w, x in zip(cell_instance.preprocess, site.inputs, strict=True)]
    live = cell.live_edges(tuple(op or (UNKNOWN if cell.is_chain else NONE) for op in chosen))
    empty: set[int] = set()
    for node in cell.inner_nodes:
        terms = []
        for e in cell.edges_into(node):
            source = nodes[cell.edges[e][0]]
            known = all(chosen[other] is not None for other in cell.coupled.get(e, ()))
            if chosen[e] is None and live[e] and source is not None:
                terms += _unknown_output(schedule, cell, cell_instance, e, source)
            elif live[e] and known and source is not None:
                terms.append(schedule.run(cell_instance.workload(cell, e, [str(op) for op in chosen]), source))
        if all(chosen[e] == NONE or cell.edges[e][0] in empty for e in cell.edges_into(node)):
            empty.add(node)
        total = terms[0] if terms else None
        for term in terms[1:]:
            assert total is not None
            total = schedule.run(cell_instance.node_sum, total, term)
        if total is None and node in empty and node in cell.outputs:
            total = schedule.write(VALUE_BYTES * prod(cell_instance.node_shape))
        nodes.append(total)
    outputs = tuple(number for number in (nodes[node] for node in cell.outputs) if number is not None)
    if cell_instance.concat:
        outputs = (schedule.write(VALUE_BYTES * counted_layers(cell_instance.concat)[-1].written_values, outputs),)
    return _bytes_at(site, schedule, *outputs)


def _unknown_output(schedule: _Schedule, cell: Cell, instance: CellInstance, edge: int, source: int) -> list[int]:
    """Return the tensor after an unknown layer of a chain, which may be its input; nothing where its size is unknown.

    What the layer reads is not counted as alive while it writes: it may end before.
    """
    found = [(all_of, cell.offered(edge, tuple(all_of))) for all_of in instance.variants_of(edge).values()]
    workloads, before = [all_of[op] for all_of, offered in found for op in offered], schedule.sizes[source]
    sizes = {VALUE_BYTES * counted_layers(w)[-1].written_values if w else before for w in workloads}
    if len(sizes) > 1:
        return []
    return [source] if sizes == {before} else [schedule.write(sizes.pop())]


def _bytes_at(site: Site, schedule: _Schedule, *outputs: int) -> int:
    kept = {number for number, kept in enumerate(site.kept) if kept}
    return site.elsewhere_bytes + schedule.peak_bytes(kept | set(outputs))


def _written_at(sites: Sequence[Site], cell: Cell, edge: int, op: str) -> tuple:
    """Return the reads and the written values of an operation's layers at every site and next to all widths.

    There is nothing for an identity. An operation on an edge that others read is like no other.
    """
    if edge in cell.width_edges:
        return (((op,),),)
    return tuple(
        tuple((layer.reads, layer.written_values) for layer in counted_layers(workload)) if workload else ()
        for site in sites
        for workload in _variants(site, edge, op)
    )


def _variants(site: Site, edge: int, op: str) -> list[Workload | None]:
    """Return the workloads of an operation next to all widths."""
    assert isinstance(site.part, CellInstance)
    return [candidates[op] for candidates in site.part.variants_of(edge).values()]


def _workspace(site: Site, cell: Cell, edge: int, op: str) -> int:
    """Return the most bytes that an operation holds on its own, input included; 0 for ``none`` and an identity.

    Of an operation on an edge that others read, these are the most that one of them holds.
    """
    assert isinstance(site.part, CellInstance)
    if edge in cell.width_edges:
        readers = [(e, edges.index(edge)) for e, edges in cell.coupled.items() if edge in edges]
        found = [
            workload
            for e, axis in readers
            for read, candidates in site.part.variants_of(e).items()
            for workload in candidates.values()
            if read[axis] == op
        ]
    else:
        found = _variants(site, edge, op)
    return max((_held(workload) for workload in found if workload), default=0)


def _held(workload: Workload) -> int:
    schedule = _Schedule([VALUE_BYTES * counted_layers(workload)[0].read_values[0]])
    return schedule.peak_bytes({schedule.run(workload, 0)})


def _begins(longer: tuple | None, shorter: tuple | None) -> bool:
    """Return whether at every site the layers of ``longer`` begin with those of ``shorter``."""
    if longer is None or shorter is None:
        return longer is shorter
    return all(more[: len(less)] == less for more, less in zip(longer, shorter, strict=True))
