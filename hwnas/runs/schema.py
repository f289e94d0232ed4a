"""Schema of a run's folder: one model for every JSON file and row in it. Imports no torch.

Writers set the fields that they know; ``to_json`` writes these and no others. Readers accept folders of older versions,
in which fields may be missing, and keep fields of newer ones. ``manifest.json`` is
hwnas.runs.manifest_schema.Manifest, the rows of ``metrics.jsonl`` are hwnas.search.epoch_row.EpochRow, those of
``training.jsonl`` hwnas.training.training_row.TrainingRow, the tables of ``profile/steps.json``
hwnas.training.step_table.StepTable. The outcome of pruning is hwnas.runs.pruning_schema.PruningResult.

After a change here run ``python -m tools.run_folder_page``, which writes the JSON Schema and its page.

Accuracies are shares from 0 to 1, latencies are in milliseconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, model_validator

from hwnas.runs.pruning_schema import PruningResult
from hwnas.runs.record_units import Accuracy, Milliseconds
from hwnas.runs.text_schema import Perplexities, TextScores
from hwnas.validation import Record

SCHEMA_FILE = Path(__file__).with_name("run-folder.schema.json")


# Parts of several files


class Limits(Record):
    """A budget: the user's text, and the upper bounds by metric."""

    text: str
    limits: dict[str, FiniteFloat]


class Parity(Record):
    """ONNX Runtime compared with torch on ``images`` images: real ones, unless ``random_images`` is true."""

    images: int
    greatest_difference: FiniteFloat
    greatest_score: FiniteFloat | None = None
    same_class: Accuracy
    random_images: bool = False


class Int8Result(Record):
    """The quantised network of a search for an int8 table: its file in the target's folder, its accuracies.

    They are None for an untrained network.
    """

    onnx: str
    validation_accuracy: Accuracy | None
    test_accuracy: Accuracy | None


class ProxyResult(Perplexities):
    """The proxy of a target network: the same cells in a network of the search network's sizes, ``setting``.

    It is trained on the images ``data`` of the search, from the supernet's weights. ``accuracy`` is that on the test
    split. Its weights and training history are in the folder ``proxy`` of the target.
    """

    setting: dict[str, Any]
    data: str
    accuracy: Accuracy
    validation_accuracy: Accuracy
    validation_accuracy_before_training: Accuracy
    child_epochs: int


class TrainingResult(Record):
    """The outcome of ``hwnas train``: ``exported`` is "last" or "best", ``stopped`` the reason of an early end.

    ``teacher_sha256`` names the weights of the teacher, where there was one.
    """

    recipe: str
    settings: dict[str, Any]
    epochs: int
    exported: Literal["last", "best"]
    best_epoch: int
    stopped: str
    teacher_sha256: str = ""


class Derivation(Record):
    """A row of ``derivations.json``: an architecture that was derived and, with ``--verify``, timed.

    ``value`` is the method's value of it. For a budget that names devices, ``bound_ms``, ``predicted_ms`` and
    ``measured_ms`` are written once for each device, as ``bound_ms@phone``. ``taken`` marks the exported one.
    """

    architecture: str
    value: FiniteFloat
    bound_ms: Milliseconds | None = None
    predicted_ms: Milliseconds | None = None
    measured_ms: Milliseconds | None = None
    taken: bool


# verification.json and the latencies in summary.json


class Timing(Record):
    """A latency; ``measured_ms`` and the fields after it are None until the network has been timed.

    ``predicted_ms`` is None for a pruned network, whose widths no table has.

    ``measured_ms`` is in the machine's state when the table was measured, ``measured_raw_ms`` as timed now.
    ``kept`` is false when a limit is broken, by more than the measurement error where it is a limit on latency.
    ``trained`` is false where the network has random weights, on which latency does not depend.
    """

    target: str = ""
    device: str
    budget: str = ""
    trained: bool = True
    budget_ms: Milliseconds | None = None
    predicted_ms: Milliseconds | None = None
    measured_ms: Milliseconds | None = None
    measured_error_ms: Milliseconds | None = None
    measured_raw_ms: Milliseconds | None = None
    machine_slowdown: FiniteFloat | None = None
    kept: bool | None = None
    timed_on: str | None = None


class DeviceTiming(Timing):
    """A target's latency on one device."""

    predicted_ms: Milliseconds | None

    @property
    def latency_ms(self) -> float:
        """The measured latency or, before a measurement, the predicted one."""
        found = self.predicted_ms if self.measured_ms is None else self.measured_ms
        assert found is not None  # only a pruned network has no prediction, and no summary holds one
        return found


class TimedNetwork(Timing):
    """A target's latency: in its own fields for one device, in ``devices`` where the budget names devices."""

    devices: list[DeviceTiming] | None = None

    @model_validator(mode="after")
    def _check_timings(self) -> TimedNetwork:
        if self.devices is None and "predicted_ms" not in self.model_fields_set:
            raise ValueError("predicted_ms is missing")
        return self

    @property
    def timings(self) -> list[DeviceTiming]:
        """The latencies, one for each device."""
        if self.devices is not None:
            return self.devices
        names = self.model_fields_set & DeviceTiming.model_fields.keys()
        return [DeviceTiming.model_validate({name: getattr(self, name) for name in names})]


class Verification(TimedNetwork):
    """``verification.json``: a target's networks timed again on its devices."""

    date: str


# summary.json


FOUND = "found"


class ComparedNetwork(Record):
    """A network that was trained as the finalists were, for ``epochs``: the one found, or a baseline within its budget.

    ``name`` is "found", "random", "most MACs" or "most parameters"; ``is_found`` is true for every network that is the
    one found. ``validation_accuracy`` and ``validation_loss`` (in nats, by which finalists are compared) are those of
    the finalists' network; None where the network was not trained as long (as one that --verify chose later), or its
    training diverged. Older runs have no loss. Costs are of the target network: ``predicted_ms`` by device, and
    ``share`` of the limit that it comes closest to.
    """

    name: str
    is_found: bool
    architecture: str
    epochs: int
    validation_accuracy: Accuracy | None
    validation_loss: FiniteFloat | None = None
    macs: int
    params: int
    predicted_ms: dict[str, Milliseconds]
    share: FiniteFloat

    def describe(self) -> list[str]:
        """Return as texts: the name, validation loss and accuracy, latencies, and the share of the budget."""
        loss, accuracy = self.validation_loss, self.validation_accuracy
        return [
            self.name + ", the network found" * (self.is_found and self.name != FOUND),
            "–" if loss is None else f"{loss:.3f}",
            "–" if accuracy is None else f"{accuracy:.1%}",
            ", ".join(
                f"{ms:.4g} ms" + f" on {device}" * (len(self.predicted_ms) > 1)
                for device, ms in self.predicted_ms.items()
            ),
            f"{self.share:.0%}",
        ]


class NetworkRow(Perplexities):
    """A network that was exported: its costs, accuracies and files.

    ``no_claim`` is the reason why no budget is claimed, for a network of other sizes than the target network.
    ``trained`` is false for a target network with random weights: its accuracies are None, and only those of its
    ``proxy`` are known.
    """

    target: str = ""
    device: str
    budget: str
    architecture: str
    macs: int
    params: int
    memory_access_bytes: int | None = None
    peak_activation_bytes: int | None = None
    trained: bool = True
    accuracy: Accuracy | None
    parity: Parity | None = None
    onnx: str = ""
    int8: Int8Result | None = None
    validation_accuracy: Accuracy | None
    validation_accuracy_before_training: Accuracy | None
    child_epochs: int
    proxy: ProxyResult | None = None
    derivations: list[Derivation] = Field(default_factory=list)
    training: TrainingResult | None = None
    pruning: PruningResult | None = None
    no_claim: str = ""

    @model_validator(mode="after")
    def _check_accuracy(self) -> NetworkRow:
        if self.trained and self.accuracy is None:
            raise ValueError("accuracy is missing")
        if not self.trained and self.proxy is None:
            raise ValueError("proxy is missing")
        return self


class SummaryRow(NetworkRow, TimedNetwork):
    """A target of ``summary.json``. ``accuracy`` is that of the ONNX file on the test split.

    ``comparison`` has the network found and baselines within its budget, where finalists were trained and baselines
    were not left out.
    """

    limits: dict[str, FiniteFloat]
    comparison: list[ComparedNetwork] = Field(default_factory=list)


class Summary(Record):
    """``summary.json``: the targets in their order, and the hashes of the tables by device name."""

    targets: list[SummaryRow] = Field(min_length=1)
    finished: str = ""
    tables: dict[str, str] = Field(default_factory=dict)


# The folder of a target


class ArchitectureFile(Perplexities):
    """``architecture.json``: everything needed to build, evaluate and time an exported network again.

    ``table`` and ``table_sha256`` are replaced by ``tables`` and ``tables_sha256``, by device name, where the budget
    names devices. ``trained`` is false for a target network with random weights; ``data`` are its images, None where
    none are known.
    """

    target: str = ""
    space: str
    setting: dict[str, Any]
    architecture: str
    budget: Limits
    claims_budget: bool = True
    trained: bool = True
    costs: dict[str, FiniteFloat] = Field(default_factory=dict)
    macs_convention: str = ""
    device: str = ""
    table: str | None = None
    table_sha256: str | None = None
    tables: dict[str, str] | None = None
    tables_sha256: dict[str, str] | None = None
    data: str | None
    parity: Parity | None = None
    test_accuracy: Accuracy | None = None
    int8: Int8Result | None = None
    validation_accuracy: Accuracy | None = None
    validation_accuracy_before_training: Accuracy | None = None
    child_epochs: int = 0
    proxy: ProxyResult | None = None
    training: TrainingResult | None = None
    pruning: PruningResult | None = None

    @model_validator(mode="after")
    def _check_tables(self) -> ArchitectureFile:
        if self.tables is None and self.table is None:
            raise ValueError("table is missing")
        return self

    @property
    def table_files(self) -> dict[str, str]:
        """The latency tables by device name, as paths in the run."""
        return {self.device: self.table} if self.table is not None else dict(self.tables or {})

    @property
    def exported_weights(self) -> str:
        """The name of the weights that the ONNX file holds: "last" or "best"."""
        return self.training.exported if self.training else "last"


class QuantizedTiming(Record):
    """Both networks timed in interleaved rounds on one device."""

    float32_ms: Milliseconds
    float32_error_ms: Milliseconds
    int8_ms: Milliseconds
    int8_error_ms: Milliseconds
    times_as_long: FiniteFloat
    machine_slowdown: FiniteFloat | None = None
    timed_on: str


ByPrecision = Annotated[dict[str, FiniteFloat], Field(description="A number for float32 and one for int8.")]


class QuantizationRow(Record):
    """``quantization.json``: a network in int8 compared with the same in float32.

    ``accuracy`` is by split, ``latency`` by device name, ``warnings`` are the reasons not to use the int8 network.
    """

    target: str = ""
    device: str
    budget: str
    onnx: str
    accuracy: dict[str, ByPrecision]
    latency: dict[str, QuantizedTiming]
    bytes: dict[str, int]
    settings: dict[str, Any]
    warnings: list[str]
    date: str = ""


# Rows that commands print, in no file


class RuntimeScores(Record):
    """The accuracy of one runtime's scores; ``confusion[i][j]`` counts images of class i classified as class j.

    ``top5_accuracy`` is None where there are no more than five classes.
    """

    accuracy: Accuracy
    top5_accuracy: Accuracy | None
    calibration_error: FiniteFloat
    confusion: list[list[int]]


class Measurement(Record):
    """A network timed on one device, as in ``Timing``."""

    device: str
    measured_ms: Milliseconds
    measured_error_ms: Milliseconds
    measured_raw_ms: Milliseconds
    machine_slowdown: FiniteFloat | None


class EvaluationRow(Record):
    """A target on the images of one split, evaluated by "onnx" and "torch", and by "float16", "int8" and "litert_int8"
    if there are files in these precisions.

    In JSON the fields of ``scores`` are those of the row, as ``onnx_accuracy``.
    """

    target: str = ""
    device: str
    budget: str
    images: int
    scores: dict[str, RuntimeScores | TextScores]
    latency: list[Measurement] = Field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        row = super().to_json()
        return row | {f"{runtime}_{name}": v for runtime, s in row.pop("scores").items() for name, v in s.items()}
