"""Spaces of layers one after another: stem, stages of layers with candidates, head, as mobile networks have them.

A chain is a space with one cell, ``chain``, whose edges are the layers. A layer has the candidates of its stage; its
channels and stride follow from the stage, so every layer has workloads of its own.

A stage can have several widths, of which one is chosen. This choice is an edge of its own before the stage's layers: it
computes nothing, its operations are the widths (``w24``), and the layers of the stage and the first one after it read
it. Where the last stage has several, the head's first layer is an edge, too, with no choice.

The setting's ``channels`` are those of the stem: other numbers than the definition's scale all widths, rounded as
MobileNet does. ``depth`` is the number of layers, which does not change. The stem of kind ``cifar`` is for small
images: the first layer that halves the resolution before the stages, and the first in them, keep it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

from hwnas.errors import HwnasError
from hwnas.spaces.build import NetworkBuilder
from hwnas.spaces.builtin_operations import GLOBAL_POOL
from hwnas.spaces.cell import NONE, SKIP, Cell
from hwnas.spaces.layers import strided
from hwnas.spaces.mobile_blocks import (
    Activation,
    Gate,
    InvertedResidual,
    divisible,
    inverted_residual,
    read_mobile_layer,
)
from hwnas.spaces.operation import get_operation, operation_of
from hwnas.spaces.space import CellInstance, Network, Setting, Variants, Workload
from hwnas.text import shorten

KIND = "chain"  # the name of the cell
CLASSIFIERS = ("pool_linear", "linear")  # what a head ends with
WRITTEN_SKIP = "skip"  # in the text of an architecture
MAX_WIDTHS = 8  # of a stage
HEAD = "head"  # the operation of the edge that is the head's first layer
Channels = Mapping[tuple[str, ...], int]  # by the operations of the edges that decide it: none, or a stage's width
Skips = Literal["none", "any", "last"]


@dataclass(frozen=True)
class FixedLayer:
    """A layer of the stem or the head; ``channels`` None: as many as it reads or, for a classifier, the classes."""

    op: str
    channels: int | None = None
    stride: int = 1


@dataclass(frozen=True)
class LayerCandidate:
    """A candidate of layers: an inverted residual, or with ``op`` any operation by its name.

    ``expand`` times the input channels are in the middle, rounded to a multiple of 8 where that is not whole.
    ``expands_always`` keeps the first 1x1 convolution where nothing is expanded. ``activation`` and ``gate`` None:
    those of the stage.
    """

    kernel: int = 3
    expand: float = 1.0
    groups: int = 1
    expands_always: bool = False
    activation: Activation | None = None
    gate: Gate | None = None
    op: str | None = None


@dataclass(frozen=True)
class ChainStage:
    """A sequence of ``layers`` with the same number of channels; the first has the ``stride``.

    Several ``channels``, in ascending order, are the widths of which one is chosen. ``candidates`` are names of the
    chain's candidates, None for all. ``skips``: whether layers can be left out: none, any of them, or the last ones, of
    which the first ``least`` stay. The first layer is left out only where the chain has a ``projection``.
    """

    channels: int | tuple[int, ...]
    layers: int
    stride: int = 1
    activation: Activation = "relu"
    gate: Gate = ""
    candidates: tuple[str, ...] | None = None
    skips: Skips = "none"
    least: int = 1

    @property
    def widths(self) -> tuple[str, ...]:
        """The operations of the edge that chooses the number of channels; empty where there is one number."""
        return () if isinstance(self.channels, int) else tuple(map(width_op, self.channels))

    def scaled(self, scale: float) -> Channels:
        """Return the number of channels at ``scale`` times the widths, by the chosen width."""
        if isinstance(self.channels, int):
            return {(): _scaled(self.channels, scale)}
        return {(width_op(channels),): _scaled(channels, scale) for channels in self.channels}


@dataclass(frozen=True)
class ChainEdge:
    """An edge of a chain's cell: ``layer`` of ``stage``, the choice of its width (``layer`` None), or the head's first
    layer (``stage`` None). ``reads`` are the edges that choose the widths before and after it.
    """

    stage: int | None
    layer: int | None
    offers: tuple[str, ...]
    reads: tuple[int, ...] = ()


@dataclass(frozen=True)
class ChainLayout:
    """A network of layers, at the widths of the publication. The first layer of the stem has the setting's channels.

    ``projection`` is the operation that a skipped layer leaves where it changes channels or resolution.
    """

    stem: tuple[FixedLayer, ...]
    candidates: Mapping[str, LayerCandidate]
    stages: tuple[ChainStage, ...]
    head: tuple[FixedLayer, ...]
    projection: str | None = None

    @cached_property
    def num_layers(self) -> int:
        return sum(stage.layers for stage in self.stages)

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations of the space."""
        skips = [SKIP] if any(stage.skips != "none" for stage in self.stages) else []
        widths = dict.fromkeys(width for stage in self.stages for width in stage.widths)
        return (NONE, *self.candidates, *widths, *skips, *([HEAD] if self.head_is_edge else []))

    @property
    def head_is_edge(self) -> bool:
        """True where the head's first layer reads a width that is chosen."""
        return bool(self.stages[-1].widths)

    @cached_property
    def edges(self) -> tuple[ChainEdge, ...]:
        """The edges of the cell in order."""
        found: list[ChainEdge] = []
        before: tuple[int, ...] = ()  # the edge that chooses the width before a stage, if any does
        for number, stage in enumerate(self.stages):
            after: tuple[int, ...] = ()
            if stage.widths:
                after = (len(found),)
                found.append(ChainEdge(number, None, stage.widths))
            names = tuple(stage.candidates or self.candidates)
            skippable = {"none": 0, "any": stage.layers, "last": stage.layers - stage.least}[stage.skips]
            for layer in range(stage.layers):
                skips = layer >= stage.layers - skippable and (layer > 0 or self.projection is not None)
                reads = after if layer else (*before, *after)
                found.append(ChainEdge(number, layer, (*names, SKIP) if skips else names, reads))
            before = after
        if self.head_is_edge:
            found.append(ChainEdge(None, None, (HEAD,), before))
        return tuple(found)

    @cached_property
    def cell(self) -> Cell:
        """The cell of the space: one edge a layer, and one for each stage of several widths."""
        offers, reads = [edge.offers for edge in self.edges], [edge.reads for edge in self.edges]
        return chain_cell(offers, reads, tuple(self._skipped_last()))

    def _skipped_last(self) -> Iterator[tuple[int, ...]]:
        """Yield the edges of every stage that are skipped from the last one on, where there are several."""
        for number, stage in enumerate(self.stages):
            if stage.skips == "last" and stage.layers - stage.least > 1:
                layers = [e for e, edge in enumerate(self.edges) if edge.stage == number and edge.layer is not None]
                yield tuple(layers[stage.least :])

    def network(self, setting: Setting) -> Network:
        """Return the network at the sizes of ``setting``. Raises HwnasError for another depth than the chain's."""
        if setting.depth != self.num_layers:
            raise HwnasError(
                f"this space has {self.num_layers} layers, not {setting.depth}",
                f"leave the number of layers at {self.num_layers}, or define a space of your own",
            )
        builder, base = NetworkBuilder(setting, {}), self.stem[0].channels or setting.channels
        scale, small = setting.channels / base, setting.stem == "cifar"
        strides = [layer.stride for layer in self.stem], [stage.stride for stage in self.stages]
        in_stem, in_stages = (_first_kept(values) if small else values for values in strides)
        for number, (layer, stride) in enumerate(zip(self.stem, in_stem, strict=True)):
            self._add_fixed(builder, f"stem{number}", layer, scale, stride)
        self._add_cell(builder, scale, in_stages)
        for number, layer in enumerate(self.head):
            if number == 0 and self.head_is_edge:
                continue
            self._add_fixed(builder, f"head{number}", layer, scale, layer.stride)
        return builder.network()

    def _add_fixed(self, builder: NetworkBuilder, name: str, layer: FixedLayer, scale: float, stride: int) -> None:
        before, layer_facts = builder.last, read_mobile_layer(layer.op)
        out = before.channels if layer.channels is None else _scaled(layer.channels, scale)
        if isinstance(layer_facts, InvertedResidual) and layer_facts.residual and (stride, out) != (1, before.channels):
            raise HwnasError(
                f"layer {name} ({layer.op}) adds its input of {before.channels} channels to an output of another shape",
                "leave out _res in its name",
            )
        if layer.op in CLASSIFIERS:
            builder.fixed(name, layer.op, builder.setting.classes)
        else:
            builder.fixed(name, layer.op, out, stride, (1, 1) if layer.op == GLOBAL_POOL else None)

    def _add_cell(self, builder: NetworkBuilder, scale: float, strides: list[int]) -> None:
        """Append the cell with the workloads of every edge."""
        last = builder.last
        before: Channels = {(): last.channels}
        size, variants = last.size, list[Variants]()
        for edge in self.edges:
            if edge.stage is None:
                variants.append(self._head_variants(before, size, scale))
                before, size = {(): _scaled(self.head[0].channels or 0, scale)}, strided(*size, self.head[0].stride)
                continue
            if edge.layer is None:
                variants.append({(): dict.fromkeys(self.operations)})
                continue
            stage, stride = self.stages[edge.stage], 1 if edge.layer else strides[edge.stage]
            after = stage.scaled(scale)
            places = _places(None if edge.layer else before, after, size, stride)
            variants.append({read: self._workloads(stage, place, edge) for read, place in places.items()})
            before, size = after, strided(*size, stride)
        ((_, channels),) = before.items()
        builder.add_cell(chain_instance(variants, [edge.reads for edge in self.edges], last.part), channels, size)

    def _head_variants(self, before: Channels, size: tuple[int, int], scale: float) -> Variants:
        """Return the workload of the head's first layer for every width that it can read."""
        layer = self.head[0]
        if layer.channels is None or layer.op in CLASSIFIERS:
            raise HwnasError(
                f"the last stage has several widths, and the head begins with {layer.op}, which keeps them",
                "let it begin with a layer of its own width, such as {op: conv_bn_relu_1x1, channels: 960}",
            )
        out = _scaled(layer.channels, scale)
        return {
            read: dict.fromkeys(self.operations) | {HEAD: Workload(layer.op, channels, out, *size, layer.stride)}
            for read, channels in before.items()
        }

    def _workloads(self, stage: ChainStage, place: Workload, edge: ChainEdge) -> dict[str, Workload | None]:
        """Return the workload of every operation of the space in a layer of the sizes of ``place``."""
        offers = edge.offers
        same_shape = place.stride == 1 and place.in_channels == place.out_channels
        workloads: dict[str, Workload | None] = {}
        for name in self.operations:
            op = None
            if name == SKIP and name in offers:
                op = None if same_shape else self.projection
            elif name in offers:
                op = candidate_op(self.candidates[name], stage, place)
                if edge.reads and (begins := operation_of(_at(place, op)).begins_with):
                    raise HwnasError(
                        f"candidate {name} begins with {begins}, which runtimes merge with some layers before it: its "
                        "cost is not known next to a stage of several widths",
                        "use candidates that begin with a convolution, or give the stages one number of channels",
                    )
            workloads[name] = _at(place, op) if op else None
        return workloads


def width_op(channels: int) -> str:
    """Return the operation that chooses a number of channels."""
    return f"w{channels}"


def _places(
    before: Channels | None, after: Channels, size: tuple[int, int], stride: int
) -> dict[tuple[str, ...], Workload]:
    """Return the sizes of a layer for every choice of the widths before (None: the same as after) and after it."""
    if before is None:
        return {read: Workload("", out, out, *size, stride) for read, out in after.items()}
    pairs = product(before.items(), after.items())
    return {(*first, *second): Workload("", into, out, *size, stride) for (first, into), (second, out) in pairs}


def candidate_op(candidate: LayerCandidate, stage: ChainStage, place: Workload) -> str:
    """Return the name of the operation of a candidate in a layer of the sizes of ``place``."""
    if candidate.op:
        return get_operation(candidate.op).op
    if place.in_channels % candidate.groups or place.out_channels % candidate.groups:
        raise HwnasError(
            f"{candidate.groups} groups do not divide {place.in_channels} and {place.out_channels} channels of a layer",
            "change the groups or the channels",
        )
    middle = candidate.expand * place.in_channels
    return inverted_residual(
        place.in_channels,
        round(middle) if candidate.expand == round(candidate.expand) else divisible(middle),
        kernel=candidate.kernel,
        groups=candidate.groups,
        expands_always=candidate.expands_always,
        activation=stage.activation if candidate.activation is None else candidate.activation,
        gate=stage.gate if candidate.gate is None else candidate.gate,
        residual=place.stride == 1 and place.in_channels == place.out_channels,
    ).op


@dataclass(frozen=True)
class ChainNotation:
    """Architectures as text: the operations of the layers in order, with spaces between them.

    Before the layers of a stage of several widths stands the chosen one. The edge of the head is not written.
    """

    space: str
    cell: Cell
    operations: tuple[str, ...]

    def parse(self, text: str) -> tuple[tuple[str, ...], ...]:
        """Return the operations of the layers. Raises HwnasError for another number of words or an unknown one."""
        words = re.findall(r"[^\s,'\"()\[\]]+", text)
        operations = tuple(SKIP if word == WRITTEN_SKIP else word for word in words)
        shown = [op for op in self.operations[1:] if op != HEAD]
        if len(operations) != len(self.cell.edges) - len(self._head) or not set(operations) <= set(shown):
            raise HwnasError(f"not an architecture of space {self.space}: {shorten(text, 80)!r}", self._advice(shown))
        return ((*operations, *self._head),)

    def format(self, cells: tuple[tuple[str, ...], ...], all_edges: bool = True) -> str:
        """Return the text of the layers' operations."""
        return " ".join(written_op(op) for op in cells[0] if op != HEAD)

    @property
    def _head(self) -> tuple[str, ...]:
        return (HEAD,) if HEAD in self.operations else ()

    def _advice(self, shown: list[str]) -> str:
        widths = {e: (self.cell.offers or ())[e] for e in self.cell.width_edges}
        chosen = {width for offers in widths.values() for width in offers}
        number, names = (
            len(self.cell.edges) - len(self._head),
            ", ".join(written_op(o) for o in shown if o not in chosen),
        )
        if not widths:
            return f"write {number} layers of {names}, with spaces between them"
        at = ", ".join(f"word {e + 1} is {' or '.join(offers)}" for e, offers in widths.items())
        return f"write {number} words with spaces between them: {at}, the others are layers of {names}"


def chain_cell(
    offers: Sequence[tuple[str, ...]], reads: Sequence[tuple[int, ...]], skipped_last: tuple[tuple[int, ...], ...]
) -> Cell:
    """Return the cell of a chain of edges, which offer operations each and may read edges before them."""
    return Cell(
        num_inputs=1,
        num_nodes=len(offers),
        edges=tuple((edge, edge + 1) for edge in range(len(offers))),
        outputs=(len(offers),),
        offers=tuple(offers),
        skipped_last=skipped_last,
        reads=tuple(reads) if any(reads) else (),
    )


def chain_instance(variants: Sequence[Variants], reads: Sequence[tuple[int, ...]], part: int) -> CellInstance:
    """Return the instance of a chain's cell behind a ``part``; ``variants`` are the workloads of every edge."""
    widest = tuple(list(options.values())[-1] for options in variants)
    several = {e: options for e, options in enumerate(variants) if reads[e]}
    return CellInstance(KIND, (None,), widest, None, None, (part,), several)


def written_op(operation: str) -> str:
    """Return the word of an operation in an architecture's text."""
    return WRITTEN_SKIP if operation == SKIP else operation


def _at(place: Workload, op: str) -> Workload:
    return Workload(op, place.in_channels, place.out_channels, place.height, place.width, place.stride)


def _scaled(channels: int, scale: float) -> int:
    return channels if scale == 1 else divisible(channels * scale)


def _first_kept(strides: list[int]) -> list[int]:
    """Return the strides with the first one above 1 replaced by 1."""
    first = next((number for number, stride in enumerate(strides) if stride > 1), None)
    return [1 if number == first else stride for number, stride in enumerate(strides)]


def require_mobile(op: str) -> None:
    """Raise HwnasError when a fixed layer is neither a mobile layer, a pooling of all pixels nor a classifier."""
    if op not in (*CLASSIFIERS, GLOBAL_POOL) and read_mobile_layer(op) is None:
        raise HwnasError(
            f"{op!r} is no layer of a stem or a head",
            f"use one such as conv_bn_relu_3x3, mbconv_3x3_e1, {GLOBAL_POOL}, {', '.join(CLASSIFIERS)}",
        )
