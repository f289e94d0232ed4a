"""Finish a search: select each target's architecture, train its network of the search's sizes, export what ships."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hwnas.compute.seeds import Purpose, seed_of
from hwnas.export.network import save_weights
from hwnas.finalists.judgement import Judgement
from hwnas.networks.child import ChildNetwork
from hwnas.progress import Progress
from hwnas.recipe import Finalists
from hwnas.runs.compare import compare_with_baselines, describe_unused
from hwnas.runs.derived import DerivedNetwork
from hwnas.runs.folder import ARCHITECTURE, PROXY, SUMMARY, WEIGHTS, table_file
from hwnas.runs.records import read_summary
from hwnas.runs.request import SearchRequest
from hwnas.runs.schema import ProxyResult, SummaryRow
from hwnas.runs.select import select_architecture
from hwnas.runs.two_networks import TwoNetworks
from hwnas.runs.write import write_network
from hwnas.search.search import Search
from hwnas.search.target import TargetState
from hwnas.spaces import Architecture
from hwnas.text import quoted
from hwnas.training.child import train_child
from hwnas.training.evaluation import quality_of, recalibrate
from hwnas.training.recipe import training_of


@dataclass(frozen=True)
class Finish:
    """Finish the targets of a search in ``folder``, the folder of the run.

    Where both networks are equal, the network that ships has the supernet's weights, trained further; a finalist
    of the same sizes keeps the weights of its own training. Where they are
    not, that network is the proxy, and the target network is exported untrained (``hwnas train`` trains it).
    """

    request: SearchRequest
    networks: TwoNetworks
    search: Search
    folder: Path
    progress: Progress
    judgement: Judgement | None = None

    def __call__(self, target: TargetState) -> SummaryRow:
        """Select a target's architecture, train and export; return its row."""
        objective, networks = target.objective, self.networks
        folder = self.folder / objective.target
        if trained := self._trained_since(objective.target):
            return trained
        architecture, attempts = select_architecture(
            self.search, target, self.request, networks, folder, self.progress, self.judgement
        )
        child, result = self._train(architecture, folder / PROXY if networks.proxy else folder)
        if networks.proxy:
            proxy = self._save_proxy(child, result, folder / PROXY)
            child = self._untrained(architecture)
            untrained = dict.fromkeys(("validation_accuracy", "validation_accuracy_before_training"))
            result = {**untrained, "child_epochs": 0, "proxy": proxy}
        result["derivations"] = attempts
        settings = self.request.recipe.finalists
        if self.judgement and isinstance(settings, Finalists):
            result["comparison"] = compare_with_baselines(self.judgement, target, architecture, settings)
            inputs = self.request.recipe.inputs_per_node
            if line := describe_unused(self.judgement, target, architecture, inputs):
                self.progress.log(line)
        derived = self._derived(target, architecture)
        costs = {metric: model.predict(architecture) for metric, model in objective.costs.items()}
        row = write_network(child, derived, costs, networks.target_data, result)
        assert isinstance(row, SummaryRow)  # the target network claims its budget
        return row

    def _trained_since(self, target: str) -> SummaryRow | None:
        """Return the row of a network that ``hwnas train`` has trained since, and log that it is not replaced."""
        folder = self.folder / target
        if not ((self.folder / SUMMARY).exists() and (folder / ARCHITECTURE).exists()):
            return None
        rows = read_summary(self.folder, f"search again with --out {quoted(self.folder)}").targets
        row = next((row for row in rows if row.target == target), None)
        if not row or not row.training:
            return None
        self.progress.log(
            f"{target}: `hwnas train` has trained its network since (recipe {row.training.recipe}), so it is kept; "
            f"remove {quoted(folder)} to get the network of the search"
        )
        return row

    def _train(self, architecture: Architecture, folder: Path) -> tuple[ChildNetwork, dict[str, Any]]:
        """Train the network of the search's sizes from the supernet's weights; also return the fields of its result."""
        search, recipe = self.search, self.request.recipe
        child = search.supernet.child(architecture)
        finalist = self.judgement.weights_of(architecture, search.sized) if self.judgement else None
        if finalist:
            child.load_state_dict(finalist)
        child.to(search.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        recalibrate(child, search.data, recipe.batch_size, recipe.seed)
        before = quality_of(child, search.data, search.data.validation)
        training = training_of(recipe.child, recipe.seed, recipe.compute)
        start = f"{search.space.format(architecture, all_edges=True)} after step {search.step}"
        start += " and as a finalist" if finalist else ""
        name = f"the proxy of {folder.parent.name}" if self.networks.proxy else folder.name

        def on_progress(stage: str, done: int, total: int) -> None:
            self.progress(f"training {name}", done, total)

        history = train_child(child, search.data, training, folder, start, on_progress).history
        after = history[-1].quality if history else before
        return child, {
            **before.fields("validation_", "_before_training"),
            **after.fields("validation_"),
            "child_epochs": len(history),
        }

    def _save_proxy(self, child: ChildNetwork, result: Mapping[str, Any], folder: Path) -> ProxyResult:
        """Write the weights of a proxy network; return its accuracies."""
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(child.state_dict(), folder / WEIGHTS["last"])
        data, setting = self.networks.data, self.networks.search_sized.setting
        tested = quality_of(child, data, data.test).fields()
        return ProxyResult(setting=asdict(setting), data=data.name, **tested, **result)

    def _untrained(self, architecture: Architecture) -> ChildNetwork:
        """Build a target network with random weights, its batch statistics those of its own images if there are any."""
        recipe, networks = self.request.recipe, self.networks
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(recipe.seed, Purpose.UNTRAINED_WEIGHTS))
            child = ChildNetwork(networks.target_sized, architecture, prune=True)
        if networks.target_data:
            recalibrate(child, networks.target_data, recipe.batch_size, recipe.seed)
            networks.target_data.stop_decoding()
        return child.eval()

    def _derived(self, target: TargetState, architecture: Architecture) -> DerivedNetwork:
        request, objective = self.request, target.objective
        devices = target.budget.devices or [objective.device]
        tables = {device: table for device, table in request.tables.items() if device in devices}
        return DerivedNetwork(
            objective.target,
            self.folder / objective.target,
            {device: table_file(request.tables, device) for device in tables},
            tables,
            self.networks.target_sized,
            architecture,
            target.budget,
            trained=not self.networks.proxy,
        )
