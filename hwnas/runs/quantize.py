"""The networks of a finished search in 8-bit integers beside those in single precision, and what that changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hwnas.data import ImageData
from hwnas.errors import HwnasError
from hwnas.export.network import onnx_accuracy
from hwnas.export.quantize import CALIBRATION_IMAGES, quantize_network
from hwnas.export.verify import Measured, require_its_device, spec_of, time_networks
from hwnas.files import write_json
from hwnas.progress import Progress
from hwnas.runs.finished import QUANTIZATION_FILE, Finished, data_of, read_targets
from hwnas.runtimes.device_spec import DeviceSpec
from hwnas.runtimes.int8 import FLOAT32, INT8, SETTINGS
from hwnas.tables.schema import LatencyTable, today

ACCEPTED_LOSS = 0.01  # of accuracy; more is said plainly
PRECISIONS = (FLOAT32, INT8)


def quantize_run(
    folder: Path, images: int | None, data_spec: str | None, spec: DeviceSpec | None, progress: Progress
) -> list[dict[str, Any]]:
    """Write ``network_int8.onnx`` and ``quantization.json`` for every target; one row a target.

    Both networks are evaluated through ONNX Runtime and timed in interleaved rounds, on the devices of the tables or on
    that of ``spec``. ``images`` training images tell the ranges of activations, by default 200 or all there are.

    Raises HwnasError when a device is not this machine or its runtime is not ONNX Runtime, or when there are not so
    many training images.
    """
    targets = read_targets(folder)
    tables = {device: table for target in targets for device, table in target.tables.items()}
    specs = {device: spec or spec_of(table) for device, table in tables.items()}
    for device, there in specs.items():
        if INT8 not in there.made_by.precisions:
            raise HwnasError(f"int8 networks are made for ONNX Runtime, not for {there.text}", "time with --device cpu")
        if spec is None:
            require_its_device(tables[device])
    data = data_of(targets, data_spec, progress)
    if images and images > len(data.train):
        raise HwnasError(f"there are only {len(data.train)} training images", "ask for fewer with --calibration-images")
    count = images or min(CALIBRATION_IMAGES, len(data.train))
    for target in targets:
        source = target.network(FLOAT32)
        if not source.exists():
            raise HwnasError(f"{source} does not exist", "run the search again")
        quantize_network(source, target.network(INT8), data, count)
    timed = {device: _time(targets, device, tables[device], specs[device], progress) for device in tables}
    rows = []
    for target in targets:
        latency = {
            device: _latency({p: timed[device][_name(target, p)] for p in PRECISIONS}, specs[device])
            for device in target.tables
        }
        rows.append(_row(target, data, latency, count))
        write_json(target.place / QUANTIZATION_FILE, {**rows[-1], "date": today()})
    return rows


def _name(target: Finished, precision: str) -> str:
    return f"{target.place.name} {precision}"


def _time(
    targets: list[Finished], device: str, table: LatencyTable, spec: DeviceSpec, progress: Progress
) -> dict[str, Measured]:
    networks = {_name(t, p): t.network(p) for t in targets if device in t.tables for p in PRECISIONS}
    return time_networks(networks, spec, table, targets[0].sized.key, progress)


def _latency(measured: Mapping[str, Measured], spec: DeviceSpec) -> dict[str, Any]:
    before, after = measured[FLOAT32], measured[INT8]
    return {
        "float32_ms": before.latency_ms,
        "float32_error_ms": before.error_ms,
        "int8_ms": after.latency_ms,
        "int8_error_ms": after.error_ms,
        "times_as_long": after.latency_ms / before.latency_ms,
        "machine_slowdown": after.machine_slowdown,
        "timed_on": replace(spec, precision=FLOAT32).text,
    }


def _row(target: Finished, data: ImageData, latency: Mapping[str, Mapping[str, Any]], images: int) -> dict[str, Any]:
    accuracy = {
        name: {p: onnx_accuracy(target.network(p), data, split) for p in PRECISIONS}
        for name, split in (("validation", data.validation), ("test", data.test))
    }
    return {
        "device": target.device,
        "budget": target.budget.text,
        "onnx": str(target.network(INT8)),
        "accuracy": accuracy,
        "latency": latency,
        "bytes": {p: target.network(p).stat().st_size for p in PRECISIONS},
        "settings": {
            **SETTINGS,
            "calibration_images": images,
            "data": data.name,
            "onnxruntime": version("onnxruntime"),
        },
        "warnings": warnings_of(accuracy, latency),
    }


def warnings_of(accuracy: Mapping[str, Mapping[str, float]], latency: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What speaks against the quantised network: more than a point of accuracy lost, or no time saved."""
    found = []
    for split, shares in accuracy.items():
        loss = shares[FLOAT32] - shares[INT8]
        if loss > ACCEPTED_LOSS:
            found.append(f"int8 costs {100 * loss:.1f} points of accuracy on the {split} images")
    for device, times in latency.items():
        if times["int8_ms"] >= times["float32_ms"]:
            found.append(f"int8 is not faster on {device}: it takes {times['times_as_long']:.2f} times as long")
    return found
