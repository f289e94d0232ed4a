"""What a finished run's folder says, read back for the report and checked; nothing here imports torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, FiniteFloat

from hwnas.cost.devices import table_file
from hwnas.cost.metrics import build_metrics
from hwnas.cost.model import Array, CostModel
from hwnas.errors import HwnasError
from hwnas.files import read_json
from hwnas.report.validation import Loose, checked, checked_setting
from hwnas.search.epoch_row import EpochRow
from hwnas.spaces import Architecture, SearchSpace, SizedSpace
from hwnas.spaces.space_copy import kept_space
from hwnas.tables.io import read_table
from hwnas.tables.schema import LatencyTable


class Timing(Loose):
    """A network on one device, in ms; ``measured_ms`` and what follows are None until it has been timed."""

    device: str
    budget_ms: FiniteFloat | None
    predicted_ms: FiniteFloat
    measured_ms: FiniteFloat | None = None
    measured_error_ms: FiniteFloat | None = None
    measured_raw_ms: FiniteFloat | None = None
    machine_slowdown: FiniteFloat | None = None
    kept: bool | None = None
    timed_on: str | None = None


class Parity(Loose):
    greatest_difference: FiniteFloat
    same_class: FiniteFloat
    images: int


class Row(Loose):
    """A target in ``summary.json``: its network, what that costs, how accurate it is (0 to 1)."""

    device: str
    budget: str
    architecture: str
    limits: dict[str, FiniteFloat]
    accuracy: FiniteFloat
    macs: int
    params: int
    validation_accuracy: FiniteFloat
    validation_accuracy_before_training: FiniteFloat
    child_epochs: int
    kept: bool | None = None
    parity: Parity | None = None


class Selection(Loose):
    """How the network was taken in the end: the most ``probable`` one, or by another of the search's choices."""

    name: str


class Recipe(Loose):
    epochs: int
    method: str
    seed: int
    inputs_per_node: int | None = None
    selection: Selection = Selection(name="probable")


class Manifest(Loose):
    """What a run was made from; ``tables`` are hashes by device, ``plugin`` is that of the user's own Python file."""

    space: str
    setting: dict[str, Any]
    tables: dict[str, str] = Field(min_length=1)
    data: str
    data_fingerprint: str
    budgets: list[str]
    recipe: Recipe
    verify: bool
    digest: str
    versions: dict[str, str]
    started: str
    plugin: str | None = None


@dataclass(frozen=True)
class Target:
    """One network of a run: its row, its latency on every device, and its search, an item an epoch."""

    row: Row
    timings: tuple[Timing, ...]
    architecture: Architecture
    epochs: tuple[EpochRow, ...]

    @property
    def kept(self) -> bool | None:
        """Whether the budget was kept as timed; None where it was not timed."""
        return self.row.kept

    @property
    def stopped(self) -> str:
        """Why its logits stopped before the end; empty where they did not."""
        return self.epochs[-1].stopped if self.epochs else ""

    @property
    def probabilities(self) -> dict[str, list[list[float]]] | None:
        """Those of the last epoch, in which the network was derived."""
        return self.epochs[-1].probabilities if self.epochs else None


@dataclass(frozen=True)
class RunContent:
    """``raw_manifest`` is the manifest as the file holds it, ``rows`` what ``summary.json`` holds of the targets."""

    folder: Path
    name: str
    sized: SizedSpace
    manifest: Manifest
    raw_manifest: dict[str, Any]
    rows: list[dict[str, Any]]
    finished: str
    tables: Mapping[str, LatencyTable]
    targets: tuple[Target, ...]

    @property
    def space(self) -> SearchSpace:
        return self.sized.space

    @cached_property
    def edge_costs(self) -> dict[str, dict[str, Array]]:
        """By device and cell kind, [E, K]: what an operation costs on an edge, in ms, as the loss counts it."""
        return {device: model.linear()[1] for device, model in self.latency_models.items()}

    @cached_property
    def latency_models(self) -> dict[str, CostModel]:
        models = {}
        for device, table in self.tables.items():
            model = build_metrics(table, self.sized)["latency_ms"]
            assert isinstance(model, CostModel)
            models[device] = model
        return models


def read_run(folder: Path) -> RunContent:
    """Read a run of ``hwnas search``. Raises HwnasError when it is not finished, or its files are not whole."""
    again = f"make it with 'hwnas search --out {folder}'"
    if not (folder / "manifest.json").is_file() or not (folder / "summary.json").is_file():
        missing = "summary.json" if (folder / "manifest.json").is_file() else "manifest.json"
        raise HwnasError(f"{folder} holds no finished search: it has no {missing}", again)
    raw = read_json(folder / "manifest.json", again)
    manifest = checked(Manifest, raw, folder / "manifest.json", again)
    summary = read_json(folder / "summary.json", again)
    rows = summary.get("targets") if isinstance(summary, dict) else None
    if not isinstance(rows, list) or not rows:
        raise HwnasError(f"{folder / 'summary.json'} is incomplete (targets)", again)
    space = kept_space(raw, manifest.space, folder)
    sized = SizedSpace(space, checked_setting(manifest.setting, folder / "manifest.json", again))
    epochs = _read_epochs(folder / "metrics.jsonl", space, again)
    targets = []
    for raw_row in rows:
        row = checked(Row, raw_row, folder / "summary.json", again)
        timings = [
            checked(Timing, there, folder / "summary.json", again) for there in raw_row.get("devices", [raw_row])
        ]
        own = tuple(e for e in epochs if (e.device, e.budget) == (row.device, row.budget))
        ended = len(own) if own and all(e.stopped for e in epochs[-len(rows) :]) else manifest.recipe.epochs
        if [e.epoch for e in own] != list(range(1, ended + 1)):
            raise HwnasError(
                f"{folder / 'metrics.jsonl'} is cut off: it has {len(own)} of {manifest.recipe.epochs} epochs "
                f"of budget {row.budget}",
                again,
            )
        targets.append(Target(row, tuple(timings), space.parse(row.architecture), own))
    return RunContent(
        folder, folder.resolve().name, sized, manifest, raw, rows, str(summary.get("finished", "")),
        _read_tables(folder, manifest, targets, again), tuple(targets),
    )  # fmt: skip


def _read_tables(folder: Path, manifest: Manifest, targets: list[Target], again: str) -> dict[str, LatencyTable]:
    tables = {}
    for device in manifest.tables:
        if Path(device).name != device or not device.isprintable() or "\\" in device:
            raise HwnasError(
                f"{folder / 'manifest.json'} names a device {device!r}, which no table's file can be", again
            )
        tables[device] = read_table(folder / table_file(manifest.tables, device))
    unknown = {timing.device for target in targets for timing in target.timings} - set(tables)
    if unknown:
        raise HwnasError(
            f"{folder / 'summary.json'} names devices without a table ({', '.join(sorted(unknown))})", again
        )
    return tables


def _read_epochs(path: Path, space: SearchSpace, again: str) -> list[EpochRow]:
    shapes = {kind: (len(cell.edges), len(space.operations)) for kind, cell in space.cells.items()}
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        raise HwnasError(f"{path} does not exist", again) from None
    epochs = []
    for number, line in enumerate(lines, start=1):
        where = f"line {number} of {path}"
        epoch = checked(EpochRow, _parse_line(line, where, again), where, again)
        if epoch.probabilities is not None:
            found = {kind: (len(p), *{len(row) for row in p}) for kind, p in epoch.probabilities.items()}
            if found != shapes:
                raise HwnasError(f"{where} has probabilities that are not of space {space.name}", again)
        epochs.append(epoch)
    return epochs


def _parse_line(line: bytes, where: str, again: str) -> Any:
    """NaN and infinities, which a search that diverged writes, become None."""
    try:
        return json.loads(line, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise HwnasError(f"{where} is cut off or no JSON ({error})", again) from None
