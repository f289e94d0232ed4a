"""Schema of latency tables: the latency of every workload on a device, and its accuracy. FORMAT.md lists all fields.

A table is untrusted text: its size is limited, all fields are checked, numbers are finite, and its SHA-256 must match.
Field names contain units. Does not import torch.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from hwnas.files import sha256_of
from hwnas.spaces import NONE, Workload

SCHEMA_FILE = Path(__file__).with_name("latency-table.schema.json")
FORMAT = "hwnas-latency-table"
# 1 (hwnas 0.1): one entry for each workload.
# 2: also edge_costs, for devices on which only whole networks were timed. A table without them is written as version 1.
VERSIONS = (1, 2)
NOT_KNOWN = "not known"

Milliseconds = Annotated[FiniteFloat, Field(ge=0)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Name = Annotated[str, Field(max_length=200)]
Grid = Annotated[list[list[FiniteFloat]], Field(max_length=1_000)]
# Reports of useless predictions. Ten honest readings of the thirteen published devices, fitted without other devices,
# have errors of up to 34 %; twenty have a Kendall tau of at least 0.3.
POOR_MAPE = 50.0  # percent
POOR_TAU, POOR_TAU_MAPE, POOR_TAU_NETWORKS = 0.2, 10.0, 20
Counts = Annotated[list[list[Annotated[int, Field(ge=0)]]], Field(max_length=1_000)]


class TableModel(BaseModel):
    """Base of all parts of a table: immutable, and unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Device(TableModel):
    """The machine. ``fingerprint`` changes with the hardware or system. 0 cores and 0 bytes mean unknown."""

    name: Name
    kind: Literal["cpu", "gpu", "mobile", "embedded", "browser", "accelerator", "unknown"]
    model: Name
    cores: int = Field(ge=0)
    memory_bytes: int = Field(ge=0)
    os: Name
    fingerprint: Name


class Runtime(TableModel):
    """The runtime of the models. Tables that differ in it are never merged. 0 threads and batch 0 mean unknown.

    ``options`` are its settings, and ``opset`` is the ONNX opset of the models where it is not 18.
    """

    name: Name
    version: Name
    provider: Name
    precision: Name = "float32"
    threads: int = Field(ge=0)
    batch: int = Field(ge=0)
    options: dict[Name, bool | int | FiniteFloat | Name] = {}


class Gpu(TableModel):
    """The state of the GPU right after the runs, over the processes: the least clocks, the most heat and power.

    ``number`` is that of the device for its runtime (``cuda:N``), ``slowed_by`` are the reasons that the driver gave
    for clocks below the maximum. None means that the driver does not report it.
    """

    number: int = Field(ge=0)
    driver: Name | None = None
    sm_clock_mhz: FiniteFloat | None = None
    max_sm_clock_mhz: FiniteFloat | None = None
    memory_clock_mhz: FiniteFloat | None = None
    temperature_c: FiniteFloat | None = None
    power_w: FiniteFloat | None = None
    power_limit_w: FiniteFloat | None = None
    slowed_by: list[Name] = []

    def describe(self) -> str:
        of = "" if self.max_sm_clock_mhz is None else f" of {self.max_sm_clock_mhz:.0f}"
        limit = "" if self.power_limit_w is None else f" of {self.power_limit_w:.0f}"
        known = [
            ("driver {}", self.driver),
            ("{:.0f}" + of + " MHz", self.sm_clock_mhz),
            ("{:.0f} °C", self.temperature_c),
            ("{:.0f}" + limit + " W", self.power_w),
            ("slowed by {}", ", ".join(self.slowed_by) or None),
        ]
        return "; ".join([f"cuda:{self.number}", *(form.format(v) for form, v in known if v is not None)])


class Protocol(TableModel):
    """The measurement.

    ``rounds`` is the planned number of readings for an entry, spread over ``processes`` of the profiler; entries that
    settle early have fewer, others more (``samples``). ``processors`` are the processors it was pinned to, ``governor``
    their frequency governor, ``load`` the number of running programs before the start, ``waited`` the share of readings
    that waited for a processor (they are not used), and ``stolen`` the share of time taken by the host of a virtual
    machine. ``gpu`` is the GPU that was timed, if it was one; ``clock_ms`` the smallest step of the clock. None means
    that the system does not report it. After an addition to a table, they describe the newest entries.
    """

    version: int
    statistic: Name
    rounds: int = Field(ge=0)
    processes: int | None = None
    visit_ms: Milliseconds
    warmup_runs: int | None = None
    warmup_ms: Milliseconds | None = None
    processors: list[int] | None = None
    governor: Name | None = None
    load: FiniteFloat | None = None
    waited: Share | None = None
    stolen: Share | None = None
    gpu: Gpu | None = None
    clock_ms: Milliseconds | None = None
    date: Name
    tool_version: Name


class Additivity(TableModel):
    """Accuracy of sums of entries on whole networks that were not used for fitting.

    ``kendall_tau`` is None when it is undefined: a single network, or equal predictions. ``floor`` is the mean absolute
    percentage difference between two halves of the same networks' measurements, None when one process timed them.
    """

    networks: int = Field(ge=1)
    mape: FiniteFloat
    within_5_percent: Share
    within_10_percent: Share
    kendall_tau: FiniteFloat | None
    worst: FiniteFloat
    bias: FiniteFloat
    floor: FiniteFloat | None

    @property
    def problem(self) -> str:
        """Why the predictions are useless: a mean error above 50 %, or above 10 % with hardly a rank correlation.

        Empty otherwise. Networks that all take about as long have no ranking to predict.
        """
        if self.mape > POOR_MAPE:
            return f"held-out networks are predicted with a mean error of {self.mape:.0f} %"
        tau = self.kendall_tau
        if tau is None or tau >= POOR_TAU or self.mape <= POOR_TAU_MAPE or self.networks < POOR_TAU_NETWORKS:
            return ""
        return f"held-out networks are ranked hardly better than by chance (Kendall tau {tau:.2f})"

    def describe(self) -> str:
        floor = "not known" if self.floor is None else f"{self.floor:.1f} %"
        tau = "undefined" if self.kendall_tau is None else f"{self.kendall_tau:.3f}"
        return (
            f"{self.networks} held-out networks: mean error {self.mape:.1f} %, "
            f"{self.within_10_percent:.0%} within 10 %, Kendall tau {tau} "
            f"(the same networks timed twice: {floor})"
        )


class Correction(TableModel):
    """latency of a network = offset_ms + the sum of its entries, each times the factor of its family.

    A family that is not in ``factors`` has the factor ``scale`` (``max_pool`` that of ``pool``). ``rewrites`` are the
    changes that the runtime's optimiser makes to a cell (hwnas.cost.fusion). Fitted on ``networks`` whole networks.
    """

    offset_ms: FiniteFloat
    scale: Annotated[FiniteFloat, Field(gt=0)]
    factors: dict[Name, Annotated[FiniteFloat, Field(ge=0)]] = {}
    rewrites: list[Literal["share", "fuse"]] = []
    networks: int = Field(ge=0)

    def factor(self, family: str) -> float:
        if family == "max_pool" and family not in self.factors:
            family = "pool"
        return self.factors.get(family, self.scale)

    def describe(self) -> str:
        factors = "".join(f", {name} {factor:.3g}" for name, factor in self.factors.items())
        rewrites = f", runtime: {' and '.join(self.rewrites)}" if self.rewrites else ""
        return f"latency = {self.offset_ms:.4g} ms + {self.scale:.4g} x sum{factors}{rewrites}"


class MeasuredNetwork(TableModel):
    """A whole network timed end to end. ``fitted`` is true when the correction was fitted on it; ``error_ms`` is None
    when a single process timed it.
    """

    architecture: Annotated[str, Field(max_length=4000)]
    latency_ms: Milliseconds
    error_ms: Milliseconds | None
    fitted: bool


class Quality(TableModel):
    """Quality of the measurement.

    ``sentinel_ms`` is the latency of the reference workload at the machine speed that all entries are scaled to,
    ``sentinel_drift`` its relative change (90th over 10th percentile, minus one). ``unstable`` names the entries with a
    larger error than required, ``noise`` the reasons why the machine was too noisy for a reliable table. The keys of
    ``additivity`` and ``residual`` are networks, ``space/sizes``: accuracy of sums of entries, and of the same with the
    residual predictor; those of ``suspect_readings`` too: reasons to doubt the readings that its costs were fitted to.
    """

    sentinel_ms: Milliseconds | None = None
    sentinel_drift: FiniteFloat | None = None
    worst_relative_iqr: FiniteFloat | None = None
    worst_relative_error: FiniteFloat | None = None
    unstable: list[Name] = []
    noise: list[Name] = []
    additivity: dict[Name, Additivity] = {}
    residual: dict[Name, Additivity] = {}
    suspect_readings: dict[Name, list[Name]] = {}


class Entry(TableModel):
    """The latency of one workload.

    ``error_ms`` is the half width of its 95 % interval (None: unknown), ``p10_ms`` and ``p90_ms`` are percentiles of
    ``samples`` single readings. ``macs`` are counted as by fvcore, ``macs_conv_linear`` as in NAS-Bench-201.
    """

    op: Name
    in_channels: int = Field(ge=1)
    out_channels: int = Field(ge=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    stride: int = Field(ge=1)
    latency_ms: Milliseconds
    error_ms: Milliseconds | None = None
    p10_ms: FiniteFloat
    p90_ms: FiniteFloat
    samples: int = Field(ge=0)
    macs: int = Field(ge=0)
    macs_conv_linear: int = Field(ge=0)
    params: int = Field(ge=0)

    @property
    def workload(self) -> Workload:
        return Workload(self.op, self.in_channels, self.out_channels, self.height, self.width, self.stride)


class CellCosts(TableModel):
    """Costs of one cell kind, summed over all its cells in the network; each field is [edges, operations].

    ``live_ms`` applies when the edge lies on a path from an input to an output, ``always_ms`` in any case (torch runs
    dead edges, compiled runtimes remove them). ``error_ms`` is the half width of the 95 % interval of their sum.
    ``macs`` follow the space's convention.
    """

    live_ms: Grid
    always_ms: Grid
    error_ms: Grid
    macs: Counts
    params: Counts

    @model_validator(mode="after")
    def _of_one_shape(self) -> CellCosts:
        grids = (self.live_ms, self.always_ms, self.error_ms, self.macs, self.params)
        if len({tuple(len(row) for row in grid) for grid in grids}) != 1 or len({len(row) for row in self.macs}) != 1:
            raise ValueError("its lists are not all of one shape")
        if any(value < 0 for row in self.error_ms for value in row):
            raise ValueError("an error is negative")
        return self


class EdgeCosts(TableModel):
    """Costs of each operation on each edge of a network, fitted to the latencies of whole networks.

    latency = base_ms + the sum over edges of always_ms, plus live_ms for live edges. ``covariance`` is the lower
    triangle of the covariance of these numbers: base_ms, then for each cell always_ms and live_ms, row by row, without
    ``none``. A single latency scatters around the sum by ``scatter_ms`` and by ``scatter_share`` of itself, the scales
    of a Student's t distribution with ``degrees_of_freedom``. Fitted to ``measurements`` networks and, if there is one,
    a prior from the devices in ``pool``.
    """

    operations: list[Name]
    base_ms: FiniteFloat
    base_macs: int = Field(ge=0)
    base_params: int = Field(ge=0)
    cells: dict[Name, CellCosts]
    covariance: list[list[FiniteFloat]] = Field(max_length=2_000)
    scatter_ms: Milliseconds
    scatter_share: Annotated[FiniteFloat, Field(ge=0)]
    degrees_of_freedom: Annotated[FiniteFloat, Field(gt=2)]
    measurements: int = Field(ge=1)
    pool: list[Name] = []

    @model_validator(mode="after")
    def _of_one_size(self) -> EdgeCosts:
        if NONE not in self.operations:
            raise ValueError("operations lack none")
        if any(len(row) != len(self.operations) for cell in self.cells.values() for row in cell.macs):
            raise ValueError("cells do not have one number an operation")
        edges = sum(len(cell.macs) for cell in self.cells.values())
        size = 1 + 2 * edges * (len(self.operations) - 1)
        if [len(row) for row in self.covariance] != list(range(1, size + 1)):
            raise ValueError(f"covariance is not the lower triangle of {size} x {size}")
        if any(row[-1] < 0 for row in self.covariance):
            raise ValueError("a variance is negative")
        return self


class LatencyTable(TableModel):
    """A latency table. ``sha256`` covers the canonical JSON of all other fields.

    The keys of ``edge_costs`` are networks; it is empty when ``entries`` hold the latencies.
    """

    format: Literal["hwnas-latency-table"] = "hwnas-latency-table"
    version: Literal[1, 2] = 1
    device: Device
    runtime: Runtime
    protocol: Protocol
    quality: Quality
    correction: dict[Name, Correction] = {}
    networks: dict[Name, list[MeasuredNetwork]] = {}
    provenance: Literal["measured", "fitted", "transferred"]
    source: Name = ""
    licence: Name = ""
    entries: list[Entry] = Field(max_length=100_000)
    edge_costs: dict[Name, EdgeCosts] = {}

    @model_validator(mode="after")
    def _of_its_version(self) -> LatencyTable:
        if self.edge_costs and self.version < 2:
            raise ValueError("edge_costs are of version 2")
        return self

    @model_validator(mode="after")
    def _one_entry_a_workload(self) -> LatencyTable:
        keys = [entry.workload.key for entry in self.entries]
        if len(set(keys)) != len(keys):
            raise ValueError(f"workload {next(k for k in keys if keys.count(k) > 1)} occurs twice")
        return self

    def content(self) -> dict[str, Any]:
        """Return all fields but the hash as JSON. Empty newer ones are left out: older tables keep their hash."""
        content = self.model_dump(mode="json", exclude={"edge_costs"} if self.version < 2 else None)
        if not self.quality.suspect_readings:
            del content["quality"]["suspect_readings"]
        for name in [name for name in ("gpu", "clock_ms") if content["protocol"][name] is None]:
            del content["protocol"][name]
        return content

    @property
    def hardware(self) -> str:
        """The hardware that it describes, as in a device spec: ``cpu``, ``cuda:N``, ``browser`` or ``page``."""
        if self.device.kind == "gpu":
            return f"cuda:{self.protocol.gpu.number if self.protocol.gpu else 0}"
        browser = "page" if self.runtime.options.get("page") else "browser"
        return browser if self.device.kind == "browser" else "cpu"

    @property
    def sha256(self) -> str:
        return sha256_of(self.content())

    @property
    def warnings(self) -> list[str]:
        """Warnings for users of the table: a noisy machine, suspect readings, useless predictions of a network."""
        quality, found = self.quality, []
        if quality.noise:
            found.append(f"made on a noisy machine ({'; '.join(quality.noise)}); measure again when it is quiet")
        for key in dict.fromkeys((*quality.suspect_readings, *quality.additivity)):
            report = quality.additivity.get(key)
            reasons = [*quality.suspect_readings.get(key, []), report.problem if report else ""]
            if any(reasons):
                found.append(f"do not rely on its latencies of {key}: {'; '.join(filter(None, reasons))}")
        return [f"warning: {text}" for text in found]

    def describe(self) -> str:
        runtime = self.runtime
        threads = f"{runtime.threads} thread{'s' * (runtime.threads > 1)}" if runtime.threads else "threads not known"
        batch = f"batch {runtime.batch}" if runtime.batch else "batch not known"
        version = f" {runtime.version}" * (runtime.version != NOT_KNOWN)
        provider = f" ({runtime.provider})" * (runtime.provider != NOT_KNOWN)
        name = runtime.name if runtime.name != NOT_KNOWN else "runtime not known"
        precision = runtime.precision if runtime.precision != NOT_KNOWN else "precision not known"
        opset = f", opset {runtime.options['opset']}" if "opset" in runtime.options else ""
        return f"{self.device.name}, {name}{version}{provider}, {precision}{opset}, {threads}, {batch}"


def today() -> str:
    """Return the time in UTC as YYYY-MM-DDTHH:MM:SSZ."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
