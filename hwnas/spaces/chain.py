"""Spaces of layers one after another: stem, stages of layers with candidates, head, as mobile networks have them.

A chain is a space with one cell, ``chain``, whose edges are the layers. A layer has the candidates of its stage; its
channels and stride follow from the stage, so every layer has workloads of its own.

The setting's ``channels`` are those of the stem: other numbers than the definition's scale all widths, rounded as
MobileNet does. ``depth`` is the number of layers, which does not change. The stem of kind ``cifar`` is for small
images: the first layer that halves the resolution before the stages, and the first in them, keep it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from hwnas.errors import HwnasError
from hwnas.spaces.build import NetworkBuilder
from hwnas.spaces.builtin_operations import GLOBAL_POOL
from hwnas.spaces.layers import strided
from hwnas.spaces.mobile_blocks import (
    Activation,
    Gate,
    InvertedResidual,
    divisible,
    inverted_residual,
    read_mobile_layer,
)
from hwnas.spaces.operation import get_operation
from hwnas.spaces.space import NONE, SKIP, Cell, CellInstance, Network, Setting, Workload
from hwnas.text import shorten

KIND = "chain"  # the name of the cell
CLASSIFIERS = ("pool_linear", "linear")  # what a head ends with
WRITTEN_SKIP = "skip"  # in the text of an architecture
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

    ``candidates`` are names of the chain's candidates, None for all. ``skips``: whether layers can be left out: none,
    any of them, or the last ones, of which the first ``least`` stay. The first layer is left out only where the chain
    has a ``projection``.
    """

    channels: int
    layers: int
    stride: int = 1
    activation: Activation = "relu"
    gate: Gate = ""
    candidates: tuple[str, ...] | None = None
    skips: Skips = "none"
    least: int = 1


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
        return (NONE, *self.candidates, *skips)

    @cached_property
    def cell(self) -> Cell:
        """The cell of the space: one edge a layer."""
        offers: list[tuple[str, ...]] = []
        groups: list[tuple[int, ...]] = []
        for stage in self.stages:
            first, names = len(offers), tuple(stage.candidates or self.candidates)
            skippable = {"none": 0, "any": stage.layers, "last": stage.layers - stage.least}[stage.skips]
            for layer in range(stage.layers):
                skips = layer >= stage.layers - skippable and (layer > 0 or self.projection is not None)
                offers.append((*names, SKIP) if skips else names)
            if stage.skips == "last" and skippable > 1:
                groups.append(tuple(range(first + stage.least, first + stage.layers)))
        edges = tuple((layer, layer + 1) for layer in range(len(offers)))
        return Cell(1, len(offers), edges, (len(offers),), tuple(offers), tuple(groups))

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
        self._add_stages(builder, scale, in_stages)
        for number, layer in enumerate(self.head):
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

    def _add_stages(self, builder: NetworkBuilder, scale: float, strides: list[int]) -> None:
        """Append the cell with the workloads of every layer."""
        last = builder.last
        channels, size = last.channels, last.size
        layers: list[dict[str, Workload | None]] = []
        for stage, first_stride in zip(self.stages, strides, strict=True):
            out = _scaled(stage.channels, scale)
            for layer in range(stage.layers):
                stride = first_stride if layer == 0 else 1
                place = Workload("", channels, out, *size, stride)
                layers.append(self._workloads(stage, place, self.cell.offers or (), len(layers)))
                channels, size = out, strided(*size, stride)
        builder.add_cell(CellInstance(KIND, (None,), tuple(layers), None, None, (last.part,)), channels, size)

    def _workloads(
        self, stage: ChainStage, place: Workload, offers: tuple[tuple[str, ...], ...], layer: int
    ) -> dict[str, Workload | None]:
        """Return the workload of every operation of the space in a layer of the sizes of ``place``."""
        same_shape = place.stride == 1 and place.in_channels == place.out_channels
        workloads: dict[str, Workload | None] = {}
        for name in self.operations:
            op = None
            if name == SKIP and name in offers[layer]:
                op = None if same_shape else self.projection
            elif name in offers[layer]:
                op = candidate_op(self.candidates[name], stage, place)
            workloads[name] = _at(place, op) if op else None
        return workloads


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
    """Architectures as text: the operations of the layers in order, with spaces between them."""

    space: str
    cell: Cell
    operations: tuple[str, ...]

    def parse(self, text: str) -> tuple[tuple[str, ...], ...]:
        """Return the operations of the layers. Raises HwnasError for another number of words or an unknown one."""
        words = re.findall(r"[^\s,'\"()\[\]]+", text)
        operations = tuple(SKIP if word == WRITTEN_SKIP else word for word in words)
        if len(operations) != len(self.cell.edges) or not set(operations) <= set(self.operations):
            raise HwnasError(
                f"not an architecture of space {self.space}: {shorten(text, 80)!r}",
                f"write {len(self.cell.edges)} layers of {', '.join(map(_written, self.operations[1:]))}, with spaces "
                "between them",
            )
        return (operations,)

    def format(self, cells: tuple[tuple[str, ...], ...], all_edges: bool = True) -> str:
        """Return the text of the layers' operations."""
        return " ".join(map(_written, cells[0]))


def _written(operation: str) -> str:
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
