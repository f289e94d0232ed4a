"""A target's network: its architecture, sizes and budget, its latency tables and the folder that holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hwnas.budgets.budget import Budget
from hwnas.budgets.text import names_devices
from hwnas.cost.build import CostFunction, build_metrics, joint_models
from hwnas.cost.counts import count_metrics
from hwnas.cost.metric import LATENCY
from hwnas.export.network import NETWORK_FILES, load_weights
from hwnas.networks.child import ChildNetwork
from hwnas.runs.schema import ArchitectureFile
from hwnas.runtimes.int8 import FLOAT32
from hwnas.spaces import Architecture, SizedSpace
from hwnas.tables.schema import LatencyTable


@dataclass(frozen=True)
class DerivedNetwork:
    """A network that was derived for a target.

    ``tables`` and ``table_files`` (paths in the run) are by device name; there are several where the budget names
    devices. ``claims_budget`` is false for a network of other sizes than the target network, whose latency the tables
    cannot predict. ``trained`` is false for a target network with random weights.
    """

    id: str
    folder: Path
    table_files: Mapping[str, str]
    tables: Mapping[str, LatencyTable]
    sized: SizedSpace
    architecture: Architecture
    budget: Budget
    claims_budget: bool = field(default=True, kw_only=True)
    trained: bool = field(default=True, kw_only=True)

    def onnx_file(self, precision: str = FLOAT32) -> Path:
        return self.folder / NETWORK_FILES[precision]

    @property
    def joint(self) -> bool:
        """True where the budget names devices, as then its metrics do."""
        return names_devices(self.budget.text)

    @property
    def device(self) -> str:
        return ", ".join(self.tables)

    def latency_metric(self, device: str) -> str:
        """Return the name of the metric that is the latency on one of the devices."""
        return (LATENCY.on(device) if self.joint else LATENCY).name

    def cost_models(self) -> dict[str, CostFunction]:
        """Return a model for every metric; only those that depend on no device where no budget is claimed."""
        if not self.claims_budget:
            return count_metrics(self.sized)
        models = {device: build_metrics(table, self.sized) for device, table in self.tables.items()}
        return joint_models(models) if self.joint else models[self.device]


@dataclass(frozen=True)
class SavedNetwork(DerivedNetwork):
    """A network read back from its folder in ``run``. ``weights`` is the file with the weights of the ONNX file."""

    run: Path
    weights: Path
    content: ArchitectureFile

    def child(self) -> ChildNetwork:
        """Build the network with its weights. Raises HwnasError when they are missing or damaged."""
        child = ChildNetwork(self.sized, self.architecture, prune=True)
        load_weights(child, self.weights)
        return child
