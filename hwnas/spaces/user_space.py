"""Spaces of cells that users define in a YAML file (docs/how-to/own-space.md): operations, cells, network, settings."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hwnas.errors import HwnasError
from hwnas.files import sha256_of
from hwnas.imports import IMPORT_PATH, import_object
from hwnas.spaces.build import Layout, NetworkStage
from hwnas.spaces.builtin_operations import RESIDUAL_REDUCTION, SKIP
from hwnas.spaces.cell import NONE, Cell
from hwnas.spaces.convolutions import (
    KINDS,
    MAX_DILATION,
    MAX_KERNEL,
    USUAL_DILATION,
    Convolution,
)
from hwnas.spaces.notation import Notation
from hwnas.spaces.operation import Operation, find_operation, register
from hwnas.spaces.sized_space import SizedSpace
from hwnas.spaces.space import SearchSpace, Setting, SpaceOrigin

MAX_EDGES = 40  # in all cells
ALONE = (NONE, SKIP)  # candidates that every method knows by these names

SPACE_NAME = "[a-z][a-z0-9_-]{0,39}"
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Size = Annotated[int, Field(ge=1, le=1024)]


class Definition(BaseModel):
    """One section of a YAML file. Unknown fields and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class OperationDefinition(Definition):
    """An operation: the name of a registered one, or a name with a kind and its parameters or with the import path of
    an Operation.
    """

    name: Name
    kind: (
        Literal["relu_conv_bn", "separable_conv", "dilated_conv", "asymmetric_conv", "pool", "skip_connect", "none"]
        | None
    ) = None
    kernel: Annotated[int, Field(ge=1, le=MAX_KERNEL)] | None = None
    dilation: Annotated[int, Field(ge=1, le=MAX_DILATION)] | None = None
    pool: Literal["max", "avg"] | None = None
    operation: Annotated[str, Field(pattern=f"^{IMPORT_PATH.pattern}$", max_length=200)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _complete(self) -> OperationDefinition:
        given = {key for key in ("kernel", "dilation", "pool") if getattr(self, key) is not None}
        takes = {"pool": {"kernel", "pool"}, "dilated_conv": {"kernel", "dilation"}}
        allowed = takes.get(self.kind or "", {"kernel"} if self.kind in KINDS else set())
        if given - allowed:
            raise ValueError(f"{min(given - allowed)} does not belong to {self.kind or 'an operation without a kind'}")
        if self.kind and self.operation:
            raise ValueError(f"{self.name}: give either kind or operation")
        if self.op is None:
            raise ValueError(
                f"{self.name} is not a registered operation: give it a kind, or an operation: package.module:NAME"
            )
        if self.kind in KINDS and not (self.kernel or 0) % 2:
            raise ValueError(f"{self.name}: {self.kind} needs an odd kernel")
        if self.kind == "pool" and (self.pool is None or registered_candidate(str(self.op)) is None):
            raise ValueError(f"{self.name}: pool needs pool: max (kernel 3, 5 or 7) or pool: avg (kernel 3)")
        if self.kind in ALONE and self.name != self.kind:
            raise ValueError(f"{self.name}: an operation of kind {self.kind} must be named {self.kind}")
        meant = registered_candidate(self.name)
        if meant not in (None, self.op):
            raise ValueError(f"{self.name} is the name of another operation than {self.op}")
        if meant is None and is_taken(self.name):
            raise ValueError(f"{self.name}: the name is taken by torch modules, use another")
        return self

    @cached_property
    def op(self) -> str | None:
        """The operation's name in workloads; None where there is no such operation."""
        if self.operation:
            return imported_operation(self.operation).op
        if self.kind in KINDS:
            dilation = self.dilation or USUAL_DILATION[str(self.kind)]
            return Convolution(str(self.kind), self.kernel or 0, dilation).op
        if self.kind == "pool":
            return f"{self.pool}_pool_{self.kernel or 3}x{self.kernel or 3}"
        return self.kind or registered_candidate(self.name)


def registered_candidate(name: str) -> str | None:
    """The name in workloads of the registered operation ``name``, if a space may offer it."""
    found = find_operation(name)
    return found.op if found and found.candidate else None


def imported_operation(path: str) -> Operation:
    """The operation that ``package.module:NAME`` names, registered. Raises HwnasError when it is something else."""
    found = import_object(path, "operation")
    if not isinstance(found, Operation):
        raise HwnasError(f"operation {path} is of type {type(found).__name__}", "name a hwnas.spaces.Operation")
    if not found.candidate:
        raise HwnasError(f"operation {path} is not for the edges of a cell", "set candidate=True")
    return register(found)


def described(cell: Cell) -> dict[str, Any]:
    """Return what the hash of a space's definition holds of a cell: the fields that few spaces have only where set."""
    few = ("offers", "skipped_last", "reads", "recurrent", "least_inputs")
    unset = {name for name in few if not getattr(cell, name)}
    return {name: value for name, value in asdict(cell).items() if name not in unset}


def is_taken(name: str) -> bool:
    """Return whether torch modules have an attribute of this name, so that it cannot name a submodule."""
    from torch import nn

    return hasattr(nn.ModuleDict(), name) or hasattr(nn.ParameterDict(), name)


class CellDefinition(Definition):
    """A kind of cell. By default every node reads all nodes before it, and the last one is the output.

    At least ``least_inputs`` of the edges into every node have an operation other than ``none``.
    """

    inputs: Annotated[int, Field(ge=1, le=2)] = 1
    nodes: Annotated[int, Field(ge=1, le=8)]
    edges: list[Annotated[list[int], Field(min_length=2, max_length=2)]] | None = Field(None, max_length=MAX_EDGES)
    outputs: list[int] | None = Field(None, min_length=1, max_length=8)
    least_inputs: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _sound(self) -> CellDefinition:
        cell = self.cell
        nodes = range(cell.num_inputs + cell.num_nodes)
        for source, target in cell.edges:
            if source not in nodes or target not in cell.inner_nodes:
                inner = f"{cell.inner_nodes[0]} to {cell.inner_nodes[-1]}"
                raise ValueError(f"edge [{source}, {target}] is not from a node to one of {inner}")
            if source >= target:
                raise ValueError(f"edge [{source}, {target}] goes backwards: a node reads earlier nodes")
        if len(set(cell.edges)) != len(cell.edges):
            raise ValueError("an edge is there twice")
        if len(set(cell.outputs)) != len(cell.outputs) or any(node not in cell.inner_nodes for node in cell.outputs):
            raise ValueError(f"outputs {list(cell.outputs)} are not distinct nodes after the inputs")
        for node in cell.inner_nodes:
            if not cell.edges_into(node):
                raise ValueError(f"node {node} has no edge into it")
            if (number := len(cell.edges_into(node))) < self.least_inputs:
                raise ValueError(f"least_inputs is {self.least_inputs}, but node {node} has {number} edges into it")
        for node in nodes:
            if node not in cell.outputs and not cell.edges_from(node):
                raise ValueError(f"node {node} is unused: it has no outgoing edge and is no output")
        return self

    @property
    def cell(self) -> Cell:
        inner = range(self.inputs, self.inputs + self.nodes)
        every = [[source, target] for target in inner for source in range(target)]
        edges = sorted(((s, t) for s, t in (every if self.edges is None else self.edges)), key=lambda e: (e[1], e[0]))
        outputs = tuple(sorted(self.outputs or [inner[-1]]))
        return Cell(self.inputs, self.nodes, tuple(edges), outputs, least_inputs=self.least_inputs)


class StemDefinition(Definition):
    """The stem, with ``channels`` times the setting's channels. ``imagenet`` makes the image 8 times smaller."""

    kind: Literal["conv_3x3", "imagenet"] = "conv_3x3"
    channels: Annotated[int, Field(ge=1, le=16)] = 1


class StageDefinition(Definition):
    """A stage of the network (hwnas.spaces.build.NetworkStage)."""

    cell: str
    channels: Annotated[int, Field(ge=1, le=64)] = 1
    cells: Annotated[int, Field(ge=0, le=50)] | None = None
    reduction: str | None = None


class NetworkDefinition(Definition):
    stem: StemDefinition = StemDefinition()
    stages: list[StageDefinition] = Field(min_length=1, max_length=8)
    head: Literal["pool_linear", "window_pool_linear", "norm_relu_pool_linear"] = "norm_relu_pool_linear"


class SettingDefinition(Definition):
    """A named size (hwnas.spaces.Setting)."""

    channels: Annotated[int, Field(ge=2, le=1024)]
    depth: Annotated[int, Field(ge=1, le=50)] = 1
    image_channels: Annotated[int, Field(ge=1, le=64)] = 3
    height: Size = 32
    width: Size = 32
    classes: Annotated[int, Field(ge=1, le=100_000)] = 10
    pool_norm: bool = False


class SpaceDefinition(Definition):
    """A YAML file."""

    name: Annotated[str, Field(pattern=f"^{SPACE_NAME}$")]
    operations: list[OperationDefinition] = Field(min_length=2, max_length=24)
    cells: dict[Name, CellDefinition] = Field(min_length=1, max_length=4)
    network: NetworkDefinition
    settings: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")], SettingDefinition] = Field(
        min_length=1, max_length=20
    )
    search_setting: str | None = None
    macs_convention: Literal["fvcore", "conv_linear"] = "fvcore"

    @model_validator(mode="after")
    def _sound(self) -> SpaceDefinition:
        names, ops = [operation.name for operation in self.operations], [operation.op for operation in self.operations]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise ValueError(f"operations: {name} is there twice")
            if ops[number] in ops[:number]:
                raise ValueError(f"operations: {name} and {names[ops.index(ops[number])]} are the same operation")
        if NONE not in names:
            raise ValueError("operations: none is missing, which leaves out an edge")
        if sum(len(cell.cell.edges) for cell in self.cells.values()) > MAX_EDGES:
            raise ValueError(f"cells: more than {MAX_EDGES} edges")
        if taken := next((kind for kind in self.cells if kind == RESIDUAL_REDUCTION or is_taken(kind)), None):
            raise ValueError(f"cells.{taken}: the name is taken, use another")
        self._check_stages()
        if self.search_setting not in (None, *self.settings):
            raise ValueError(f"search_setting: {self.search_setting} is not one of {', '.join(self.settings)}")
        return self

    def _check_stages(self) -> None:
        stages = self.network.stages
        reductions = {s.reduction for s in stages if s.reduction}
        if both := {s.cell for s in stages} & reductions:
            raise ValueError(
                f"network.stages: cell {min(both)} is used both as a reduction and otherwise; define two kinds of cell"
            )
        for number, stage in enumerate(stages):
            for field, kind in (("cell", stage.cell), ("reduction", stage.reduction)):
                if kind not in (*self.cells, *((RESIDUAL_REDUCTION, None) if field == "reduction" else ())):
                    raise ValueError(f"network.stages.{number}.{field}: there is no cell {kind}")
        placed = {s.cell for s in stages if s.cells != 0} | reductions
        if unused := [kind for kind in self.cells if kind not in placed]:
            raise ValueError(f"cells.{unused[0]}: no stage of the network uses it")

    def space(self, spec: str, text: str) -> SearchSpace:
        """Return the space. ``spec`` is the file and ``text`` its content. Raises HwnasError for too small images."""
        operations = {operation.name: str(operation.op) for operation in self.operations}
        cells = {kind: described.cell for kind, described in self.cells.items()}
        stages = tuple(NetworkStage(**stage.model_dump()) for stage in self.network.stages)
        layout = Layout(operations, cells, stages, self.network.head, self.network.stem.channels)
        stem = "imagenet" if self.network.stem.kind == "imagenet" else "cifar"
        settings = {name: Setting(**sizes.model_dump(), stem=stem) for name, sizes in self.settings.items()}
        usual = self.search_setting or next(iter(settings))
        notation = Notation(self.name, cells, next(name for name in operations if name != NONE))
        # The hash leaves out what the names of networks in tables state: the sizes.
        shapes = [(kind, described(cell)) for kind, cell in cells.items()]
        meant = [list(operations.items()), shapes, self.network.model_dump(), self.macs_convention]
        space = SearchSpace(
            name=self.name,
            operations=tuple(operations),
            cells=cells,
            settings=settings,
            search_setting=usual,
            published_setting=lambda written: usual,
            macs_convention=self.macs_convention,
            parse_cells=notation.parse,
            format_cells=notation.format,
            build_network=layout.network,
            published={},
            origin=SpaceOrigin(spec, text, sha256_of(meant)),
        )
        for name, sizes in settings.items():
            try:
                _ = SizedSpace(space, sizes).network  # raises where the image is too small
            except HwnasError as error:
                raise HwnasError(f"space {spec}: settings.{name}: {error.problem}", "use a larger one") from None
        return space
