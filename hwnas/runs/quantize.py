"""Quantise the networks of a run to 8-bit integers, and compare them with those in single precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from hwnas.data import ImageData
from hwnas.errors import HwnasError
from hwnas.export.network import file_accuracy
from hwnas.export.quantize import CALIBRATION_IMAGES, quantize_network
from hwnas.export.timing import Measured, require_its_device, spec_of, time_networks
from hwnas.files import write_json
from hwnas.profiling.session import ask
from hwnas.progress import Progress
from hwnas.runs.derived import SavedNetwork
from hwnas.runs.folder import QUANTIZATION
from hwnas.runs.read import load_images, read_networks, read_tables, require_trained
from hwnas.runs.schema import QuantizationRow, QuantizedTiming
from hwnas.runtimes.device_spec import DeviceSpec
from hwnas.runtimes.int8 import FLOAT32, INT8
from hwnas.runtimes.registry import RUNTIMES
from hwnas.runtimes.runtime import Runtime
from hwnas.tables.schema import LatencyTable, today

ACCEPTED_LOSS = 0.01  # of accuracy; a greater loss gives a warning
PRECISIONS = (FLOAT32, INT8)


def quantize_run(
    folder: Path, images: int | None, data_spec: str | None, spec: DeviceSpec | None, progress: Progress
) -> list[QuantizationRow]:
    """Write ``network_int8.onnx`` and ``quantization.json`` for every target; return one row for each.

    For LiteRT the file is ``network_int8.tflite``. Both networks are evaluated, and timed in interleaved rounds on the
    devices of the tables or on that of ``spec``. The ranges of the activations come from ``images`` training images,
    by default 200 or all.

    Raises HwnasError when a network is untrained, a device is not this machine, its runtime has no int8, the tables
    are of several runtimes, or there are fewer training images than ``images``.
    """
    networks = read_networks(folder)
    require_trained(networks)
    if networks[0].sized.space.is_recurrent:
        raise HwnasError("networks in int8 are of images, and this run's read words", "use them in float32")
    tables = read_tables(networks)
    specs = {device: spec or spec_of(table) for device, table in tables.items()}
    for device, device_spec in specs.items():
        if not device_spec.runtime.int8:
            known = " and ".join(runtime.name for runtime in RUNTIMES.values() if runtime.int8)
            raise HwnasError(
                f"int8 networks are made for {known}, not for {device_spec.text}", "time with --device cpu"
            )
        if spec is None:
            require_its_device(tables[device])
        else:
            ask(spec)  # raises if it cannot be used, before networks are quantised
    name, *others = dict.fromkeys(device_spec.runtime.name for device_spec in specs.values())
    if others:
        raise HwnasError(f"the tables are of several runtimes: {', '.join((name, *others))}", "name one with --device")
    runtime = RUNTIMES[name]
    data = load_images(networks, data_spec, progress)
    if images and images > len(data.train):
        raise HwnasError(f"there are only {len(data.train)} training images", "ask for fewer with --calibration-images")
    count = images or min(CALIBRATION_IMAGES, len(data.train))
    for network in networks:
        source = network.onnx_file
        if not source.exists():
            raise HwnasError(f"{source} does not exist", "run the search again")
        quantize_network(source, network.int8_file(runtime), data, count)
    measured = {device: _time(networks, device, tables[device], specs[device], progress) for device in tables}
    rows = []
    for network in networks:
        latency = {
            device: _compare({p: measured[device][_name(network, p)] for p in PRECISIONS}, specs[device])
            for device in network.tables
        }
        rows.append(_row(network, runtime, data, latency, count))
        write_json(network.folder / QUANTIZATION, {**rows[-1].to_json(), "date": today()})
    return rows


def _name(network: SavedNetwork, precision: str) -> str:
    return f"{network.folder.name} {precision}"


def _files(network: SavedNetwork, runtime: Runtime) -> dict[str, Path]:
    return {FLOAT32: network.onnx_file, INT8: network.int8_file(runtime)}


def _time(
    networks: list[SavedNetwork], device: str, table: LatencyTable, spec: DeviceSpec, progress: Progress
) -> dict[str, Measured]:
    files = {
        _name(network, precision): file
        for network in networks
        if device in network.tables
        for precision, file in _files(network, spec.runtime).items()
    }
    return time_networks(files, spec, table, networks[0].sized, progress)


def _compare(measured: Mapping[str, Measured], spec: DeviceSpec) -> QuantizedTiming:
    before, after = measured[FLOAT32], measured[INT8]
    return QuantizedTiming(
        float32_ms=before.latency_ms,
        float32_error_ms=before.error_ms,
        int8_ms=after.latency_ms,
        int8_error_ms=after.error_ms,
        times_as_long=after.latency_ms / before.latency_ms,
        machine_slowdown=after.machine_slowdown,
        timed_on=replace(spec, precision=FLOAT32).text,
    )


def _row(
    network: SavedNetwork, runtime: Runtime, data: ImageData, latency: Mapping[str, QuantizedTiming], images: int
) -> QuantizationRow:
    files, int8 = _files(network, runtime), runtime.int8
    assert int8
    accuracy = {
        name: {p: file_accuracy(file, data, split) for p, file in files.items()}
        for name, split in (("validation", data.validation), ("test", data.test))
    }
    return QuantizationRow(
        target=network.id,
        device=network.device,
        budget=network.budget.text,
        onnx=str(files[INT8]),
        accuracy=accuracy,
        latency=dict(latency),
        bytes={p: file.stat().st_size for p, file in files.items()},
        settings={
            **int8.settings,
            "calibration_images": images,
            "data": data.name,
            int8.package: version(int8.package),
        },
        warnings=warnings_of(accuracy, latency),
    )


def warnings_of(accuracy: Mapping[str, Mapping[str, float]], latency: Mapping[str, QuantizedTiming]) -> list[str]:
    """Return the reasons not to use the quantised network: more than a point of accuracy lost, or no time saved."""
    found = []
    for split, shares in accuracy.items():
        loss = shares[FLOAT32] - shares[INT8]
        if loss > ACCEPTED_LOSS:
            found.append(f"int8 costs {100 * loss:.1f} points of accuracy on the {split} images")
    for device, timing in latency.items():
        if timing.int8_ms >= timing.float32_ms:
            found.append(f"int8 is not faster on {device}: it takes {timing.times_as_long:.2f} times as long")
    return found
