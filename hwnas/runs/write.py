"""Write a trained network into its folder, and update the summary of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from hwnas import __version__
from hwnas.cost.metric import BYTES, MACS, PARAMS, Metric
from hwnas.data import ImageData
from hwnas.export.float16 import ships_in_float16
from hwnas.export.network import (
    FLOAT16_TOLERANCE,
    check_parity,
    data_metadata,
    export_cells,
    export_network,
    file_accuracy,
    file_quality,
    save_weights,
)
from hwnas.export.opset import opset_for
from hwnas.export.plain import write_plain
from hwnas.export.quantize import quantize_network
from hwnas.files import sha256_of_file, write_json
from hwnas.networks.child import ChildNetwork
from hwnas.runs.derived import DerivedNetwork, SavedNetwork
from hwnas.runs.folder import ARCHITECTURE, QUANTIZATION, SUMMARY, WEIGHTS
from hwnas.runs.plots import draw_run
from hwnas.runs.records import read_summary
from hwnas.runs.schema import (
    ArchitectureFile,
    Int8Result,
    Limits,
    NetworkRow,
    Parity,
    SummaryRow,
    TimedNetwork,
)
from hwnas.runs.two_networks import images_for
from hwnas.runtimes.float16 import convert_to_float16
from hwnas.runtimes.int8 import INT8
from hwnas.runtimes.registry import RUNTIMES, int8_runtime
from hwnas.runtimes.runtime import Runtime
from hwnas.text import quoted

Costs = Mapping[str, float]
OF_SUMMARY = ("derivations", "comparison")  # fields that architecture.json does not repeat


def write_network(
    child: ChildNetwork,
    derived: DerivedNetwork,
    costs: Costs,
    data: ImageData | None,
    training: Mapping[str, Any],
    weights: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> NetworkRow:
    """Write a network's ONNX files, weights and ``architecture.json``; return its row, a SummaryRow if it claims a
    budget.

    ``costs`` are the network's by metric. ``data`` are its images; None where none are known, as may be for an
    untrained network, which random images then compare with torch. An untrained network has no accuracy.

    ``training`` are the fields of the row and the file about the derivation and training of the network. ``weights``
    are state dicts by file name; without them those of ``child`` are written. A table for float16 or int8 asks for a
    network in that precision, too. Other files of an earlier ``network.onnx`` (in int8, other formats) are removed.
    """
    images = images_for(derived.sized, data)
    onnx_file = derived.onnx_file
    before = sha256_of_file(onnx_file) if onnx_file.exists() else None
    _write_onnx(child, derived, costs, data)
    if any(ships_in_float16(table) for table in derived.tables.values()):
        convert_to_float16(onnx_file, derived.float16_file)
        check_parity(child, derived.float16_file, images, FLOAT16_TOLERANCE)
    parity = Parity(**asdict(check_parity(child, onnx_file, images)), **({} if data else {"random_images": True}))
    results: dict[str, Any] = {"parity": parity, **training}
    if derived.pruning:
        results["pruning"] = derived.pruning
    test = file_quality(onnx_file, images, images.test) if derived.trained else None
    test_accuracy = test.accuracy if test else None
    if test and test.perplexity is not None:
        results["perplexity"] = test.perplexity
    if before and sha256_of_file(onnx_file) != before:
        for stale in (*derived.int8_files(), *derived.converted_files(), derived.folder / QUANTIZATION):
            stale.unlink(missing_ok=True)
    runtimes = {int8_runtime(t.runtime.name).name for t in derived.tables.values() if t.runtime.precision == INT8}
    for name in sorted(runtimes):  # the row has that of ONNX Runtime if there are several
        results["int8"] = _write_int8(derived, RUNTIMES[name], images)
    exported = training["training"].exported if training.get("training") else "last"
    if not derived.pruning:  # its modules are built with other numbers of channels
        write_plain(child, derived.folder, WEIGHTS[exported])
    # The weights come last: until they are written, an interrupted training resumes from the old ones.
    for name, state in (weights or {WEIGHTS["last"]: child.state_dict()}).items():
        save_weights(state, derived.folder / name)
    if not derived.trained:
        results["trained"] = False
    described = _describe(derived, costs, data, test_accuracy, results)
    write_json(derived.folder / ARCHITECTURE, described.to_json())
    return _row(derived, costs, test_accuracy, results)


def _write_onnx(child: ChildNetwork, derived: DerivedNetwork, costs: Costs, data: ImageData | None) -> None:
    """Write the network and its cells, and the files of the runtimes that have a format of their own."""
    file, folder = derived.onnx_file, derived.folder
    opset = opset_for(derived.tables)
    export_network(child, file, _metadata(derived, costs) | (data_metadata(data) if data else {}), opset)
    for device, table in derived.tables.items():
        runtime = RUNTIMES.get(table.runtime.name)
        if runtime and runtime.convert and runtime.suffix == file.suffix:
            # With several devices, the others need the network as it is.
            runtime.convert(file, file if len(derived.tables) == 1 else folder / f"network_{device}.onnx")
    export_cells(child, folder / "cells", opset)


def _metadata(derived: DerivedNetwork, costs: Costs) -> dict[str, str]:
    space = derived.sized.space
    text = space.format(derived.architecture, all_edges=True)
    metadata = {"space": space.name, "architecture": text, "version": __version__}
    if not derived.trained:
        metadata["weights"] = "untrained"
    if not derived.claims_budget:
        return metadata
    metadata["budget"] = derived.budget.text
    if derived.pruning:
        metadata["pruned"] = "yes"
    for device, table in derived.tables.items():
        suffix = f"@{device}" if derived.joint else ""
        latency = derived.latency_metric(device)
        if latency in costs:
            metadata[f"predicted_{latency}"] = repr(costs[latency])
        metadata[f"table_sha256{suffix}"] = table.sha256
        metadata[f"device{suffix}"] = table.describe()
    return metadata


def _write_int8(derived: DerivedNetwork, runtime: Runtime, data: ImageData) -> Int8Result:
    file = derived.int8_file(runtime)
    quantize_network(derived.onnx_file, file, data)
    if not derived.trained:
        return Int8Result(onnx=file.name, validation_accuracy=None, test_accuracy=None)
    validation, test = (file_accuracy(file, data, split) for split in (data.validation, data.test))
    return Int8Result(onnx=file.name, validation_accuracy=validation, test_accuracy=test)


def _describe(
    derived: DerivedNetwork,
    costs: Costs,
    data: ImageData | None,
    test_accuracy: float | None,
    results: Mapping[str, Any],
) -> ArchitectureFile:
    space, budget = derived.sized.space, derived.budget
    hashes = {device: table.sha256 for device, table in derived.tables.items()}
    tables: dict[str, Any] = {"tables": dict(derived.table_files), "tables_sha256": hashes}
    if not derived.joint:
        tables = {"table": derived.table_files[derived.device], "table_sha256": hashes[derived.device]}
    return ArchitectureFile(
        target=derived.id,
        space=space.name,
        setting=asdict(derived.sized.setting),
        architecture=space.format(derived.architecture, all_edges=True),
        budget=Limits(text=budget.text, limits=dict(budget.limits)),
        claims_budget=derived.claims_budget,
        costs=dict(costs),
        macs_convention=space.macs_convention,
        device=derived.device,
        **tables,
        data=data.name if data else None,
        test_accuracy=test_accuracy,
        **{name: value for name, value in results.items() if name not in OF_SUMMARY},
    )


def _row(derived: DerivedNetwork, costs: Costs, test_accuracy: float | None, results: Mapping[str, Any]) -> NetworkRow:
    row: dict[str, Any] = {
        "target": derived.id,
        "device": derived.device,
        "budget": derived.budget.text,
        "architecture": derived.sized.space.format(derived.architecture, all_edges=True),
        MACS.name: round(costs[MACS.name]),
        PARAMS.name: round(costs[PARAMS.name]),
        **{metric: round(cost) for metric, cost in costs.items() if Metric.parse(metric).unit == BYTES},
        "accuracy": test_accuracy,
        "onnx": str(derived.onnx_file),
        **results,
    }
    if not derived.claims_budget:
        return NetworkRow(**row)
    latencies = [
        {"device": device, "measured_ms": None, **predicted_latency(derived, device, costs)}
        for device in derived.tables
    ]
    timing: dict[str, Any] = {"devices": latencies} if derived.joint else latencies[0]
    return SummaryRow.model_validate({**timing, **row, "limits": dict(derived.budget.limits)})


def saved_row(saved: SavedNetwork) -> NetworkRow:
    """Return the row of a network that was written before."""
    content = saved.content
    names = content.model_fields_set & NetworkRow.model_fields.keys() - {"target", "device", "budget", "architecture"}
    return _row(saved, content.costs, content.test_accuracy, {name: getattr(content, name) for name in names})


def predicted_latency(derived: DerivedNetwork, device: str, costs: Costs) -> dict[str, float | None]:
    """Return the limit on the latency on one device and the predicted latency, each None where there is none."""
    metric = derived.latency_metric(device)
    return {"budget_ms": derived.budget.limits.get(metric), "predicted_ms": costs.get(metric)}


def update_summary(run: Path, rows: Iterable[NetworkRow | TimedNetwork], log: Callable[[str], None]) -> None:
    """Replace fields of some targets in the run's ``summary.json`` and draw its pictures again.

    Does nothing where the run has no summary. ``log`` gets a line where the pictures cannot be drawn.
    """
    file = run / SUMMARY
    if not file.exists():
        return
    summary = read_summary(run, f"search again with --out {quoted(run)}")
    changes = {(row.device, row.budget): row.to_json() for row in rows}
    targets = [
        SummaryRow.model_validate(target.to_json() | changes.get((target.device, target.budget), {}))
        for target in summary.targets
    ]
    write_json(file, summary.model_copy(update={"targets": targets}).to_json())
    draw_run(run, log)
