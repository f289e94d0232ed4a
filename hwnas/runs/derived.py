"""A target's network: its architecture, sizes and budget, its latency tables and the folder that holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hwnas.budgets.budget import Budget
from hwnas.budgets.text import names_devices
from hwnas.cost.build import CostFunction, build_metrics, joint_models
from hwnas.cost.counts import count_metrics
from hwnas.cost.metric import LATENCY, MACS, PARAMS
from hwnas.export.formats import FORMATS
from hwnas.export.network import NETWORK, NETWORK_FLOAT16, NETWORK_INT8, load_weights
from hwnas.networks.channels.narrow import set_layer_widths
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count
from hwnas.networks.deployed import deployed, deployed_inputs
from hwnas.runs.pruning_schema import PruningResult
from hwnas.runs.schema import ArchitectureFile
from hwnas.runtimes.device_spec import DeviceSpec
from hwnas.runtimes.float16 import FLOAT16
from hwnas.runtimes.int8 import INT8
from hwnas.runtimes.runtime import Runtime
from hwnas.spaces import Architecture, SizedSpace
from hwnas.tables.schema import LatencyTable


@dataclass(frozen=True)
class DerivedNetwork:
    """A network that was derived for a target.

    ``tables`` and ``table_files`` (paths in the run) are by device name; there are several where the budget names
    devices. ``claims_budget`` is false for a network of other sizes than the target network, whose latency the tables
    cannot predict. ``trained`` is false for a target network with random weights. ``pruning`` has the widths of the
    layers of a pruned network, which no table predicts either, but whose own budget is claimed.
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
    pruning: PruningResult | None = field(default=None, kw_only=True)

    @property
    def onnx_file(self) -> Path:
        """The network in single precision."""
        return self.folder / NETWORK

    @property
    def float16_file(self) -> Path:
        """The network in half precision, written for tables of it."""
        return self.folder / NETWORK_FLOAT16

    def int8_file(self, runtime: Runtime) -> Path:
        """Return the file of the network in int8 for a runtime."""
        return self.folder / f"{NETWORK_INT8}{runtime.suffix}"

    def file_for(self, spec: DeviceSpec) -> Path:
        """Return the file with the network in the precision of a device spec."""
        if spec.file_precision == FLOAT16:
            return self.float16_file
        return self.int8_file(spec.runtime) if spec.precision == INT8 else self.onnx_file

    def int8_files(self) -> list[Path]:
        """Return the files of the network in int8 that exist."""
        return sorted(self.folder.glob(f"{NETWORK_INT8}.*"))

    def converted_files(self) -> list[Path]:
        """Return the files of the network in other formats that exist."""
        stem = self.onnx_file.stem
        names = [stem + suffix for name, found in FORMATS.items() if name != "onnx" for suffix in found.suffixes]
        return [file for file in (self.folder / name for name in names) if file.exists()]

    @property
    def joint(self) -> bool:
        """True where the network is for several devices or its budget names one, as then metrics do."""
        return names_devices(self.budget.text) or len(self.tables) > 1

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

    def costs(self) -> dict[str, float]:
        """Return the network's cost in every metric; for a pruned one those that are counted on the network itself."""
        if not self.pruning:
            return {metric: model.predict(self.architecture) for metric, model in self.cost_models().items()}
        counted = count(deployed(self.build()), *deployed_inputs(self.sized.setting))
        return {MACS.name: counted.macs(self.sized.space.macs_convention), PARAMS.name: counted.params}

    def build(self) -> ChildNetwork:
        """Build the network with random weights. Raises HwnasError where the widths of a pruned one are invalid."""
        child = ChildNetwork(self.sized, self.architecture, prune=True)
        if self.pruning:
            set_layer_widths(child, self.pruning.layers, str(self.folder))
        return child


@dataclass(frozen=True)
class SavedNetwork(DerivedNetwork):
    """A network read back from its folder in ``run``. ``weights`` is the file with the weights of the ONNX file."""

    run: Path
    weights: Path
    content: ArchitectureFile

    def child(self) -> ChildNetwork:
        """Build the network with its weights. Raises HwnasError when they are missing or damaged."""
        child = self.build()
        load_weights(child, self.weights)
        return child
