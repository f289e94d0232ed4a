"""The Python API: one function for each step of the workflow, as ``hwnas.profile``, ``hwnas.search`` and so on.

The command line calls these functions. They print nothing unless ``progress`` is given, and raise HwnasError for
anything that the user can fix. Everything slow, torch above all, is imported inside the function that needs it.

Arguments that several functions share:

``table``, ``tables``
    A LatencyTable or the path of one. Several devices are given as a list of paths, whose names without ``.json`` name
    the devices, or as a mapping from names to tables.
``space``
    The name of a space (``nasbench201``, ``darts``), a YAML file, ``package.module:NAME``, or a SearchSpace.
``setting``, ``channels``, ``layers``, ``input_shape``, ``classes``
    The sizes of the network: a named setting of the space, and changes to it. ``input_shape`` is (channels, height,
    width). None leaves a size as it is.
``run``
    The folder of a search, or the folder of one of its targets.
``progress``
    A ``hwnas.progress.Progress`` that shows bars and lines; by default nothing is shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import HwnasError
from hwnas.progress import Progress

if TYPE_CHECKING:
    from hwnas.profiling.plan import ProfilePlan
    from hwnas.spaces import SearchSpace, SizedSpace
    from hwnas.tables.schema import LatencyTable

    Table = LatencyTable | Path | str
    Tables = Table | Sequence[Table] | Mapping[str, Table]
    Space = SearchSpace | str
    InputShape = tuple[int, int, int]


def get_space(name: str) -> SearchSpace:
    """Return a search space: ``nasbench201``, ``darts``, a YAML file, or ``package.module:NAME``.

    Raises HwnasError when there is none of that name or its definition is invalid.
    """
    from hwnas.spaces import get_space as find

    return find(name)


def read_table(path: Path | str) -> LatencyTable:
    """Read and check a latency table. Its ``noise_warning`` is not empty when the measurements are unreliable.

    Raises HwnasError, naming the file and the field, when the table is missing, invalid, incomplete or was changed
    after it was written.
    """
    from hwnas.tables.io import read_table as read

    return read(Path(path))


def profile(
    out: Path | str,
    device: str = "cpu",
    space: Space = "nasbench201",
    *,
    setting: str | None = None,
    channels: int | None = None,
    layers: int | None = None,
    input_shape: InputShape | None = None,
    classes: int | None = None,
    rounds: int = 30,
    fit_networks: int = 30,
    report_networks: int = 40,
    minutes: float | None = None,
    remeasure: bool = False,
    accept_noise: bool = False,
    licence: str = "",
    progress: Progress | None = None,
) -> LatencyTable:
    """Measure every workload of a space on a device, write the latency table ``out``, and return it.

    ``device`` is a device spec such as ``cpu``, ``cpu+openvino``, ``cuda:0+torch`` or ``ssh://me@board+onnxruntime``.
    Everything is timed in ``rounds`` interleaved rounds. ``fit_networks`` random networks fit the table's correction,
    ``report_networks`` others measure its accuracy. ``minutes`` limits the timing. What ``out`` already holds is kept;
    ``remeasure`` times its unstable entries again. An interrupted call resumes when it is repeated.

    Raises HwnasError when ``out`` is a table of another device or runtime, when the profiler fails, and when the
    machine is too noisy, unless ``accept_noise`` allows a table that is marked as such.
    """
    from hwnas.profiling.profile import profile as measure

    plan = profile_plan(
        device,
        space,
        setting=setting,
        channels=channels,
        layers=layers,
        input_shape=input_shape,
        classes=classes,
        rounds=rounds,
        fit_networks=fit_networks,
        report_networks=report_networks,
        minutes=minutes,
        remeasure=remeasure,
        accept_noise=accept_noise,
        licence=licence,
    )
    return measure(plan, Path(out), progress or Progress(quiet=True))


def profile_plan(
    device: str = "cpu",
    space: Space = "nasbench201",
    *,
    setting: str | None = None,
    channels: int | None = None,
    layers: int | None = None,
    input_shape: InputShape | None = None,
    classes: int | None = None,
    rounds: int = 30,
    fit_networks: int = 30,
    report_networks: int = 40,
    minutes: float | None = None,
    remeasure: bool = False,
    accept_noise: bool = False,
    licence: str = "",
) -> ProfilePlan:
    """Return the plan of ``profile`` with the same arguments, for ``hwnas.profiling.forecast``."""
    from hwnas.profiling.plan import ProfilePlan
    from hwnas.runtimes.device_spec import parse_device

    sized = sized_space(space, setting, channels, layers, input_shape, classes)
    longest = math.inf if minutes is None else minutes
    return ProfilePlan(
        parse_device(device), sized, rounds, fit_networks, report_networks, longest, remeasure, accept_noise, licence
    )


@dataclass(frozen=True)
class ExportedNetwork:
    """An ONNX file of one architecture; ``weights`` says where the weights are from."""

    file: Path
    sized: SizedSpace
    architecture: str
    weights: str
    opset: int


def export(
    architecture: str,
    out: Path | str,
    space: Space = "nasbench201",
    *,
    setting: str | None = None,
    channels: int | None = None,
    layers: int | None = None,
    input_shape: InputShape | None = None,
    classes: int | None = None,
    seed: int = 0,
) -> ExportedNetwork:
    """Write the network of an architecture with random weights to the ONNX file ``out``, with a dynamic batch size.

    ``architecture`` is in the space's notation or a name such as ``DARTS_V2``, at the space's evaluation setting unless
    ``setting`` names another. The networks of a search are exported by ``search`` and ``train``.

    Raises HwnasError when the architecture or a size is invalid, or ``out`` cannot be written.
    """
    import torch

    from hwnas.export.network import export_network
    from hwnas.networks.child import ChildNetwork
    from hwnas.runtimes.onnx_model import OPSET

    found = get_space(space) if isinstance(space, str) else space
    name = setting or found.evaluation_setting(architecture)
    sized = sized_space(found, name, channels, layers, input_shape, classes)
    parsed = found.parse(architecture)
    torch.manual_seed(seed)
    network = ChildNetwork(sized, parsed, prune=True)
    exported = ExportedNetwork(Path(out), sized, found.format(parsed), f"random, seed {seed}", OPSET)
    details = {"space": found.name, "architecture": exported.architecture, "weights": exported.weights}
    export_network(network, exported.file, details)
    return exported


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
    """Return the changed fields of a setting."""
    changes = {"channels": channels, "depth": layers, "classes": classes}
    image = zip(("image_channels", "height", "width"), input_shape, strict=True) if input_shape else ()
    return {**changes, **dict(image)}


def read_tables(tables: Tables) -> dict[str, LatencyTable]:
    """Return tables by the name of their device: a file's name without its suffix, or the key of a mapping.

    A single table that is not a file gets the name ``table``. Raises HwnasError when two files have the same name.
    """
    from hwnas.tables.schema import LatencyTable

    if isinstance(tables, Mapping):
        return {name: t if isinstance(t, LatencyTable) else read_table(t) for name, t in tables.items()}
    listed = [tables] if isinstance(tables, LatencyTable | Path | str) else list(tables)
    found: dict[str, LatencyTable] = {}
    for table in listed:
        name = "table" if isinstance(table, LatencyTable) else Path(table).stem
        if name in found:
            raise HwnasError(f"two tables have the name {name!r}", "give a mapping from names to tables")
        found[name] = table if isinstance(table, LatencyTable) else read_table(table)
    return found
