"""The chain that a user's own backbone is: its layers one after another, its network at a size, its plain module.

Layers from the first with a choice to the last are the edges of one cell, those without a choice with one candidate;
the layers before and after are fixed parts. The last layer returns the class scores and has no choice.

A choice of a number of channels is an edge of its own before the layer, as in hwnas.spaces.chain: the layer, and those
after it up to the next whose output does not depend on it, read it.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

from hwnas.errors import HwnasError
from hwnas.spaces.backbone_layers import Arguments, LayerBuilder, LayerDefinition, stride_of, written
from hwnas.spaces.build import NetworkBuilder
from hwnas.spaces.cell import NONE, SKIP, Cell
from hwnas.spaces.chain import WRITTEN_SKIP, Channels, chain_cell, chain_instance, width_op, written_op
from hwnas.spaces.layers import Shape
from hwnas.spaces.space import CellInstance, Network, Setting, Variants, Workload
from hwnas.text import shorten

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class PlacedLayer:
    """A layer of the network by its ``name`` there, ``stage1_0`` for the first of several; ``number`` counts these."""

    name: str
    definition: LayerDefinition
    number: int

    @property
    def skips(self) -> bool:
        """True where the layer can be left out."""
        return self.number >= self.definition.depth[0]

    @property
    def widths(self) -> dict[str, int]:
        """The numbers of channels of which one is chosen for the layer, by their operations, in ascending order."""
        return {width_op(channels): channels for channels in sorted(self.definition.widths)}

    @property
    def offered(self) -> tuple[str, ...]:
        """The operations of the space that the layer offers."""
        return (*self.definition.candidates, *([SKIP] if self.skips else []))

    @property
    def has_choice(self) -> bool:
        return len(self.offered) > 1 or bool(self.definition.widths)


@dataclass(frozen=True)
class BackboneEdge:
    """An edge of the cell: a layer, or the choice of its number of channels (``is_width``).

    ``reads`` are the edges that choose the numbers of channels before and after it, ``variants`` its workloads by the
    operations of these (hwnas.spaces.space.CellInstance).
    """

    layer: PlacedLayer
    is_width: bool
    reads: tuple[int, ...]
    variants: Variants

    @property
    def offered(self) -> tuple[str, ...]:
        """The operations of the space that the edge offers."""
        return tuple(self.layer.widths) if self.is_width else self.layer.offered

    @property
    def name(self) -> str:
        """The name in messages."""
        return f"the width of {self.layer.name}" if self.is_width else self.layer.name


@dataclass(frozen=True)
class RunningLayer:
    """A layer of one architecture: the layer of the declaration, the arguments of its function, and the prefix of the
    names of its tensors in a child network.
    """

    declared: str
    arguments: Arguments
    prefix: str


@dataclass(frozen=True, eq=False)
class BackboneLayout:
    """The layers of a declaration, in order. ``assemble`` makes one module of the layers' modules by name; None:
    ``nn.Sequential``. ``declared`` are the sizes of the declaration.
    """

    layers: tuple[LayerDefinition, ...]
    assemble: Callable[[dict[str, Any]], Any] | None
    declared: Setting
    build: LayerBuilder

    @cached_property
    def placed(self) -> tuple[PlacedLayer, ...]:
        """The layers of the largest network."""
        found = []
        for layer in self.layers:
            most = layer.depth[1]
            names = [layer.name] if most == 1 else [f"{layer.name}_{number}" for number in range(most)]
            found += [PlacedLayer(name, layer, number) for number, name in enumerate(names)]
        return tuple(found)

    @cached_property
    def searched(self) -> range:
        """The indices of the layers that are edges. Raises HwnasError where there is no choice, or one at the end."""
        chosen = [number for number, layer in enumerate(self.placed) if layer.has_choice]
        if not chosen:
            raise HwnasError(f"space {self.build.spec}: no layer has a choice", "give one options, or a depth")
        if chosen[-1] == len(self.placed) - 1:
            problem = "the last layer returns the class scores and cannot have options, a depth or widths"
            raise self.build.error(self.placed[-1].name, problem, "add a layer without, such as a linear one")
        return range(chosen[0], chosen[-1] + 1)

    @cached_property
    def edges(self) -> tuple[BackboneEdge, ...]:
        """The edges of the cell, at the sizes of the declaration."""
        builder = NetworkBuilder(self.declared, {})
        for layer in self.placed[: self.searched.start]:
            self._add_fixed(builder, layer)
        return self._edges(builder)[0]

    @cached_property
    def operations(self) -> tuple[str, ...]:
        """The operations of the space."""
        layers = [self.placed[number] for number in self.searched]
        words = dict.fromkeys(word for layer in layers for word in layer.definition.candidates)
        widths = dict.fromkeys(width for layer in layers for width in layer.widths)
        return (NONE, *words, *widths, *([SKIP] if any(layer.skips for layer in layers) else []))

    @cached_property
    def cell(self) -> Cell:
        """The cell of the space: one edge a layer, and one for each choice of a number of channels.

        The layers that can be left out are so from the last one on.
        """
        groups: dict[str, list[int]] = {}
        for e, edge in enumerate(self.edges):
            if edge.layer.skips and not edge.is_width:
                groups.setdefault(edge.layer.definition.name, []).append(e)
        skipped_last = tuple(tuple(group) for group in groups.values() if len(group) > 1)
        offers, reads = [edge.offered for edge in self.edges], [edge.reads for edge in self.edges]
        return chain_cell(offers, reads, skipped_last)

    def describe(self) -> str:
        """Return a line for each layer: its name in the network, and the words of its choices."""
        longest = max(len(layer.name) for layer in self.placed)
        lines = []
        for layer in self.placed:
            widths = " or ".join(layer.widths) if layer.number == 0 else ""
            words = " ".join(map(written_op, layer.offered)) if len(layer.offered) > 1 else ""
            lines.append(f"  {layer.name:{longest}}  {', then '.join(filter(None, (widths, words))) or 'fixed'}")
        return "\n".join(lines)

    def network(self, setting: Setting) -> Network:
        """Return the network for the images and classes of ``setting``.

        Raises HwnasError for another number of channels or layers than the declaration's, and for layers that do not
        fit together or fail.
        """
        if (setting.channels, setting.depth) != (self.declared.channels, self.declared.depth):
            raise HwnasError(
                f"the number of channels and layers of {self.build.spec} are those of its declaration",
                "leave out --channels and --layers, or change the declaration",
            )
        builder = NetworkBuilder(setting, {})
        for number, layer in enumerate(self.placed):
            if number == self.searched.start:
                self._add_cell(builder)
            elif number not in self.searched:
                self._add_fixed(builder, layer)
        return builder.network()

    def _add_fixed(self, builder: NetworkBuilder, layer: PlacedLayer) -> None:
        last = builder.last
        shape, classes = (last.channels, *last.size), builder.setting.classes
        (candidate,) = layer.offered
        built = self.build(layer.definition, candidate, shape, classes)
        if layer == self.placed[-1]:
            if built.out_shape != (classes,):
                raise self.build.error(
                    layer.name,
                    f"the last layer returns {written(built.out_shape)} values an image, not {classes} class scores",
                    "give its function a parameter classes, and flatten before a linear layer",
                )
            builder.fixed(layer.name, built.op, classes, 1, (1, 1))
        else:
            after = self.build.feature_map(layer.name, built)
            builder.fixed(layer.name, built.op, after[0], stride_of(shape, after) or 1, after[1:])

    def _add_cell(self, builder: NetworkBuilder) -> None:
        """Append the cell with the workloads of every edge."""
        edges, shape = self._edges(builder)
        if [edge.reads for edge in edges] != [edge.reads for edge in self.edges]:
            raise HwnasError(
                f"space {self.build.spec}: other numbers of channels are chosen for {builder.setting.describe()}",
                "let the channels of layers depend on in_channels and out_channels alone",
            )
        variants, reads = [edge.variants for edge in edges], [edge.reads for edge in edges]
        instance = chain_instance(variants, reads, builder.last.part)
        builder.add_cell(instance, shape[0], shape[1:])

    def _edges(self, builder: NetworkBuilder) -> tuple[tuple[BackboneEdge, ...], Shape]:
        """Return the edges of the cell after the last part of ``builder``, and the shape of its output."""
        size, classes = builder.last.size, builder.setting.classes
        channels: Channels = {(): builder.last.channels}
        source: tuple[int, ...] = ()  # the edge that chooses the present number of channels, if any does
        edges: list[BackboneEdge] = []
        for layer in (self.placed[number] for number in self.searched):
            reads = source
            if layer.widths and layer.number == 0:
                reads, source = (*source, len(edges)), (len(edges),)
                edges.append(BackboneEdge(layer, True, (), {(): dict.fromkeys(self.operations)}))
            variants: dict[tuple[str, ...], dict[str, Workload | None]] = {}
            after: dict[tuple[str, ...], Shape] = {}
            for read, (before, chosen) in _places(layer, channels).items():
                found, after[read] = self._workloads(layer, (before, *size), classes, chosen)
                variants[read] = {name: found.get(name) for name in self.operations}
            edges.append(BackboneEdge(layer, False, reads, variants))
            size = next(iter(after.values()))[1:]
            channels = {read[-1:]: shape[0] for read, shape in after.items()}
            if len(set(channels.values())) == 1:
                channels, source = {(): next(iter(channels.values()))}, ()
        if source:
            raise self.build.error(
                edges[-1].layer.name,
                "its number of channels is a choice, and the layer after it is fixed",
                "add a layer with options of its own and a fixed number of channels between them, or leave out widths",
            )
        return tuple(edges), (channels[()], *size)

    def _workloads(
        self, layer: PlacedLayer, shape: Shape, classes: int, out_channels: int | None
    ) -> tuple[dict[str, Workload], Shape]:
        """Return the workloads of a layer's candidates at one shape of its input, and the shape of its output."""
        words = layer.definition.candidates
        built = {word: self.build(layer.definition, word, shape, classes, out_channels) for word in words}
        after = self.build.common_shape(layer.name, shape, built)
        if out_channels not in (None, after[0]):
            problem = f"it returns {after[0]} channels for out_channels={out_channels}"
            raise self.build.error(layer.name, problem, "let the function return as many as it is given")
        self.build.require_replaceable(layer.name, shape, after, built if len(layer.offered) > 1 else {}, layer.skips)
        place = Workload("", shape[0], after[0], *shape[1:], self.build.whole_stride(layer.name, shape, after))
        return {word: replace(place, op=found.op) for word, found in built.items()}, after

    def running(self, network: Network, cells: tuple[tuple[str, ...], ...]) -> dict[str, RunningLayer]:
        """Return the layers of an architecture that run, by name and in order."""
        found: dict[str, RunningLayer] = {}
        by_name, classes = {layer.name: layer for layer in self.placed}, network.setting.classes

        def add(layer: PlacedLayer, word: str, workload: Workload | None, prefix: str) -> None:
            assert workload
            chosen = workload.out_channels if layer.widths else None
            given = layer.definition.given(workload.in_channels, classes, chosen)
            arguments = {**given, **layer.definition.candidates[word]}
            found[layer.name] = RunningLayer(layer.definition.name, arguments, prefix)

        for index, part in enumerate(network.parts):
            if not isinstance(part, CellInstance):
                layer = by_name[part.name]
                add(layer, layer.offered[0], part.workload, f"parts.{index}.")
                continue
            for e, (edge, word) in enumerate(zip(self.edges, cells[0], strict=True)):
                if word != SKIP and not edge.is_width:
                    workload = part.workload(self.cell, e, cells[0])
                    add(edge.layer, word, workload, f"parts.{index}.edges.{e}.")
        return found

    def plain(self, modules: dict[str, nn.Module]) -> nn.Module:
        """Return the plain module of the layers' modules by name. Raises HwnasError where ``assemble`` fails."""
        from torch import nn

        if self.assemble is None:
            return nn.Sequential(OrderedDict(modules))
        try:
            made = self.assemble(dict(modules))
        except Exception as error:
            raise HwnasError(
                f"space {self.build.spec}: assemble fails on the layers {', '.join(modules)}: "
                f"{type(error).__name__}: {shorten(str(error), 200)}",
                "fix the function: layers that can be left out may be missing",
            ) from error
        if not isinstance(made, nn.Module):
            raise HwnasError(
                f"space {self.build.spec}: assemble returns a {type(made).__name__}, not a torch module",
                "return the module that runs the layers",
            )
        return made


@dataclass(frozen=True)
class BackboneNotation:
    """Architectures as text: a word for each layer with a choice, in order, with spaces between them."""

    space: str
    edges: tuple[BackboneEdge, ...]

    @property
    def chosen(self) -> list[BackboneEdge]:
        """The edges with a choice."""
        return [edge for edge in self.edges if len(edge.offered) > 1]

    def parse(self, text: str) -> tuple[tuple[str, ...], ...]:
        """Return the operations of the layers. Raises HwnasError for another number of words or an unknown one."""
        words = [SKIP if word == WRITTEN_SKIP else word for word in re.findall(r"[^\s,'\"()\[\]]+", text)]
        if len(words) != len(self.chosen):
            raise HwnasError(
                f"not an architecture of space {self.space}: {shorten(text, 80)!r}",
                f"write {len(self.chosen)} words, for {', '.join(edge.name for edge in self.chosen)}",
            )
        for edge, word in zip(self.chosen, words, strict=True):
            if word not in edge.offered:
                raise HwnasError(
                    f"not an architecture of space {self.space}: {edge.name} does not offer {shorten(word, 80)}",
                    f"use one of {', '.join(map(written_op, edge.offered))}",
                )
        given: Iterator[str] = iter(words)
        return (tuple(next(given) if len(edge.offered) > 1 else edge.offered[0] for edge in self.edges),)

    def format(self, cells: tuple[tuple[str, ...], ...], all_edges: bool = True) -> str:
        """Return the text of the layers' operations; layers without a choice have no word."""
        pairs = zip(self.edges, cells[0], strict=True)
        return " ".join(written_op(operation) for edge, operation in pairs if len(edge.offered) > 1)


def _places(layer: PlacedLayer, channels: Channels) -> dict[tuple[str, ...], tuple[int, int | None]]:
    """Return the channels that a layer reads, and those that are chosen for its output, by the operations it reads."""
    if not layer.widths:
        return {read: (before, None) for read, before in channels.items()}
    if layer.number:  # it keeps the number that the first one chose
        return {(width,): (chosen, chosen) for width, chosen in layer.widths.items()}
    pairs = product(channels.items(), layer.widths.items())
    return {(*read, width): (before, chosen) for (read, before), (width, chosen) in pairs}
