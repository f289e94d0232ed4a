"""Networks put together part by part: what all spaces have in common in how their cells follow each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwnas.spaces.builtin_operations import (
    CONCAT,
    FACTORIZED_REDUCE,
    IMAGENET_STEM,
    PREPROCESS,
    RESIDUAL_REDUCTION,
    STEM,
    SUM,
)
from hwnas.spaces.operation import get_operation
from hwnas.spaces.space import Cell, CellInstance, FixedModule, Network, Setting, Workload


@dataclass(frozen=True)
class Written:
    """What a part writes: the part's number (-1: the image), channels, height and width."""

    part: int
    channels: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


class NetworkBuilder:
    """The parts so far. Each reads what the last one wrote; a cell of two inputs also what the one before it did.

    ``operations`` maps a candidate's name in the space to that of its operation.
    """

    def __init__(self, setting: Setting, operations: Mapping[str, str]) -> None:
        self.setting, self.operations = setting, operations
        self.parts: list[FixedModule | CellInstance] = []
        self.image = Written(-1, setting.image_channels, setting.height, setting.width)
        self.history: list[Written] = []

    def fixed(self, name: str, op: str, out_channels: int, stride: int = 1) -> None:
        """A part that is not searched."""
        last = self.history[-1] if self.history else self.image
        workload = Workload(op, last.channels, out_channels, last.height, last.width, stride)
        self._add(FixedModule(name, workload, (last.part,)), out_channels, _strided(last.size, stride))

    def cell(self, kind: str, cell: Cell, channels: int, stride: int = 1, prepare: bool = True) -> None:
        """A cell whose edges that leave its inputs have this stride.

        Its inputs are brought to its channels and to one size; without ``prepare`` one that has both is left as it is.
        """
        inputs = ([self.history[0]] * cell.num_inputs + self.history)[-cell.num_inputs :]
        last = inputs[-1]
        size = _strided(last.size, stride)
        from_input, from_node = self._candidates(channels, last.size, stride), self._candidates(channels, size, 1)
        outputs = len(cell.outputs)
        place = CellInstance(
            kind=kind,
            preprocess=tuple(_preprocess(x, last, channels, prepare) for x in inputs),
            candidates=tuple(from_input if source < cell.num_inputs else from_node for source, _ in cell.edges),
            node_sum=Workload(SUM, channels, channels, *size),
            concat=Workload(CONCAT, channels, outputs * channels, *size) if outputs > 1 else None,
            inputs=tuple(x.part for x in inputs),
        )
        self._add(place, outputs * channels, size)

    def network(self) -> Network:
        return Network(self.setting, tuple(self.parts))

    def _add(self, part: FixedModule | CellInstance, channels: int, size: tuple[int, int]) -> None:
        self.history.append(Written(len(self.parts), channels, *size))
        self.parts.append(part)

    def _candidates(self, channels: int, size: tuple[int, int], stride: int) -> dict[str, Workload | None]:
        """The workload of every candidate on an edge, at its input's size; None where it computes nothing."""
        workloads: dict[str, Workload | None] = {}
        for name, op in self.operations.items():
            operation = get_operation(op)
            if stride > 1 and operation.strided:
                operation = get_operation(operation.strided)
            if self.setting.pool_norm and operation.normed:
                operation = get_operation(operation.normed)
            computes = operation.module is not None
            workloads[name] = Workload(operation.op, channels, channels, *size, stride) if computes else None
        return workloads


def _preprocess(x: Written, last: Written, channels: int, prepare: bool) -> Workload | None:
    if x.size != last.size:  # the part before was a reduction, so its input must be halved too
        return Workload(FACTORIZED_REDUCE, x.channels, channels, *x.size, 2)
    if x.channels == channels and not prepare:
        return None
    return Workload(PREPROCESS, x.channels, channels, *x.size)


def _strided(size: tuple[int, int], stride: int) -> tuple[int, int]:
    height, width = size
    return (height + stride - 1) // stride, (width + stride - 1) // stride


@dataclass(frozen=True)
class Stage:
    """Cells of one kind, one after the other, with ``channels`` times the setting's channels.

    ``cells`` is their number, by default the setting's depth. ``reduction`` halves the resolution ahead of them: a
    ``residual_reduction`` block, or a cell of the kind that it names, of stride 2.
    """

    cell: str
    channels: int = 1
    cells: int | None = None
    reduction: str | None = None


@dataclass(frozen=True)
class Layout:
    """A network in stages: a stem of ``stem_channels`` times the setting's channels, cells, a head.

    Cells of one input in a space that has no others read a tensor that fits as it is (NAS-Bench-201); elsewhere every
    input goes through a convolution first (DARTS), so that no two parts hold the same tensor.
    """

    operations: Mapping[str, str]
    cells: Mapping[str, Cell]
    stages: tuple[Stage, ...]
    head: str
    stem_channels: int = 1

    def network(self, setting: Setting) -> Network:
        builder = NetworkBuilder(setting, self.operations)
        add_stem(builder, self.stem_channels * setting.channels)
        prepare = any(cell.num_inputs > 1 for cell in self.cells.values())
        for number, stage in enumerate(self.stages):
            channels = stage.channels * setting.channels
            if stage.reduction == RESIDUAL_REDUCTION:
                builder.fixed(f"reduction{number}", RESIDUAL_REDUCTION, channels, 2)
            elif stage.reduction:
                builder.cell(stage.reduction, self.cells[stage.reduction], channels, 2, prepare)
            for _ in range(setting.depth if stage.cells is None else stage.cells):
                builder.cell(stage.cell, self.cells[stage.cell], channels, 1, prepare)
        builder.fixed("head", self.head, setting.classes)
        return builder.network()


def add_stem(builder: NetworkBuilder, channels: int) -> None:
    """The stem of the setting: one convolution, or for ImageNet's images three, which make them 8 times smaller."""
    if builder.setting.stem == "imagenet":
        builder.fixed("stem0", IMAGENET_STEM[0], channels, 4)
        builder.fixed("stem1", IMAGENET_STEM[1], channels, 2)
    else:
        builder.fixed("stem", STEM, channels)
