"""Convert the networks of a run, or one ONNX file, to the format of another runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hwnas.errors import HwnasError
from hwnas.export.formats import Source, get_format, write_format
from hwnas.export.network import Parity
from hwnas.export.timing import Measured, time_networks
from hwnas.networks.child import ChildNetwork
from hwnas.profiling.session import ask
from hwnas.progress import Progress
from hwnas.runs.read import read_networks
from hwnas.runtimes.device_spec import DeviceSpec, parse_device
from hwnas.runtimes.int8 import FLOAT32


@dataclass(frozen=True)
class ConvertedNetwork:
    """A network in another format.

    ``target`` is the network's target in its run, None for a file. ``parity`` compares it on random images with
    ``compared_with``: torch, or ONNX Runtime for a file. ``measured`` is its latency on the device ``timed_on``, as
    timed now, None where it was not timed.
    """

    target: str | None
    format: str
    file: Path
    bytes: int
    compared_with: str
    parity: Parity
    measured: Measured | None = None
    timed_on: str | None = None


def convert_networks(
    source: Path, name: str, out: Path | None, verify: bool, spec: DeviceSpec | None, progress: Progress
) -> list[ConvertedNetwork]:
    """Write every network of a run, or an ONNX file, in a format, and return how each compares with the original.

    The file is written next to the network, or for an ONNX file to ``out``. ``verify`` times it on this machine or on
    ``spec``. Raises HwnasError when scores differ by more than rounding, the format cannot express the network, a
    package is missing, and for a device of another runtime than the format's.
    """
    chosen = get_format(name)
    spec = spec or parse_device(f"cpu+{chosen.runtime}")
    if spec.runtime.name != chosen.runtime:
        raise HwnasError(
            f"{name} is not timed with {spec.runtime.name}", f"use --device {spec.hardware}+{chosen.runtime}"
        )
    if spec.file_precision != FLOAT32:
        raise HwnasError(f"{name} files are in single precision, {spec.text} is not", "leave out precision=")
    if spec.batch != 1 and name == "executorch":
        raise HwnasError(f"{name} files take one image, {spec.text} takes {spec.batch}", "leave out batch=")
    if verify:
        ask(spec)  # raises if it cannot be used, before networks are converted
    if source.is_file():
        file = out or source.with_name(source.name.removesuffix(".onnx") + chosen.suffix)
        sources: dict[str | None, tuple[Source, Path]] = {None: (Source(source), file)}
        if file.resolve() == source.resolve():
            raise HwnasError(f"{source} is an ONNX file already", "name another format, or another file with --out")
    else:
        if out:
            raise HwnasError(f"--out cannot be given: the networks of {source} are written there", "leave it out")
        sources = _of_run(source, chosen.suffix)
    found = [_convert(target, each, name, file) for target, (each, file) in sources.items()]
    return _timed(found, spec, progress) if verify else found


def _of_run(run: Path, suffix: str) -> dict[str | None, tuple[Source, Path]]:
    """Return the source and the file to write for every target of a run."""
    found: dict[str | None, tuple[Source, Path]] = {}
    for network in read_networks(run):
        if suffix == ".onnx":
            raise HwnasError(f"the networks of {run} are ONNX files already", "name another format")
        file = network.onnx_file.with_name(network.onnx_file.name.removesuffix(".onnx") + suffix)
        found[network.id] = (Source(network.onnx_file, network.child()), file)
    return found


def _convert(target: str | None, source: Source, name: str, file: Path) -> ConvertedNetwork:
    parity = write_format(source, name, file)
    stem = file.name.removesuffix(get_format(name).suffix)
    size = sum(file.with_name(stem + suffix).stat().st_size for suffix in get_format(name).suffixes)
    return ConvertedNetwork(target, name, file, size, "torch" if source.module else "ONNX Runtime", parity)


def _timed(found: Sequence[ConvertedNetwork], spec: DeviceSpec, progress: Progress) -> list[ConvertedNetwork]:
    files: Mapping[str, Path | ChildNetwork] = {str(number): each.file for number, each in enumerate(found)}
    measured = time_networks(files, spec, None, None, progress)
    return [replace(each, measured=measured[str(number)], timed_on=spec.text) for number, each in enumerate(found)]
