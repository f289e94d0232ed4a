"""Search spaces as data: cells, the network that repeats them, and the workloads that can be timed. No torch.

Torch modules and latency tables are both made from these descriptions, so they agree about every edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar

from hwnas.errors import HwnasError
from hwnas.spaces.cell import Cell
from hwnas.spaces.layers import Shape, strided

if TYPE_CHECKING:
    from numpy import generic
    from numpy.typing import NDArray

    Value = TypeVar("Value", bound=generic)

HIDDEN = -2  # among the inputs of a part: the state after the word before, which the last part but one has written


@dataclass(frozen=True, order=True)
class Workload:
    """One thing that can be timed: an operation with its channels, input height and width, and stride."""

    op: str
    in_channels: int
    out_channels: int
    height: int
    width: int
    stride: int = 1

    @property
    def key(self) -> str:
        return f"{self.op}-{self.in_channels}-{self.out_channels}-{self.height}x{self.width}-s{self.stride}"


IMAGE_SIZES = ("image_channels", "height", "width", "classes")  # the fields of a setting that images decide


@dataclass(frozen=True)
class Setting:
    """The sizes of a network. The same cells form a small search network and a large target network.

    ``depth`` is the number of cells in each stage (nasbench201) or in the whole network (darts). ``pool_norm`` puts a
    batch norm after every pooling candidate, as DARTS and SNAS do. The stem ``words`` reads one of ``classes`` words.
    """

    channels: int
    depth: int
    image_channels: int = 3
    height: int = 32
    width: int = 32
    classes: int = 10
    stem: str = "cifar"
    pool_norm: bool = False

    def __post_init__(self) -> None:
        for name in ("channels", "depth", "image_channels", "height", "width", "classes"):
            if getattr(self, name) < 1:
                raise HwnasError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def images(self) -> tuple[int, int, int, int]:
        """The sizes that images decide: channels, height, width, classes."""
        return self.image_channels, self.height, self.width, self.classes

    @property
    def words(self) -> bool:
        return self.stem == "words"

    def describe(self) -> str:
        image = f"{self.image_channels}x{self.height}x{self.width}"
        sizes = f"depth {self.depth}, {image} input, {self.classes} classes"
        return f"{self.channels} channels, " + (f"{self.classes:,} words" if self.words else sizes)


@dataclass(frozen=True)
class FixedModule:
    """A part that is not searched (stem, reduction, head). ``inputs`` are part indices, -1 the image, or HIDDEN."""

    name: str
    workload: Workload
    inputs: tuple[int, ...]


Variants = Mapping[tuple[str, ...], Mapping[str, Workload | None]]


@dataclass(frozen=True)
class CellInstance:
    """One occurrence of a cell kind in a network.

    ``candidates[e][op]`` is the workload of operation ``op`` on edge ``e`` here, or None where it computes nothing
    (``none``, a ``skip_connect`` that is an identity, and an operation that the edge does not offer). ``node_sum`` is
    None where no node has two edges into it.

    ``variants[e]``, of an edge that reads others (hwnas.spaces.cell.Cell), has such candidates for each combination of
    operations on the edges that it reads; ``candidates[e]`` are those of the greatest numbers of channels.
    """

    kind: str
    preprocess: tuple[Workload | None, ...]
    candidates: tuple[Mapping[str, Workload | None], ...]
    node_sum: Workload | None
    concat: Workload | None
    inputs: tuple[int, ...]
    variants: Mapping[int, Variants] = field(default_factory=dict)

    def variants_of(self, e: int) -> Variants:
        """Return the candidates of an edge by the operations that it reads: by () where it reads none."""
        return self.variants.get(e) or {(): self.candidates[e]}

    def workload(self, cell: Cell, e: int, operations: Sequence[str]) -> Workload | None:
        """Return the workload of an edge in a cell that has ``operations``, one an edge."""
        read = tuple(operations[other] for other in cell.coupled.get(e, ())[:-1])
        return self.variants_of(e)[read][operations[e]]

    def workloads(self) -> Iterator[Workload]:
        """Yield the workload of every candidate that computes something, as often as the cell has it."""
        for e in range(len(self.candidates)):
            for candidates in self.variants_of(e).values():
                yield from (workload for workload in candidates.values() if workload)

    @property
    def node_shape(self) -> Shape:
        """Channels, height and width of the last node."""
        last = self.node_sum or next(w for w in self.candidates[-1].values() if w)
        return last.out_channels, *strided(last.height, last.width, last.stride)

    @property
    def output_shape(self) -> Shape:
        """Channels, height and width of the output."""
        channels, height, width = self.node_shape
        return (self.concat.out_channels if self.concat else channels), height, width


@dataclass(frozen=True)
class Network:
    """The parts of a network in the order in which they run; the last one returns the class scores."""

    setting: Setting
    parts: tuple[FixedModule | CellInstance, ...]

    def cell_instances(self, kind: str) -> list[CellInstance]:
        """Return the occurrences of a cell kind in order."""
        return [part for part in self.parts if isinstance(part, CellInstance) and part.kind == kind]

    @property
    def head(self) -> Workload:
        """The workload of the last part: the only one that depends on the number of classes."""
        return list(self.fixed_workloads())[-1]

    def fixed_workloads(self) -> Iterator[Workload]:
        """Yield every workload that runs in all architectures, as often as it runs."""
        for part in self.parts:
            if isinstance(part, FixedModule):
                yield part.workload
            else:
                yield from (workload for workload in (*part.preprocess, part.concat) if workload)

    def workloads(self) -> list[Workload]:
        """Return every workload that some architecture needs, once, sorted."""
        needed = set(self.fixed_workloads())
        for part in self.parts:
            if isinstance(part, CellInstance):
                needed.update([part.node_sum] if part.node_sum else [])
                needed.update(part.workloads())
        return sorted(needed)


@dataclass(frozen=True)
class Architecture:
    """One operation for every edge of every cell kind, in the order of the space's cells and their edges."""

    space: str
    cells: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class SpaceOrigin:
    """The source of a user's space: the value of ``--space``, the text of the YAML file (None for a Python object),
    and the SHA-256 of the definition without its settings.
    """

    spec: str
    text: str | None
    sha256: str


@dataclass(frozen=True)
class SearchSpace:
    """The choices of a space, their notation, and the network around them.

    ``search_setting`` names the sizes of the search network, ``published_setting(text)`` the sizes at which the papers
    count and train an architecture written like ``text``.

    ``macs_convention`` is the way in which the papers count multiply-accumulates: "fvcore" (fvcore's default handles,
    with batch norm) or "conv_linear" (convolutions and the classifier with its bias, nothing else).

    ``origin`` is None for built-in spaces.
    """

    name: str
    operations: tuple[str, ...]
    cells: Mapping[str, Cell]
    settings: Mapping[str, Setting]
    search_setting: str
    published_setting: Callable[[str], str]
    macs_convention: str
    parse_cells: Callable[[str], tuple[tuple[str, ...], ...]]
    format_cells: Callable[[tuple[tuple[str, ...], ...], bool], str]
    build_network: Callable[[Setting], Network]
    published: Mapping[str, str]
    origin: SpaceOrigin | None = None

    @property
    def spec(self) -> str:
        """The value for ``--space``."""
        return self.origin.spec if self.origin else self.name

    @property
    def key(self) -> str:
        """The name in tables; that of a user's space carries the hash of its definition."""
        return f"{self.name}@{self.origin.sha256[:12]}" if self.origin else self.name

    @cached_property
    def num_edges(self) -> int:
        return sum(len(cell.edges) for cell in self.cells.values())

    @property
    def is_chain(self) -> bool:
        """True for a space of layers one after another."""
        return all(cell.is_chain for cell in self.cells.values())

    @property
    def is_recurrent(self) -> bool:
        return all(cell.recurrent for cell in self.cells.values())

    @property
    def num_architectures(self) -> int:
        return prod(cell.num_choices(self.operations) for cell in self.cells.values())

    def setting(self, name: str, **changes: int | None) -> Setting:
        """Return a named setting with some of its sizes changed; None leaves one as it is.

        Raises HwnasError for a setting the space does not have.
        """
        if name not in self.settings:
            raise HwnasError(f"space {self.name} has no setting {name!r}", f"use one of {', '.join(self.settings)}")
        given: dict[str, Any] = {key: value for key, value in changes.items() if value is not None}
        return replace(self.settings[name], **given)

    def by_cell(self, values: NDArray[Value], axis: int = -1) -> dict[str, NDArray[Value]]:
        """Split an array along its axis of the edges of all cells: for every cell kind, the slice of its own edges."""
        result, start = {}, 0
        before = (slice(None),) * (axis % values.ndim)
        for kind, cell in self.cells.items():
            result[kind] = values[(*before, slice(start, start + len(cell.edges)))]
            start += len(cell.edges)
        return result

    def architecture(self, cells: tuple[tuple[str, ...], ...]) -> Architecture:
        """Return an architecture from one operation an edge.

        Raises HwnasError for a wrong number of cells or edges, or an operation the space or an edge does not have.
        """
        if len(cells) != len(self.cells):
            raise HwnasError(f"an architecture of space {self.name} has {len(self.cells)} cells, not {len(cells)}")
        for operations, (kind, cell) in zip(cells, self.cells.items(), strict=True):
            if len(operations) != len(cell.edges):
                raise HwnasError(f"cell {kind} of space {self.name} has {len(cell.edges)} edges, not {len(operations)}")
            for op in operations:
                if op not in self.operations:
                    raise HwnasError(
                        f"unknown operation {op!r} in space {self.name}", f"use one of {', '.join(self.operations)}"
                    )
            if problem := cell.refuse(operations):
                raise HwnasError(f"not an architecture of space {self.name}: {problem}", "change it there")
        return Architecture(self.name, cells)

    def parse(self, text: str) -> Architecture:
        """Parse an architecture in the space's notation, or look it up by its published name.

        Raises HwnasError when the text is neither.
        """
        return self.architecture(self.parse_cells(self._written_out(text)))

    def evaluation_setting(self, text: str) -> str:
        """Return the name of the setting at which the papers count and train an architecture written like ``text``."""
        return self.published_setting(self._written_out(text))

    def _written_out(self, text: str) -> str:
        name = text.strip().strip("'\"`").upper()
        return next((written for known, written in self.published.items() if known.upper() == name), text.strip())

    def format(self, architecture: Architecture, all_edges: bool = False) -> str:
        """Return the architecture in the space's notation: the shorter form, if there is one, unless ``all_edges``."""
        return self.format_cells(architecture.cells, all_edges)
