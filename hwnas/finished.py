"""A finished search, read back: its networks verified on the device, trained further, evaluated."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hwnas import __version__
from hwnas.cost.budget import Budget
from hwnas.cost.devices import LATENCY, device_of, joint_models, latency_on, names_devices, targets_of
from hwnas.cost.metrics import Metric, build_metrics
from hwnas.cost.networks import network_key
from hwnas.data import ImageData, load_data
from hwnas.errors import HwnasError
from hwnas.export.network import (
    check_parity,
    data_metadata,
    export_cells,
    export_network,
    load_weights,
    onnx_accuracy,
    save_weights,
)
from hwnas.export.verify import require_its_device, spec_of, time_networks
from hwnas.files import read_json, sha256_of_file, write_json
from hwnas.networks.child import ChildNetwork
from hwnas.profiling.device import DeviceSpec
from hwnas.profiling.runtimes import RUNTIMES
from hwnas.progress import Progress
from hwnas.recipe import ChildTraining, Optimizer
from hwnas.report.run_pictures import draw_run
from hwnas.spaces import Architecture, SearchSpace, Setting
from hwnas.spaces.kept import kept_space
from hwnas.tables.io import read_table
from hwnas.tables.schema import LatencyTable, today
from hwnas.training.child import accuracy, train_child


def fit_setting(setting: Setting, data: ImageData) -> Setting:
    """The setting with the data's image shape and number of classes."""
    channels, height, width = data.shape
    return replace(setting, image_channels=channels, height=height, width=width, classes=len(data.labels))


@dataclass(frozen=True)
class Derived:
    """One target's network: what it is, what it may cost, by which tables, and the folder it lives in.

    ``tables`` go by what the run calls them (several where the budget names devices), and so do ``table_files``, where
    it keeps them.
    """

    place: Path
    table_files: Mapping[str, str]
    tables: Mapping[str, LatencyTable]
    space: SearchSpace
    setting: Setting
    architecture: Architecture
    budget: Budget

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
        """One for every metric of the target."""
        models = {device: build_metrics(table, self.space, self.setting) for device, table in self.tables.items()}
        return joint_models(models) if self.joint else models[self.device]


@dataclass(frozen=True)
class Finished(Derived):
    """A derived network whose folder has been written, read back."""

    content: dict[str, Any]

    def child(self) -> ChildNetwork:
        child = ChildNetwork(self.space, self.architecture, self.setting, prune=True)
        load_weights(child, self.place / "weights.safetensors")
        return child


def write_child(
    child: ChildNetwork, derived: Derived, costs: Mapping[str, Metric], data: ImageData, result: dict[str, Any]
) -> dict[str, Any]:
    """Write a child's weights, ONNX files and ``architecture.json``; returns its row of the closing table."""
    place, space, budget = derived.place, derived.space, derived.budget
    text = space.format(derived.architecture, all_edges=True)
    predicted = {metric: model.predict(derived.architecture) for metric, model in costs.items()}
    onnx_file = place / "network.onnx"
    metadata = {"space": space.name, "architecture": text, "budget": budget.text, "version": __version__}
    for device, table in derived.tables.items():
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
    # Last of the networks: until these are there, an interrupted training goes on from the old ones.
    save_weights(child, place / "weights.safetensors")
    write_json(
        place / "architecture.json",
        {
            "space": space.name,
            "setting": asdict(derived.setting),
            "architecture": text,
            "budget": {"text": budget.text, "limits": dict(budget.limits)},
            "costs": predicted,
            "macs_convention": space.macs_convention,
            "device": derived.device,
            **_tables_as_json(derived),
            "data": data.name,
            "parity": asdict(parity),
            "test_accuracy": test_accuracy,
            **{key: value for key, value in result.items() if key != "derivations"},
        },
    )
    latencies = {device: _latencies(derived, device, predicted) | {"measured_ms": None} for device in derived.tables}
    return {
        "device": derived.device,
        "budget": budget.text,
        "architecture": text,
        "limits": dict(budget.limits),
        **(
            {"devices": [{"device": device, **row} for device, row in latencies.items()]}
            if derived.joint
            else latencies[derived.device]
        ),
        "macs": round(predicted["macs"]),
        "params": round(predicted["params"]),
        **{metric: round(cost) for metric, cost in predicted.items() if metric.endswith("_bytes")},
        "accuracy": test_accuracy,
        "parity": asdict(parity),
        "onnx": str(onnx_file),
        **result,
    }


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
    """The targets of a run folder, or the one target whose folder this is.

    Raises HwnasError when the folder holds none.
    """
    search_first = "make one with 'hwnas search --out DIR'"
    if (folder / "architecture.json").exists():
        places, run = [folder], folder.parent
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
                    space=space,
                    setting=Setting(**content["setting"]),
                    architecture=space.parse(content["architecture"]),
                    budget=Budget(content["budget"]["text"], content["budget"]["limits"]),
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
    tables = {device: table for target in targets for device, table in target.tables.items()}
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
    update_summary(targets[0].place.parent, results)
    return [row for result in results for row in result.get("devices", [result])]


def _verify(targets: list[Finished], device: str, spec: DeviceSpec, progress: Progress) -> list[dict[str, Any]]:
    """The targets of one table."""
    table = targets[0].tables[device]
    networks: dict[str, Path | ChildNetwork] = {
        t.place.name: t.place / "network.onnx" if spec.made_by.takes_onnx else t.child() for t in targets
    }
    for network in networks.values():
        if isinstance(network, Path) and not network.exists():
            raise HwnasError(f"{network} does not exist", "run the search again")
    key = network_key(targets[0].space, targets[0].setting)
    measured = time_networks(networks, spec, table, key, progress)
    rows = []
    for target in targets:
        time, costs = measured[target.place.name], target.content["costs"]
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
                "measured_ms": time.latency_ms,
                "measured_error_ms": time.error_ms,
                "measured_raw_ms": time.raw_ms,
                "machine_slowdown": time.machine_slowdown,
                "kept": kept,
                "timed_on": spec.text,
            }
        )
    return rows


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


def train_further(
    folder: Path, epochs: int, learning_rate: float, data_spec: str | None, seed: int, progress: Progress
) -> list[dict[str, Any]]:
    """Train every target's network from the weights that are there, and write its files again; one row a target."""
    targets = read_targets(folder)
    data = _data(targets, data_spec, progress)
    optimizer = Optimizer(name="sgd", lr=learning_rate, lr_end=0.0, weight_decay=3e-4, clip_norm=5.0)
    recipe = ChildTraining(epochs=epochs, batch_size=min(64, len(data.train)), optimizer=optimizer)
    trained = []
    for target in targets:
        child = target.child()
        before = accuracy(child, data, data.validation)
        start = sha256_of_file(target.place / "weights.safetensors")
        # The search's own checkpoint is not this training's: a folder of its own, named by what it starts from.
        place = target.place / f"training-{start[:12]}"
        history = train_child(child, data, recipe, seed, place, start, progress)
        trained.append((target, child, before, history, place))
    rows = []
    for target, child, before, history, place in trained:  # only now, so that an interrupted call trains nothing twice
        result = {
            "validation_accuracy_before_training": before,
            "validation_accuracy": history[-1].validation_accuracy,
            "child_epochs": target.content["child_epochs"] + len(history),
        }
        rows.append(write_child(child, target, target.cost_models(), data, result))
        shutil.rmtree(place)
    update_summary(targets[0].place.parent, rows)
    return rows


def evaluate(folder: Path, split_name: str, data_spec: str | None, progress: Progress) -> list[dict[str, Any]]:
    """Accuracy on a split: of the ONNX file through ONNX Runtime, and of the torch network; one row a target."""
    if split_name not in ("train", "validation", "test"):
        raise HwnasError(f"unknown split {split_name!r}", "use train, validation or test")
    targets = read_targets(folder)
    data = _data(targets, data_spec, progress)
    split = getattr(data, split_name)
    return [
        {
            "device": target.device,
            "budget": target.budget.text,
            "images": len(split),
            "onnx_accuracy": onnx_accuracy(target.place / "network.onnx", data, split),
            "torch_accuracy": accuracy(target.child().eval(), data, split),
        }
        for target in targets
    ]


def _data(targets: list[Finished], spec: str | None, progress: Progress) -> ImageData:
    data = load_data(spec or targets[0].content["data"], progress)
    setting = targets[0].setting
    if fit_setting(setting, data) != setting:
        raise HwnasError(
            f"the images of {data.name} are {data.shape} with {len(data.labels)} classes, "
            f"the networks take {setting.describe()}",
            "give the data of the search",
        )
    return data
