"""A finished search, written and read back: its networks verified on the device, evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from hwnas import __version__
from hwnas.budgets.budget import Budget
from hwnas.cost.counts import count_metrics
from hwnas.cost.devices import LATENCY, device_of, joint_models, latency_on, names_devices, targets_of
from hwnas.cost.metrics import Metric, build_metrics
from hwnas.data import ImageData, load_data
from hwnas.errors import HwnasError
from hwnas.export.network import (
    NETWORK_FILES,
    check_parity,
    data_metadata,
    export_cells,
    export_network,
    load_weights,
    onnx_accuracy,
    onnx_network,
    save_weights,
)
from hwnas.export.quantize import quantize_network
from hwnas.export.verify import Measured, require_its_device, spec_of, time_networks
from hwnas.files import read_json, sha256_of_file, write_json
from hwnas.networks.child import ChildNetwork
from hwnas.progress import Progress
from hwnas.runs.plots import draw_run
from hwnas.runtimes.device_spec import DeviceSpec
from hwnas.runtimes.int8 import FLOAT32, INT8
from hwnas.runtimes.runtime import RUNTIMES
from hwnas.spaces import Architecture, Setting, SizedSpace
from hwnas.spaces.space_copy import kept_space
from hwnas.tables.io import read_table
from hwnas.tables.schema import LatencyTable, today
from hwnas.training.evaluation import evaluate_scores, scores_of, write_confusion

WEIGHTS = {"last": "weights.safetensors", "best": "best.safetensors"}
EVALUATED = {"onnx": "ONNX Runtime", "int8": "ONNX Runtime, int8", "torch": "torch"}
QUANTIZATION_FILE = "quantization.json"


def fit_to_data(sized: SizedSpace, data: ImageData) -> SizedSpace:
    """Return the space at the data's image shape and number of classes."""
    channels, height, width = data.shape
    return sized.resized(image_channels=channels, height=height, width=width, classes=len(data.labels))


@dataclass(frozen=True)
class Derived:
    """One target's network: what it is, what it may cost, by which tables, and the folder it lives in.

    ``tables`` go by what the run calls them (several where the budget names devices), and so do ``table_files``, where
    it keeps them. ``claims_budget`` is false for a network of other sizes than those searched: the tables cannot
    predict it.
    """

    place: Path
    table_files: Mapping[str, str]
    tables: Mapping[str, LatencyTable]
    sized: SizedSpace
    architecture: Architecture
    budget: Budget
    claims_budget: bool = field(default=True, kw_only=True)

    def network(self, precision: str = FLOAT32) -> Path:
        """The ONNX file."""
        return self.place / NETWORK_FILES[precision]

    @property
    def joint(self) -> bool:
        """Whether the budget names devices, and so do its metrics."""
        return names_devices(self.budget.text)

    @property
    def device(self) -> str:
        return ", ".join(self.tables)

    def latency(self, device: str) -> str:
        """What the latency on one of the devices is called among the metrics."""
        return latency_on(device) if self.joint else LATENCY

    def cost_models(self) -> dict[str, Metric]:
        """One for every metric of the target; those that no device decides where no budget is claimed."""
        if not self.claims_budget:
            return count_metrics(self.sized)
        models = {device: build_metrics(table, self.sized) for device, table in self.tables.items()}
        return joint_models(models) if self.joint else models[self.device]


@dataclass(frozen=True)
class Finished(Derived):
    """A derived network whose folder has been written, read back. ``weights`` are those that its ONNX file has."""

    run: Path
    weights: Path
    content: dict[str, Any]

    def child(self) -> ChildNetwork:
        child = ChildNetwork(self.sized, self.architecture, prune=True)
        load_weights(child, self.weights)
        return child


def write_child(
    child: ChildNetwork,
    derived: Derived,
    costs: Mapping[str, Metric],
    data: ImageData,
    result: dict[str, Any],
    weights: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> dict[str, Any]:
    """Write a child's weights, ONNX files and ``architecture.json``; returns its row of the closing table.

    ``weights`` are those to keep, by file name, where there are more than the child's own.
    A network in int8 is written where a table asks for one; another that is there, of an earlier network, is removed.
    """
    place, space, budget = derived.place, derived.sized.space, derived.budget
    text = space.format(derived.architecture, all_edges=True)
    predicted = {metric: model.predict(derived.architecture) for metric, model in costs.items()}
    onnx_file = derived.network()
    before = sha256_of_file(onnx_file) if onnx_file.exists() else None
    metadata = {"space": space.name, "architecture": text, "version": __version__}
    if derived.claims_budget:
        metadata["budget"] = budget.text
    for device, table in derived.tables.items() if derived.claims_budget else ():
        on = f"@{device}" if derived.joint else ""
        metadata[f"predicted_latency_ms{on}"] = repr(predicted[derived.latency(device)])
        metadata[f"table_sha256{on}"] = table.sha256
        metadata[f"device{on}"] = table.describe()
    export_network(child, onnx_file, metadata | data_metadata(data))
    for device, table in derived.tables.items():
        runtime = RUNTIMES.get(table.runtime.name)
        if runtime and runtime.convert and runtime.suffix == onnx_file.suffix:
            # Of several devices the others' network stays as it is.
            runtime.convert(onnx_file, onnx_file if len(derived.tables) == 1 else place / f"network_{device}.onnx")
    export_cells(child, place / "cells")
    parity = check_parity(child, onnx_file, data)
    test_accuracy = onnx_accuracy(onnx_file, data, data.test)
    if before and sha256_of_file(onnx_file) != before:
        for stale in (derived.network(INT8), place / QUANTIZATION_FILE):
            stale.unlink(missing_ok=True)
    int8 = _write_int8(derived, data) if any(t.runtime.precision == INT8 for t in derived.tables.values()) else {}
    # Last of the networks: until these are there, an interrupted training goes on from the old ones.
    for name, state in (weights or {WEIGHTS["last"]: child.state_dict()}).items():
        save_weights(state, place / name)
    write_json(
        place / "architecture.json",
        {
            "space": space.name,
            "setting": asdict(derived.sized.setting),
            "architecture": text,
            "budget": {"text": budget.text, "limits": dict(budget.limits)},
            "claims_budget": derived.claims_budget,
            "costs": predicted,
            "macs_convention": space.macs_convention,
            "device": derived.device,
            **_tables_as_json(derived),
            "data": data.name,
            "parity": asdict(parity),
            "test_accuracy": test_accuracy,
            **int8,
            **{key: value for key, value in result.items() if key != "derivations"},
        },
    )
    return {
        "device": derived.device,
        "budget": budget.text,
        "architecture": text,
        **(_claims(derived, predicted) if derived.claims_budget else {}),
        "macs": round(predicted["macs"]),
        "params": round(predicted["params"]),
        **{metric: round(cost) for metric, cost in predicted.items() if metric.endswith("_bytes")},
        "accuracy": test_accuracy,
        "parity": asdict(parity),
        "onnx": str(onnx_file),
        **int8,
        **result,
    }


def _claims(derived: Derived, predicted: Mapping[str, float]) -> dict[str, Any]:
    """What a row says of the budget: its limits, and the latency on every device."""
    latencies = {device: _latencies(derived, device, predicted) | {"measured_ms": None} for device in derived.tables}
    by_device = {"devices": [{"device": device, **row} for device, row in latencies.items()]}
    return {"limits": dict(derived.budget.limits), **(by_device if derived.joint else latencies[derived.device])}


def _write_int8(derived: Derived, data: ImageData) -> dict[str, Any]:
    """Quantise the network that has been written; what is said of it."""
    file = derived.network(INT8)
    quantize_network(derived.network(), file, data)
    shares = {split: onnx_accuracy(file, data, getattr(data, split)) for split in ("validation", "test")}
    return {"int8": {"onnx": file.name, **{f"{split}_accuracy": share for split, share in shares.items()}}}


def _tables_as_json(derived: Derived) -> dict[str, Any]:
    """What ``architecture.json`` says of the tables."""
    hashes = {device: table.sha256 for device, table in derived.tables.items()}
    if derived.joint:
        return {"tables": dict(derived.table_files), "tables_sha256": hashes}
    return {"table": derived.table_files[derived.device], "table_sha256": hashes[derived.device]}


def _latencies(derived: Derived, device: str, predicted: Mapping[str, float]) -> dict[str, Any]:
    """A network's limit and predicted latency on one of its devices."""
    metric = derived.latency(device)
    return {"budget_ms": derived.budget.limits.get(metric), "predicted_ms": predicted[metric]}


def read_targets(folder: Path) -> list[Finished]:
    """The targets of a run folder, or the one network whose folder this is.

    Raises HwnasError when the folder holds none.
    """
    search_first = "make one with 'hwnas search --out DIR'"
    if (folder / "architecture.json").exists():
        # A network of other sizes lies in the folder of the one that was searched.
        above = [folder.parent, folder.parent.parent]
        places, run = [folder], next((place for place in above if (place / "manifest.json").exists()), folder.parent)
    else:
        places, run = sorted(p.parent for p in folder.glob("*/architecture.json")), folder
    if not places:
        raise HwnasError(f"{folder} holds no finished search", search_first)
    manifest = read_json(run / "manifest.json", search_first)
    result = []
    for place in places:
        content = read_json(place / "architecture.json", search_first)
        try:
            space = kept_space(manifest, content["space"], run)
            files = content["tables"] if "tables" in content else {content["device"]: content["table"]}
            result.append(
                Finished(
                    place=place,
                    table_files=files,
                    tables={device: read_table(run / file) for device, file in files.items()},
                    sized=SizedSpace(space, Setting(**content["setting"])),
                    architecture=space.parse(content["architecture"]),
                    budget=Budget(content["budget"]["text"], content["budget"]["limits"]),
                    claims_budget=content.get("claims_budget", True),
                    run=run,
                    weights=place / WEIGHTS[content.get("training", {}).get("exported", "last")],
                    content=content,
                )
            )
        except (KeyError, TypeError) as error:
            raise HwnasError(f"{place / 'architecture.json'} is incomplete ({error})", search_first) from None
    order = targets_of(manifest.get("tables", {}), manifest["budgets"])
    known = {goal: number for number, goal in enumerate(order)}
    return sorted(result, key=lambda t: known.get((tuple(t.tables), t.budget.text), len(known)))


def verify_run(folder: Path, spec: DeviceSpec | None, progress: Progress) -> list[dict[str, Any]]:
    """Time every network of a run again and compare with prediction and budget; writes ``verification.json``.

    One row a target and device. ``kept`` is false when a limit there, or one on a count, is broken, a latency by more
    than the measurement's error. Without ``spec`` each table's own device is used; with it, the run must be for one.
    """
    targets = read_targets(folder)
    if other := next((target for target in targets if not target.claims_budget), None):
        raise HwnasError(
            f"the network in {other.place} is not of the size that was searched: it claims no budget",
            f"time it with 'hwnas evaluate {other.place} --latency'",
        )
    tables = _tables_of(targets)
    if spec and len(tables) > 1:
        joint = any(len(target.tables) > 1 for target in targets)
        raise HwnasError(
            f"the run is for several devices ({', '.join(tables)})",
            "leave out --device" + ("" if joint else ", or verify the folder of one network"),
        )
    if spec is None:
        for table in tables.values():
            require_its_device(table)
    rows: list[dict[str, Any]] = []
    for device, table in tables.items():
        on_device = [target for target in targets if device in target.tables]
        rows += _verify(on_device, device, spec or spec_of(table), progress)
    results = [_write_verification(target, rows) for target in targets]
    update_summary(targets[0].run, results)
    return [row for result in results for row in result.get("devices", [result])]


def _tables_of(targets: list[Finished]) -> dict[str, LatencyTable]:
    return {device: table for target in targets for device, table in target.tables.items()}


def _time(targets: list[Finished], device: str, spec: DeviceSpec, progress: Progress) -> dict[Path, Measured]:
    """The latency of the targets' networks, by their folders, in the state of the machine that one table describes."""
    table = targets[0].tables[device]
    networks: dict[str, Path | ChildNetwork] = {
        t.place.name: t.network(spec.precision) if spec.made_by.takes_onnx else t.child() for t in targets
    }
    for network in networks.values():
        if isinstance(network, Path) and not network.exists():
            make_int8 = f"make it with 'hwnas export {network.parent} --quantize int8'"
            raise HwnasError(
                f"{network} does not exist", make_int8 if spec.precision == INT8 else "run the search again"
            )
    measured = time_networks(networks, spec, table, targets[0].sized.key, progress)
    return {target.place: measured[target.place.name] for target in targets}


def _verify(targets: list[Finished], device: str, spec: DeviceSpec, progress: Progress) -> list[dict[str, Any]]:
    """The targets of one table."""
    measured = _time(targets, device, spec, progress)
    rows = []
    for target in targets:
        time, costs = measured[target.place], target.content["costs"]
        latency, limits = target.latency(device), target.budget.limits
        kept = all(
            time.within(bound) if metric == latency else costs[metric] <= bound
            for metric, bound in limits.items()
            if device_of(metric) in (None, device)
        )
        rows.append(
            {
                "device": device,
                "budget": target.budget.text,
                **_latencies(target, device, costs),
                **_as_json(time),
                "kept": kept,
                "timed_on": spec.text,
            }
        )
    return rows


def _as_json(time: Measured) -> dict[str, Any]:
    return {
        "measured_ms": time.latency_ms,
        "measured_error_ms": time.error_ms,
        "measured_raw_ms": time.raw_ms,
        "machine_slowdown": time.machine_slowdown,
    }


def _write_verification(target: Finished, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A target's ``verification.json``; returns what the closing table takes from it."""
    own = [row for row in rows if row["budget"] == target.budget.text and row["device"] in target.tables]
    result = own[0]
    if target.joint:
        kept = all(row["kept"] for row in own)
        result = {"device": target.device, "budget": target.budget.text, "kept": kept, "devices": own}
    write_json(target.place / "verification.json", {**result, "date": today()})
    return result


def update_summary(run: Path, rows: list[dict[str, Any]]) -> None:
    """Bring new figures of some targets into the run's ``summary.json``, if it has one, and draw its
    pictures again.
    """
    file = run / "summary.json"
    if file.exists():
        summary = read_json(file, f"remove {file}")
        for row in rows:
            for old in summary["targets"]:
                if (old["device"], old["budget"]) == (row["device"], row["budget"]):
                    old.update(row)
        write_json(file, summary)
        draw_run(run)


def evaluate(
    folder: Path, split_name: str, data_spec: str | None, latency: bool, confusion: Path | None, progress: Progress
) -> list[dict[str, Any]]:
    """How good the networks are on a split: the ONNX files through ONNX Runtime, and torch; one row a target.

    The quantised network is among them where there is one. With ``latency`` the run's devices time the networks, too;
    ``confusion`` is a CSV file to write.
    """
    if split_name not in ("train", "validation", "test"):
        raise HwnasError(f"unknown split {split_name!r}", "use train, validation or test")
    targets = read_targets(folder)
    if latency:
        for table in _tables_of(targets).values():
            require_its_device(table)
    data = data_of(targets, data_spec, progress)
    split = getattr(data, split_name)
    rows = []
    for target in targets:
        row: dict[str, Any] = {"device": target.device, "budget": target.budget.text, "images": len(split)}
        for runtime, network in _networks(target).items():
            found = evaluate_scores(scores_of(network, data, split), split.targets.numpy())
            row |= {f"{runtime}_{key}": value for key, value in asdict(found).items()}
        rows.append(row)
    if confusion:
        write_confusion(confusion, data.labels, rows, tuple(EVALUATED))
    for device, table in _tables_of(targets).items() if latency else ():
        on_device = [target for target in targets if device in target.tables]
        measured = _time(on_device, device, spec_of(table), progress)
        for target, row in zip(targets, rows, strict=True):
            if target.place in measured:
                row.setdefault("latency", []).append({"device": device, **_as_json(measured[target.place])})
    return rows


def _networks(target: Finished) -> dict[str, Callable[[Tensor], Tensor]]:
    """What there is to evaluate of a target, as ``EVALUATED`` calls it."""
    networks: dict[str, Callable[[Tensor], Tensor]] = {"onnx": onnx_network(target.network())}
    if target.network(INT8).exists():
        networks["int8"] = onnx_network(target.network(INT8))
    return {**networks, "torch": target.child().eval()}


def data_of(targets: list[Finished], spec: str | None, progress: Progress) -> ImageData:
    """The images of the search, or those that ``spec`` names. Raises HwnasError when they do not fit the networks."""
    data = load_data(spec or targets[0].content["data"], progress)
    sized = targets[0].sized
    if fit_to_data(sized, data) != sized:
        raise HwnasError(
            f"the images of {data.name} are {data.shape} with {len(data.labels)} classes, "
            f"the networks take {sized.setting.describe()}",
            "give the data of the search",
        )
    return data
