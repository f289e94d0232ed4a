"""Prune the trained networks of a run to a budget, and train the narrower networks.

Widths are learned by masks of the channels (hwnas.training.widths), which are folded into a narrower network. That is
written into a folder of its own in that of the network it comes from. From there on it is a network as any other:
``hwnas train`` trains it, which is also the last step here. The network it comes from can be its teacher.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from hwnas.budgets.budget import Budget
from hwnas.compute.device import choose_device
from hwnas.compute.precision import choose_precision
from hwnas.cost.metric import LATENCY, MACS
from hwnas.data import ImageData
from hwnas.errors import HwnasError
from hwnas.export.network import PARITY_IMAGES
from hwnas.export.timing import require_its_device
from hwnas.files import sha256_of, sha256_of_file
from hwnas.networks.channels.fold import fold
from hwnas.networks.channels.groups import Channels, Costs, Floats
from hwnas.networks.channels.narrow import layer_widths
from hwnas.networks.channels.selection import least_channels, select_channels
from hwnas.networks.channels.trace import trace
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count
from hwnas.networks.deployed import deployed_inputs
from hwnas.progress import Progress
from hwnas.runs.derived import DerivedNetwork, SavedNetwork
from hwnas.runs.folder import ARCHITECTURE, VERIFICATION
from hwnas.runs.prune_budget import PruningBudget, parse_pruning_budget
from hwnas.runs.prune_latency import NarrowerNetwork, Stopwatch, within_latency
from hwnas.runs.pruning_schema import PrunedTiming, PruningResult
from hwnas.runs.read import load_images, read_networks, require_trained
from hwnas.runs.schema import NetworkRow
from hwnas.runs.time_trained import time_trained
from hwnas.runs.train import train_run
from hwnas.runs.write import saved_row, write_network
from hwnas.runtimes.float16 import FLOAT16
from hwnas.runtimes.int8 import INT8
from hwnas.training.evaluation import accuracy, recalibrate
from hwnas.training.recipe import Distillation, Training
from hwnas.training.training_row import TrainingRow
from hwnas.training.widths import Limit, learn_widths

# What a recipe does at the end of a training is left to that of the narrower network.
OF_THE_END: dict[str, Any] = {"ema": None, "keep": "last", "patience": None, "distillation": None, "weights": None}


def prune_run(
    folder: Path,
    budget: str,
    name: str,
    recipe: Training,
    mask_epochs: int,
    multiple: int,
    distil: bool,
    data_spec: str | None,
    progress: Progress,
) -> list[NetworkRow]:
    """Prune every network of a run to ``budget`` and train it by the recipe called ``name``; return a row for each.

    Widths are learned in ``mask_epochs`` epochs of the recipe. They are whole multiples of ``multiple`` (or a group of
    channels stays whole). With ``distil`` the network it comes from teaches a narrower one, unless the recipe has
    another teacher. A network that was pruned before in the same way is not pruned again. In the end networks are timed
    where their device is this machine.

    Raises HwnasError for a network that is untrained or already pruned, for a budget that is no limit or cannot be
    met, and for a limit on latency where the device is not this machine, there are several, or the network is int8.
    """
    asked, networks = parse_pruning_budget(budget), read_networks(folder)
    require_trained(networks)
    for network in networks:
        _require_prunable(network, asked)
    data = load_images(networks, data_spec, progress)
    precision, _ = choose_precision(recipe.precision, choose_device(recipe.compute))
    changes = {"start": "weights", "precision": precision, "weights": None}
    recipe = recipe.model_copy(update=changes)
    jobs = [_Pruning(network, asked, recipe, mask_epochs, multiple, distil, data, progress) for network in networks]
    for job in jobs:
        job.require_possible()
    for job in jobs:
        job.prune()
    rows = [_trained(job, name, data_spec, progress) for job in jobs]
    return time_trained(rows, [job.folder for job in jobs], progress)


def _require_prunable(network: SavedNetwork, budget: PruningBudget) -> None:
    if network.sized.space.is_recurrent:
        raise HwnasError(
            f"channels of convolutions are pruned, and the network in {network.folder} has none",
            "search a smaller one, with a lower budget or a table of fewer --channels",
        )
    if network.pruning:
        raise HwnasError(
            f"the network in {network.folder} is already pruned", f"prune the one in {network.folder.parent}"
        )
    if budget.metric != LATENCY:
        return
    in_macs = "give a budget in MACs, such as 50%-macs"
    if len(network.tables) > 1:
        raise HwnasError(f"the network in {network.folder} is for several devices", in_macs)
    (table,) = network.tables.values()
    if (precision := table.runtime.precision) in (FLOAT16, INT8):
        raise HwnasError(f"the table is of {precision} networks, and widths are found by timing float32 ones", in_macs)
    try:
        require_its_device(table)
    except HwnasError as error:
        fix = f"prune on that device, where widths are timed, or {in_macs}"
        raise HwnasError(error.problem, fix) from None


@dataclass(frozen=True)
class _Whole:
    """The network that is pruned: its channels, their MACs by widths, its counts and, if it is limited, its latency."""

    child: ChildNetwork
    channels: Channels
    macs_by_widths: Costs
    macs: int
    params: int
    latency_ms: float | None


class _Pruning:
    """The pruning of one network. ``folder`` is that of the pruned network."""

    def __init__(
        self,
        saved: SavedNetwork,
        budget: PruningBudget,
        recipe: Training,
        mask_epochs: int,
        multiple: int,
        distil: bool,
        data: ImageData,
        progress: Progress,
    ) -> None:
        self.saved, self.budget, self.recipe, self.data, self.progress = saved, budget, recipe, data, progress
        self.mask_epochs, self.multiple, self.distil = mask_epochs, multiple, distil
        self.folder = saved.folder / f"pruned-{Budget(budget.text, {}).name}{f'-x{multiple}' * (multiple > 1)}"
        self.settings = {
            "budget": budget.text,
            "mask_epochs": mask_epochs,
            "multiple": multiple,
            "distil": distil,
            "recipe": recipe.model_dump(mode="json"),
            "data": data.fingerprint,
        }
        self.source = sha256_of_file(saved.weights)
        self.work = self.folder / f"masks-{sha256_of([self.settings, self.source])[:12]}"

    def require_possible(self) -> None:
        """Raise HwnasError where the budget prunes nothing or cannot be met, or nothing can be removed."""
        if self._is_done():
            return
        begun = self.work.exists()
        try:
            _ = self._resolved
        except HwnasError:
            if not begun:  # leave no folder of a pruning that cannot be
                shutil.rmtree(self.work, ignore_errors=True)
                with suppress(OSError):
                    self.folder.rmdir()
            raise

    def prune(self) -> None:
        """Write the pruned network into its folder, unless it is there. Raises HwnasError as ``require_possible``."""
        if self._is_done():
            self.progress.log(f"{self.folder} holds the network pruned in this way; it is not pruned again")
            return
        whole, budget, macs_limit, stopwatch = self._resolved
        before = accuracy(whole.child, self.data, self.data.validation)
        rank = self._learn(whole, macs_limit)
        narrower, timings = self._fold(whole, rank, budget.limits[self.budget.metric.name], stopwatch)
        self._write(whole, narrower.child, budget, before, timings)
        shutil.rmtree(self.work)

    @cached_property
    def _resolved(self) -> tuple[_Whole, Budget, float, Stopwatch | None]:
        """The whole network, the budget, the limit on MACs to which widths are learned, and what times the networks."""
        child = self.saved.child().eval()
        channels = Channels(trace(child))
        if not channels.count:
            raise HwnasError(f"the network in {self.saved.folder} has no channel that can be removed", "prune another")
        stopwatch = Stopwatch(self.saved, self.work / "latencies.json", self.progress) if self._limits_latency else None
        convention = self.saved.sized.space.macs_convention
        counted = count(child, *deployed_inputs(self.saved.sized.setting))
        latency_ms = stopwatch.whole_ms if stopwatch else None
        macs = counted.macs(convention)
        by_widths = channels.macs(convention).with_total(macs, channels.sizes)
        whole = _Whole(child, channels, by_widths, macs, counted.params, latency_ms)
        budget = self.budget.resolve(whole.macs if latency_ms is None else latency_ms)
        bound = budget.limits[self.budget.metric.name]
        macs_limit = bound if latency_ms is None else whole.macs * bound / latency_ms
        self._require_width(whole, macs_limit)
        return whole, budget, macs_limit, stopwatch

    @property
    def _limits_latency(self) -> bool:
        return self.budget.metric == LATENCY

    def _is_done(self) -> bool:
        if not (self.folder / ARCHITECTURE).exists():
            return False
        (there,) = read_networks(self.folder)
        pruning = there.pruning
        return bool(pruning and pruning.settings == self.settings and pruning.source_sha256 == self.source)

    def _require_width(self, whole: _Whole, macs_limit: float) -> None:
        """Raise HwnasError where the narrowest network has more MACs than a limit on them."""
        least = whole.macs_by_widths.of(whole.channels.widths(least_channels(whole.channels, self.multiple)))
        if least > macs_limit and not self._limits_latency:
            raise HwnasError(
                f"budget {self.budget.text!r} ({MACS.format(macs_limit)}) is below the least width: the narrowest "
                f"network has {MACS.format(least)}" + f" with multiples of {self.multiple}" * (self.multiple > 1),
                "give a larger one",
            )

    def _learn(self, whole: _Whole, macs_limit: float) -> Floats:
        """Train ``whole.child`` while channels leave, and return the order in which they do [channels]."""
        name = self.saved.folder.name

        def on_epoch(row: TrainingRow) -> None:
            self.progress.log(f"widths of {name}: {row.describe()}")

        def on_progress(stage: str, done: int, total: int) -> None:
            self.progress(f"widths of {name}", done, total)

        recipe = self.recipe.model_copy(update={**OF_THE_END, "epochs": self.mask_epochs})
        limit = Limit(whole.macs_by_widths, macs_limit, self.multiple)
        arguments = whole.child, self.data, recipe, whole.channels, limit, self.work, self.source
        return learn_widths(*arguments, on_progress, on_epoch)

    def _fold(
        self, whole: _Whole, rank: Floats, bound: float, stopwatch: Stopwatch | None
    ) -> tuple[NarrowerNetwork, list[PrunedTiming]]:
        """Return the narrower network within the budget, and those that were timed to find it."""
        images = self.data.normalise(
            self.data.validation.images[torch.arange(min(PARITY_IMAGES, len(self.data.validation)))]
        )
        channels, costs = whole.channels, whole.macs_by_widths

        def narrower(limit: float) -> NarrowerNetwork | None:
            keep = select_channels(rank, channels, costs, limit, self.multiple)
            if keep is None:
                return None
            return NarrowerNetwork(fold(whole.child, channels, keep, images), costs.of(channels.widths(keep)))

        if stopwatch is None:
            found = narrower(bound)
            assert found  # the narrowest network is within the limit
            return found, []
        keep = least_channels(channels, self.multiple)
        least = NarrowerNetwork(fold(whole.child, channels, keep, images), costs.of(channels.widths(keep)))
        return within_latency(narrower, stopwatch.time, whole.macs, least, bound, self.progress.log)

    def _write(
        self, whole: _Whole, child: ChildNetwork, budget: Budget, before: float, timings: Sequence[PrunedTiming]
    ) -> None:
        recalibrate(child, self.data, self.recipe.batch_size, self.recipe.seed)
        saved = self.saved
        pruning = PruningResult(
            settings=self.settings,
            source_sha256=self.source,
            layers=layer_widths(child),
            macs_before=whole.macs,
            params_before=whole.params,
            validation_accuracy_before=before,
        )
        if whole.latency_ms is not None:
            timed = {"measured_ms_before": whole.latency_ms, "timings": list(timings)}
            pruning = pruning.model_copy(update=timed)
        derived = DerivedNetwork(
            saved.id,
            self.folder,
            saved.table_files,
            saved.tables,
            saved.sized,
            saved.architecture,
            budget,
            pruning=pruning,
        )
        own = accuracy(child, self.data, self.data.validation)
        fields = {
            "validation_accuracy_before_training": own,
            "validation_accuracy": own,
            "child_epochs": saved.content.child_epochs + self.mask_epochs,
        }
        (self.folder / VERIFICATION).unlink(missing_ok=True)
        row = write_network(child, derived, derived.costs(), self.data, fields)
        self._require_counted(row, budget)
        macs, params = MACS.format(row.macs), f"{row.params / 1e6:.4g} M params"
        self.progress.log(f"{self.folder}: {MACS.format(whole.macs)} -> {macs}, {params}, validation {own:.1%}")

    def _require_counted(self, row: NetworkRow, budget: Budget) -> None:
        """Raise HwnasError where fvcore counts more MACs than the limit, as it may in operations of the user's."""
        if row.macs > budget.limits.get(MACS.name, row.macs):
            (self.folder / ARCHITECTURE).unlink()
            raise HwnasError(
                f"the pruned network has {MACS.format(row.macs)}, more than its widths have: an operation of the space "
                "has MACs of its own",
                "give a smaller budget",
            )


def _trained(job: _Pruning, name: str, data_spec: str | None, progress: Progress) -> NetworkRow:
    """Train a pruned network, unless it has been, and return its row."""
    (saved,), recipe = read_networks(job.folder), job.recipe
    if saved.content.training or not recipe.epochs:
        return saved_row(saved)
    if job.distil and not recipe.distillation:
        recipe = recipe.model_copy(update={"distillation": Distillation(teacher=str(job.saved.folder))})
    (row,) = train_run(job.folder, name, recipe, data_spec, progress)
    return row
