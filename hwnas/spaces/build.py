"""Build the network of a space part by part: stem, cells with their preprocessing, reductions, head."""

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
from hwnas.spaces.cell import Cell
from hwnas.spaces.layers import strided
from hwnas.spaces.operation import get_operation
from hwnas.spaces.space import CellInstance, FixedModule, Network, Setting, Workload


@dataclass(frozen=True)
class PartOutput:
    """The output of a part: the part's number (-1: the image), channels, height and width."""

    part: int
    channels: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


class NetworkBuilder:
    """A network under construction. Each part reads the output of the last one; a cell with two inputs reads the last
    two.

    ``operations`` maps the name of a candidate in the space to the name of its operation.
    """

    def __init__(self, setting: Setting, operations: Mapping[str, str]) -> None:
        self.setting, self.operations = setting, operations
        self.parts: list[FixedModule | CellInstance] = []
        self.image = PartOutput(-1, setting.image_channels, setting.height, setting.width)
        self.history: list[PartOutput] = []

    @property
    def last(self) -> PartOutput:
        """The output of the last part, or the image."""
        return self.history[-1] if self.history else self.image

    def fixed(
        self, name: str, op: str, out_channels: int, stride: int = 1, out_size: tuple[int, int] | None = None
    ) -> None:
        """Append a part that is not searched: a stem, a reduction or a head. ``out_size`` None: as of the stride."""
        last = self.last
        workload = Workload(op, last.channels, out_channels, last.height, last.width, stride)
        self._add(FixedModule(name, workload, (last.part,)), out_channels, out_size or strided(*last.size, stride))

    def cell(self, kind: str, cell: Cell, channels: int, stride: int = 1, prepare: bool = True) -> None:
        """Append a cell. ``stride`` is that of the edges that leave its inputs.

        Convolutions give all inputs the cell's channels and one size. Without ``prepare``, an input that has both is
        read as it is.
        """
        inputs = ([self.history[0]] * cell.num_inputs + self.history)[-cell.num_inputs :]
        last = inputs[-1]
        size = strided(*last.size, stride)
        from_input, from_node = self._candidates(channels, last.size, stride), self._candidates(channels, size, 1)
        outputs = len(cell.outputs)
        instance = CellInstance(
            kind=kind,
            preprocess=tuple(_preprocess(x, last, channels, prepare) for x in inputs),
            candidates=tuple(from_input if source < cell.num_inputs else from_node for source, _ in cell.edges),
            node_sum=Workload(SUM, channels, channels, *size),
            concat=Workload(CONCAT, channels, outputs * channels, *size) if outputs > 1 else None,
            inputs=tuple(x.part for x in inputs),
        )
        self.add_cell(instance, outputs * channels, size)

    def add_cell(self, instance: CellInstance, channels: int, size: tuple[int, int]) -> None:
        """Append a cell with an output of these channels, height and width."""
        self._add(instance, channels, size)

    def network(self) -> Network:
        """Return the network of the parts appended so far."""
        return Network(self.setting, tuple(self.parts))

    def _add(self, part: FixedModule | CellInstance, channels: int, size: tuple[int, int]) -> None:
        self.history.append(PartOutput(len(self.parts), channels, *size))
        self.parts.append(part)

    def _candidates(self, channels: int, size: tuple[int, int], stride: int) -> dict[str, Workload | None]:
        """Return the workload of every candidate on an edge, None for one that computes nothing."""
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


def _preprocess(x: PartOutput, last: PartOutput, channels: int, prepare: bool) -> Workload | None:
    """Return the workload that gives the input ``x`` of a cell its channels and the size of the last part's output."""
    if x.size != last.size:  # the last part was a reduction
        return Workload(FACTORIZED_REDUCE, x.channels, channels, *x.size, 2)
    if x.channels == channels and not prepare:
        return None
    return Workload(PREPROCESS, x.channels, channels, *x.size)


@dataclass(frozen=True)
class NetworkStage:
    """A sequence of cells of one kind with ``channels`` times the setting's channels.

    ``cells`` is their number, by default the setting's depth. ``reduction`` names the part before them that halves the
    resolution: ``residual_reduction``, or a kind of cell, which then has stride 2.
    """

    cell: str
    channels: int = 1
    cells: int | None = None
    reduction: str | None = None


@dataclass(frozen=True)
class Layout:
    """A network in stages: a stem with ``stem_channels`` times the setting's channels, cells, a head.

    In a space whose cells all have one input, a cell reads an input of the right shape as it is (NAS-Bench-201). In any
    other space every input passes a convolution first (DARTS), so that no two parts hold the same tensor.
    """

    operations: Mapping[str, str]
    cells: Mapping[str, Cell]
    stages: tuple[NetworkStage, ...]
    head: str
    stem_channels: int = 1

    def network(self, setting: Setting) -> Network:
        """Return the network at the sizes of ``setting``."""
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
    """Append the setting's stem: one convolution, or, for ImageNet, three that make images 8 times smaller."""
    if builder.setting.stem == "imagenet":
        builder.fixed("stem0", IMAGENET_STEM[0], channels, 4)
        builder.fixed("stem1", IMAGENET_STEM[1], channels, 2)
    else:
        builder.fixed("stem", STEM, channels)
