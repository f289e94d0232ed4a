"""Time the exported networks of a run again and compare them with their budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hwnas.cost.carried_head import head_notes
from hwnas.cost.metric import Metric
from hwnas.errors import HwnasError
from hwnas.export.opset import file_opset
from hwnas.export.timing import Measured, require_its_device, spec_of, time_networks
from hwnas.files import write_json
from hwnas.networks.child import ChildNetwork
from hwnas.profiling.session import ask
from hwnas.progress import Progress
from hwnas.runs.derived import SavedNetwork
from hwnas.runs.folder import VERIFICATION
from hwnas.runs.read import read_networks, read_tables
from hwnas.runs.schema import DeviceTiming, Measurement, TimedNetwork, Verification
from hwnas.runs.write import predicted_latency, update_summary
from hwnas.runtimes.device_spec import DeviceSpec
from hwnas.runtimes.int8 import INT8
from hwnas.tables.schema import today
from hwnas.text import quoted


def verify_run(folder: Path, spec: DeviceSpec | None, progress: Progress) -> list[DeviceTiming]:
    """Time every network of a run again, compare with prediction and budget, and write ``verification.json``.

    Returns one row for each target and device. Without ``spec`` each table's own device is used; with it, the run must
    be for one device. Raises HwnasError for a network that claims no budget, and on another machine than the table's.
    """
    networks = read_networks(folder)
    if other := next((network for network in networks if not network.claims_budget), None):
        raise HwnasError(
            f"the network in {other.folder} has other sizes than the target network: it claims no budget",
            f"time it with `hwnas evaluate {quoted(other.folder)} --latency`",
        )
    tables = read_tables(networks)
    if spec and len(tables) > 1:
        joint = any(len(network.tables) > 1 for network in networks)
        raise HwnasError(
            f"the run is for several devices ({', '.join(tables)})",
            "leave out --device" + ("" if joint else ", or verify the folder of one network"),
        )
    if spec:
        ask(spec)  # raises if it cannot be used, before networks are converted for it
    else:
        for table in tables.values():
            require_its_device(table)
    return [row for result in verify_networks(networks, spec, progress) for row in result.timings]


def verify_networks(
    networks: Sequence[SavedNetwork], spec: DeviceSpec | None, progress: Progress
) -> list[TimedNetwork]:
    """Time networks of one run that claim a budget on all their devices, or on that of ``spec``; write the results.

    Returns one result for each network.
    """
    for note in head_notes(read_tables(networks), networks[0].sized):
        progress.log(note)
    rows: list[DeviceTiming] = []
    for device, table in read_tables(networks).items():
        on_device = [network for network in networks if device in network.tables]
        rows += _verify(on_device, device, spec or spec_of(table), progress)
    results = [_combine(network, rows) for network in networks]
    for network, result in zip(networks, results, strict=True):
        verification = Verification.model_validate(result.to_json() | {"date": today()})
        write_json(network.folder / VERIFICATION, verification.to_json())
    own = [result for network, result in zip(networks, results, strict=True) if not network.pruning]
    update_summary(networks[0].run, own, progress.log)
    return results


def _verify(networks: Sequence[SavedNetwork], device: str, spec: DeviceSpec, progress: Progress) -> list[DeviceTiming]:
    """Time the networks that have a limit or a prediction on one device."""
    measured = time_saved(networks, device, spec, progress)
    return [_compare(network, device, measured[network.folder], spec) for network in networks]


def _compare(network: SavedNetwork, device: str, measured: Measured, spec: DeviceSpec) -> DeviceTiming:
    costs, latency = network.content.costs, network.latency_metric(device)
    kept = all(
        measured.within(bound) if metric == latency else costs[metric] <= bound
        for metric, bound in network.budget.limits.items()
        if Metric.parse(metric).device in (None, device)
    )
    return DeviceTiming.model_validate(
        {
            "target": network.id,
            "device": device,
            "budget": network.budget.text,
            **_untrained(network),
            **predicted_latency(network, device, costs),
            **measurement(device, measured).to_json(),
            "kept": kept,
            "timed_on": spec.text,
        }
    )


def _combine(network: SavedNetwork, rows: Sequence[DeviceTiming]) -> TimedNetwork:
    """Return a network's latencies on all of its devices."""
    own = [row for row in rows if row.target == network.id and row.device in network.tables]
    if not network.joint:
        return TimedNetwork.model_validate(own[0].to_json())
    result = TimedNetwork(
        target=network.id,
        device=network.device,
        budget=network.budget.text,
        kept=all(row.kept for row in own),
        devices=own,
    )
    return result.model_copy(update=_untrained(network))


def _untrained(network: SavedNetwork) -> dict[str, bool]:
    return {} if network.trained else {"trained": False}


def time_saved(
    networks: Sequence[SavedNetwork], device: str, spec: DeviceSpec, progress: Progress
) -> dict[Path, Measured]:
    """Return the networks' latencies on one device by folder, in the state of the machine that its table describes.

    Raises HwnasError when a network of the spec's precision and opset is missing.
    """
    files: dict[str, Path | ChildNetwork] = {
        str(network.folder): network.file_for(spec) if spec.runtime.takes_onnx else network.child()
        for network in networks
    }
    for file in files.values():
        if isinstance(file, Path) and not file.exists():
            named = [] if spec.runtime.name == "onnxruntime" else [f"--device cpu+{spec.runtime.name}"]
            command = " ".join([f"hwnas export {quoted(file.parent)} --quantize int8", *named])
            fix = f"make it with `{command}`" if spec.precision == INT8 else "run the search again"
            raise HwnasError(f"{file} does not exist", fix)
    _check_opsets(files, spec)
    measured = time_networks(files, spec, networks[0].tables[device], networks[0].sized, progress)
    return {network.folder: measured[str(network.folder)] for network in networks}


def _check_opsets(files: Mapping[str, Path | ChildNetwork], spec: DeviceSpec) -> None:
    """Raise HwnasError where a file that the spec's runtime reads as it is has another opset than the spec's."""
    for file in files.values():
        if isinstance(file, Path) and spec.runtime.suffix == ".onnx" and (found := file_opset(file)) != spec.opset:
            raise HwnasError(
                f"{file} is of ONNX opset {found}, {spec.text} asks for {spec.opset}",
                f"time it with opset={found}, or search with a table of opset {spec.opset}",
            )


def measurement(device: str, measured: Measured) -> Measurement:
    """Return a measured latency as the files of a run have it."""
    return Measurement(
        device=device,
        measured_ms=measured.latency_ms,
        measured_error_ms=measured.error_ms,
        measured_raw_ms=measured.raw_ms,
        machine_slowdown=measured.machine_slowdown,
    )
