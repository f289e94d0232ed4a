"""The chain that a user's own backbone is: its layers one after another, its network at a size, its plain module.

Layers from the first with a choice to the last are the edges of one cell, those without a choice with one candidate;
the layers before and after are fixed parts. The last layer returns the class scores and has no choice.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hwnas.errors import HwnasError
from hwnas.spaces.backbone_layers import Arguments, BuiltLayer, LayerBuilder, LayerDefinition
from hwnas.spaces.build import NetworkBuilder
from hwnas.spaces.chain import KIND, WRITTEN_SKIP
from hwnas.spaces.layers import Shape, strided
from hwnas.spaces.space import NONE, SKIP, Cell, CellInstance, Network, Setting, Workload
from hwnas.text import shorten

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class PlacedLayer:
    """A layer of the network by its ``name`` there, ``stage1_0`` for the first of several; ``skips``: it can be left
    out.
    """

    name: str
    definition: LayerDefinition
    skips: bool

    @cached_property
    def offered(self) -> tuple[str, ...]:
        """The operations of the space that the layer offers."""
        return (*self.definition.candidates, *([SKIP] if self.skips else []))


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
            least, most = layer.depth
            names = [layer.name] if most == 1 else [f"{layer.name}_{number}" for number in range(most)]
            found += [PlacedLayer(name, layer, number >= least) for number, name in enumerate(names)]
        return tuple(found)

    @cached_property
    def searched(self) -> range:
        """The indices of the layers that are edges. Raises HwnasError where there is no choice, or one at the end."""
        chosen = [number for number, layer in enumerate(self.placed) if len(layer.offered) > 1]
        if not chosen:
            raise HwnasError(f"space {self.build.spec}: no layer has a choice", "give one options, or a depth")
        if chosen[-1] == len(self.placed) - 1:
            problem = "the last layer returns the class scores and cannot have options or a depth"
            raise self.build.error(self.placed[-1].name, problem, "add a layer without, such as a linear one")
        return range(chosen[0], chosen[-1] + 1)

    @cached_property
    def edges(self) -> tuple[PlacedLayer, ...]:
        """The layers that are edges, in order."""
        return tuple(self.placed[number] for number in self.searched)

    @cached_property
    def operations(self) -> tuple[str, ...]:
        """The operations of the space."""
        words = dict.fromkeys(word for layer in self.edges for word in layer.definition.candidates)
        return (NONE, *words, *([SKIP] if any(layer.skips for layer in self.edges) else []))

    @cached_property
    def cell(self) -> Cell:
        """The cell of the space: one edge a layer. The layers that can be left out are so from the last one on."""
        count = len(self.edges)
        groups: dict[str, list[int]] = {}
        for e, layer in enumerate(self.edges):
            if layer.skips:
                groups.setdefault(layer.definition.name, []).append(e)
        return Cell(
            num_inputs=1,
            num_nodes=count,
            edges=tuple((e, e + 1) for e in range(count)),
            outputs=(count,),
            offers=tuple(layer.offered for layer in self.edges),
            skipped_last=tuple(tuple(group) for group in groups.values() if len(group) > 1),
        )

    def describe(self) -> str:
        """Return a line for each layer: its name in the network, and the words of its choices."""
        longest = max(len(layer.name) for layer in self.placed)
        return "\n".join(
            f"  {layer.name:{longest}}  {' '.join(map(_word, layer.offered)) if len(layer.offered) > 1 else 'fixed'}"
            for layer in self.placed
        )

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
                self._add_fixed(builder, layer, is_last=number == len(self.placed) - 1)
        return builder.network()

    def _add_fixed(self, builder: NetworkBuilder, layer: PlacedLayer, is_last: bool) -> None:
        last = builder.last
        shape, classes = (last.channels, *last.size), builder.setting.classes
        (candidate,) = layer.offered
        built = self.build(layer.definition, candidate, shape, classes)
        if is_last:
            if built.out_shape != (classes,):
                raise self.build.error(
                    layer.name,
                    f"the last layer returns {_written(built.out_shape)} values an image, not {classes} class scores",
                    "give its function a parameter classes, and flatten before a linear layer",
                )
            builder.fixed(layer.name, built.op, classes, 1, (1, 1))
        else:
            after = self._feature_map(layer, built)
            builder.fixed(layer.name, built.op, after[0], _stride(shape, after) or 1, after[1:])

    def _add_cell(self, builder: NetworkBuilder) -> None:
        """Append the cell with the workloads of every layer."""
        last = builder.last
        shape, classes = (last.channels, *last.size), builder.setting.classes
        workloads: list[dict[str, Workload | None]] = []
        for layer in self.edges:
            built = {word: self.build(layer.definition, word, shape, classes) for word in layer.definition.candidates}
            after = self._common_shape(layer, shape, built)
            place = Workload("", shape[0], after[0], *shape[1:], self._whole_stride(layer, shape, after))
            ops = {word: replace(place, op=found.op) for word, found in built.items()}
            workloads.append({name: ops.get(name) for name in self.operations})
            shape = after
        instance = CellInstance(KIND, (None,), tuple(workloads), None, None, (last.part,))
        builder.add_cell(instance, shape[0], shape[1:])

    def _common_shape(self, layer: PlacedLayer, shape: Shape, built: Mapping[str, BuiltLayer]) -> Shape:
        """Return the output's shape of a layer's candidates. Raises HwnasError where they cannot stand for each
        other.
        """
        (first, one), *others = built.items()
        for word, other in others:
            if other.out_shape != one.out_shape:
                raise self.build.error(
                    layer.name,
                    f"{first} returns {_written(one.out_shape)} and {word} {_written(other.out_shape)} "
                    f"for an input of {_written(shape)}",
                    "give all choices one output shape, with a padding of kernel // 2 for example",
                )
        after = self._feature_map(layer, one)
        if layer.skips and after != shape:
            raise self.build.error(
                layer.name,
                f"it can be left out, but makes {_written(after)} of {_written(shape)}",
                "declare a layer that changes the shape on its own, without a depth",
            )
        overwrites = [word for word, found in built.items() if found.overwrites_input]
        if overwrites and len(layer.offered) > 1:
            raise self.build.error(
                layer.name,
                f"{overwrites[0]} changes its input in place, which the other choices read, too",
                "use inplace=False in what reads the input first",
            )
        return after

    def _feature_map(self, layer: PlacedLayer, built: BuiltLayer) -> Shape:
        if len(built.out_shape) != 3:
            raise self.build.error(
                layer.name,
                f"its output is {_written(built.out_shape)} for each image, not channels, height and width",
                "flatten and pool tokens in the last layer only",
            )
        channels, height, width = built.out_shape
        return channels, height, width

    def _whole_stride(self, layer: PlacedLayer, shape: Shape, after: Shape) -> int:
        stride = _stride(shape, after)
        if stride is None:
            raise self.build.error(
                layer.name,
                f"it makes {_written(after)} of {_written(shape)}; a layer between those with a choice keeps height "
                "and width or divides both by one whole number, rounding up",
                "pad its convolutions by kernel // 2, or move it before or after the layers with a choice",
            )
        return stride

    def running(self, network: Network, cells: tuple[tuple[str, ...], ...]) -> dict[str, RunningLayer]:
        """Return the layers of an architecture that run, by name and in order."""
        found: dict[str, RunningLayer] = {}
        by_name, classes = {layer.name: layer for layer in self.placed}, network.setting.classes

        def add(layer: PlacedLayer, word: str, workload: Workload | None, prefix: str) -> None:
            assert workload
            given = layer.definition.given(workload.in_channels, classes)
            arguments = {**given, **layer.definition.candidates[word]}
            found[layer.name] = RunningLayer(layer.definition.name, arguments, prefix)

        for index, part in enumerate(network.parts):
            if not isinstance(part, CellInstance):
                layer = by_name[part.name]
                add(layer, layer.offered[0], part.workload, f"parts.{index}.")
                continue
            for e, (layer, word) in enumerate(zip(self.edges, cells[0], strict=True)):
                if word != SKIP:
                    add(layer, word, part.candidates[e][word], f"parts.{index}.edges.{e}.")
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
    edges: tuple[PlacedLayer, ...]

    @property
    def chosen(self) -> list[PlacedLayer]:
        return [layer for layer in self.edges if len(layer.offered) > 1]

    def parse(self, text: str) -> tuple[tuple[str, ...], ...]:
        """Return the operations of the layers. Raises HwnasError for another number of words or an unknown one."""
        words = [SKIP if word == WRITTEN_SKIP else word for word in re.findall(r"[^\s,'\"()\[\]]+", text)]
        if len(words) != len(self.chosen):
            raise HwnasError(
                f"not an architecture of space {self.space}: {shorten(text, 80)!r}",
                f"write {len(self.chosen)} words, for {', '.join(layer.name for layer in self.chosen)}",
            )
        for layer, word in zip(self.chosen, words, strict=True):
            if word not in layer.offered:
                raise HwnasError(
                    f"not an architecture of space {self.space}: layer {layer.name} does not offer {shorten(word, 80)}",
                    f"use one of {', '.join(map(_word, layer.offered))}",
                )
        given: Iterator[str] = iter(words)
        return (tuple(next(given) if len(layer.offered) > 1 else layer.offered[0] for layer in self.edges),)

    def format(self, cells: tuple[tuple[str, ...], ...], all_edges: bool = True) -> str:
        """Return the text of the layers' operations; layers without a choice have no word."""
        pairs = zip(self.edges, cells[0], strict=True)
        return " ".join(_word(operation) for layer, operation in pairs if len(layer.offered) > 1)


def _word(operation: str) -> str:
    return WRITTEN_SKIP if operation == SKIP else operation


def _written(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _stride(before: Shape, after: Shape) -> int | None:
    """Return the stride that makes the height and width ``after`` of those ``before``, or None."""
    return next((s for s in range(1, max(before[1:]) + 1) if strided(*before[1:], s) == after[1:]), None)
