"""Turn what a user gives into spaces, sizes and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import HwnasError
from hwnas.spaces.space import IMAGE_SIZES
from hwnas.text import plural

if TYPE_CHECKING:
    from hwnas.spaces import SearchSpace, SizedSpace
    from hwnas.tables.schema import LatencyTable

    Table = LatencyTable | Path | str
    Tables = Table | Sequence[Table] | Mapping[str, Table]
    Space = SearchSpace | str
    InputShape = tuple[int, int, int]

MOST_IMAGE_CHANNELS = 4  # grey, colour, colour with transparency


def get_space(name: str) -> SearchSpace:
    """Return a search space: a built-in one by name, a YAML file, ``package.module:NAME``, or
    ``python:package.module:NAME`` for a backbone of the user's own.

    Raises HwnasError when there is none of that name or its definition is invalid.
    """
    from hwnas.spaces import get_space as find

    return find(name)


def read_table(path: Path | str) -> LatencyTable:
    """Read and check a latency table: a file, or ``shipped:NAME`` for one that comes with hwnas.

    Its ``warnings`` state why its latencies are unreliable, if they are.

    Raises HwnasError, naming the file and the field, when the table is missing, invalid, incomplete or was changed
    after it was written.
    """
    from hwnas.tables.io import read_table as read

    return read(Path(path))


def read_tables(tables: Tables) -> dict[str, LatencyTable]:
    """Return tables by the name of their device: a file's name without its suffix, or the key of a mapping.

    A single table that is not a file gets the name ``table``. Raises HwnasError when two files have the same name.
    """
    from hwnas.tables.io import table_name
    from hwnas.tables.schema import LatencyTable

    if isinstance(tables, Mapping):
        return {name: t if isinstance(t, LatencyTable) else read_table(t) for name, t in tables.items()}
    listed = [tables] if isinstance(tables, LatencyTable | Path | str) else list(tables)
    found: dict[str, LatencyTable] = {}
    for table in listed:
        name = "table" if isinstance(table, LatencyTable) else table_name(Path(table))
        if name in found:
            raise HwnasError(f"two tables have the name {name!r}", "give a mapping from names to tables")
        found[name] = table if isinstance(table, LatencyTable) else read_table(table)
    return found


def sized_space(
    space: Space = "nasbench201",
    setting: str | None = None,
    channels: int | None = None,
    layers: int | None = None,
    input_shape: InputShape | None = None,
    classes: int | None = None,
) -> SizedSpace:
    """Return a space with the sizes of its network: a named setting, by default that of searches, with changes.

    Raises HwnasError when there is no such space or setting.
    """
    from hwnas.spaces import SizedSpace

    found = get_space(space) if isinstance(space, str) else space
    return SizedSpace.named(found, setting, **size_changes(channels, layers, input_shape, classes))


def size_changes(
    channels: int | None, layers: int | None, input_shape: InputShape | None, classes: int | None
) -> dict[str, int | None]:
    """Return the changed fields of a setting. Raises HwnasError for an input shape with the channels last."""
    if input_shape:
        require_channels_first(input_shape)
    changes = {"channels": channels, "depth": layers, "classes": classes}
    image = zip(IMAGE_SIZES[:3], input_shape, strict=True) if input_shape else ()
    return {**changes, **dict(image)}


def image_sizes(changes: Mapping[str, int | None]) -> frozenset[str]:
    """Return the names of the changed fields that are about images: their shape and the number of classes."""
    return frozenset(name for name in IMAGE_SIZES if changes.get(name) is not None)


def require_channels_first(shape: InputShape) -> None:
    """Raise HwnasError for a shape that is more likely (height, width, channels), such as (32, 32, 3)."""
    channels, height, width = shape
    if width <= MOST_IMAGE_CHANNELS < channels:
        raise HwnasError(
            f"input shape {channels}x{height}x{width} means {channels} channels of {height}x{width} pixels",
            f"the channels come first: for {plural(width, 'channel')} of {channels}x{height} pixels "
            f"write {width}x{channels}x{height}",
        )


def as_list(texts: str | Sequence[str]) -> list[str]:
    """Return one text or several as a list."""
    return [texts] if isinstance(texts, str) else list(texts)
