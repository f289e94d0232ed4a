"""Read a finished run for the report, and check that its files belong together. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hwnas.cost.build import build_metrics
from hwnas.cost.metric import LATENCY
from hwnas.cost.model import CostModel
from hwnas.errors import HwnasError
from hwnas.finalists.record import FinalistsFile
from hwnas.runs.folder import MANIFEST, SUMMARY, table_file
from hwnas.runs.manifest_schema import Manifest
from hwnas.runs.records import read_epochs, read_finalists, read_manifest, read_summary
from hwnas.runs.schema import DeviceTiming, Summary, SummaryRow
from hwnas.runs.sizes import read_sizes
from hwnas.search.epoch_row import METRICS, EpochRow
from hwnas.spaces import Architecture, SearchSpace, SizedSpace
from hwnas.spaces.space_copy import space_of_run
from hwnas.tables.io import read_table
from hwnas.tables.schema import LatencyTable
from hwnas.text import quoted


@dataclass(frozen=True)
class Target:
    """One network of a run: its id and row, its latency on every device, and one row for each epoch of its search."""

    id: str
    row: SummaryRow
    timings: Sequence[DeviceTiming]
    architecture: Architecture
    epochs: tuple[EpochRow, ...]

    @property
    def kept(self) -> bool | None:
        """True if the network keeps its budget as timed; None where it was not timed."""
        return self.row.kept

    @property
    def stopped(self) -> str:
        """The reason why its logits stopped before the end; empty where they did not."""
        return self.epochs[-1].stopped if self.epochs else ""

    @property
    def probabilities(self) -> dict[str, list[list[float]]] | None:
        """The probabilities of the last epoch, from which the network was derived."""
        return self.epochs[-1].probabilities if self.epochs else None


@dataclass(frozen=True)
class RunContent:
    """The content of a run's folder; ``tables`` are by device name.

    ``sized`` is the target network, ``search_sized`` the search network. ``finalists`` is None without any.
    """

    folder: Path
    name: str
    sized: SizedSpace
    search_sized: SizedSpace
    manifest: Manifest
    summary: Summary
    tables: Mapping[str, LatencyTable]
    targets: tuple[Target, ...]
    finalists: FinalistsFile | None

    @property
    def space(self) -> SearchSpace:
        return self.sized.space

    @property
    def has_proxies(self) -> bool:
        """True where the networks that the search trained are not those that ship."""
        return any(row.proxy for row in self.summary.targets)

    @property
    def target_data(self) -> str:
        """The images of the target networks."""
        return self.manifest.target_data or self.manifest.data

    @cached_property
    def latency_models(self) -> dict[str, CostModel]:
        models = {}
        for device, table in self.tables.items():
            model = build_metrics(table, self.sized)[LATENCY.name]
            assert isinstance(model, CostModel)
            models[device] = model
        return models


def read_run(folder: Path) -> RunContent:
    """Read a run of ``hwnas search``. Raises HwnasError when it is not finished, or a file is missing or damaged."""
    fix = f"make it with `hwnas search --out {quoted(folder)}`"
    for name in (MANIFEST, SUMMARY):
        if not (folder / name).is_file():
            raise HwnasError(f"{folder} holds no finished search: it has no {name}", fix)
    manifest, summary = read_manifest(folder, fix), read_summary(folder, fix)
    space = space_of_run(manifest.space, manifest.space_definition, folder)
    sized = read_sizes(space, manifest.setting, folder / MANIFEST, fix)
    search_sized = read_sizes(space, manifest.search_setting or manifest.setting, folder / MANIFEST, fix)
    epochs = _read_epochs(folder, manifest, space, fix)
    stopped = all(epoch.stopped for epoch in epochs[-len(summary.targets) :])
    targets = []
    for row in summary.targets:
        target = row.target or manifest.target_id(row.device, row.budget)
        own = tuple(epoch for epoch in epochs if epoch.target == target)
        last = len(own) if own and stopped else manifest.recipe.epochs
        if [epoch.epoch for epoch in own] != list(range(1, last + 1)):
            raise HwnasError(
                f"{folder / METRICS} is cut off: it has {len(own)} of {manifest.recipe.epochs} epochs "
                f"of budget {row.budget}",
                fix,
            )
        targets.append(Target(target, row, row.timings, space.parse(row.architecture), own))
    tables = _read_tables(folder, manifest, targets, fix)
    name = folder.resolve().name
    finalists = read_finalists(folder, fix)
    return RunContent(folder, name, sized, search_sized, manifest, summary, tables, tuple(targets), finalists)


def _read_tables(folder: Path, manifest: Manifest, targets: list[Target], fix: str) -> dict[str, LatencyTable]:
    tables = {}
    for device in manifest.tables:
        if Path(device).name != device or not device.isprintable() or "\\" in device:
            raise HwnasError(f"{folder / MANIFEST} names a device {device!r}, which no table's file can be", fix)
        tables[device] = read_table(folder / table_file(manifest.tables, device))
    unknown = {timing.device for target in targets for timing in target.timings} - set(tables)
    if unknown:
        raise HwnasError(f"{folder / SUMMARY} names devices without a table ({', '.join(sorted(unknown))})", fix)
    return tables


def _read_epochs(folder: Path, manifest: Manifest, space: SearchSpace, fix: str) -> list[EpochRow]:
    """Read ``metrics.jsonl``, whose probabilities must be of ``space``; rows of older runs get their target's id."""
    shapes = {kind: (len(cell.edges), len(space.operations)) for kind, cell in space.cells.items()}
    epochs = []
    for number, epoch in enumerate(read_epochs(folder, fix), start=1):
        if epoch.probabilities is not None:
            found = {kind: (len(p), *{len(row) for row in p}) for kind, p in epoch.probabilities.items()}
            if found != shapes:
                source = f"line {number} of {folder / METRICS}"
                raise HwnasError(f"{source} has probabilities that are not of space {space.name}", fix)
        if not epoch.target:
            epoch = epoch.model_copy(update={"target": manifest.target_id(epoch.device, epoch.budget)})
        epochs.append(epoch)
    return epochs
