"""Latency table, format 1: what a device takes for every workload, and how far to trust it.

A table from a stranger is untrusted text: it is size-limited, schema-checked, holds finite numbers only, and its
SHA-256 must match. Units live in field names. Nothing here imports torch.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from hwnas.files import sha256_of
from hwnas.spaces import Workload

FORMAT = "hwnas-latency-table"
VERSION = 1

Milliseconds = Annotated[FiniteFloat, Field(ge=0)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Name = Annotated[str, Field(max_length=200)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Device(Strict):
    """The machine. ``fingerprint`` is the same whenever a table would still describe it."""

    name: Name
    kind: Literal["cpu", "gpu", "mobile", "embedded", "browser", "accelerator"]
    model: Name
    cores: int = Field(ge=0)
    memory_bytes: int = Field(ge=0)
    os: Name
    fingerprint: Name


class Runtime(Strict):
    """What ran the models. Tables that differ in any of these never mix."""

    name: Name
    version: Name
    provider: Name
    precision: Name = "float32"
    threads: int = Field(ge=1)
    batch: int = Field(ge=1)
    options: dict[Name, bool | int | FiniteFloat | Name] = {}


class Protocol(Strict):
    """How it was measured.

    ``rounds`` are the readings meant for an entry, spread over ``processes`` of the profiler; what is settled early has
    fewer, what is not has more (``samples``). ``processors`` are those it kept to, ``governor`` ruled their frequency,
    ``load`` is the number of programs that ran before it began, ``waited`` the share of readings in which it had to
    wait for a processor (they are not used), ``stolen`` the share of time that a virtual machine's host took away. None
    where the system does not say. Of a table that was added to, they tell of the newest entries.
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
    date: Name
    tool_version: Name


class Additivity(Strict):
    """How well sums of entries predict whole networks that were never used for fitting.

    ``kendall_tau`` is None where it is undefined: one network alone, or all predicted equal.
    ``floor`` is the mean absolute percentage difference between two halves of the same networks' own measurements, None
    where one process alone timed them.
    """

    networks: int = Field(ge=1)
    mape: FiniteFloat
    within_5_percent: Share
    within_10_percent: Share
    kendall_tau: FiniteFloat | None
    worst: FiniteFloat
    bias: FiniteFloat
    floor: FiniteFloat | None

    def describe(self) -> str:
        floor = "not known" if self.floor is None else f"{self.floor:.1f} %"
        tau = "undefined" if self.kendall_tau is None else f"{self.kendall_tau:.3f}"
        return (
            f"{self.networks} held-out networks: mean error {self.mape:.1f} %, "
            f"{self.within_10_percent:.0%} within 10 %, Kendall tau {tau} "
            f"(the same networks timed twice: {floor})"
        )


class Correction(Strict):
    """latency of a network = offset_ms + the sum of its entries, each times the factor of its family.

    A family that ``factors`` does not name has the factor ``scale`` (``max_pool`` that of ``pool``). ``rewrites`` are
    what the runtime's optimiser does to a cell (hwnas.cost.structure). Fitted on ``networks`` whole networks.
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


class MeasuredNetwork(Strict):
    """A whole network timed end to end. ``fitted`` says whether the correction has seen it; ``error_ms`` is None when
    one process alone timed it.
    """

    architecture: Annotated[str, Field(max_length=4000)]
    latency_ms: Milliseconds
    error_ms: Milliseconds | None
    fitted: bool


class Quality(Strict):
    """``sentinel_ms`` is the reference workload's latency in the state of the machine that all entries are scaled to;
    ``sentinel_drift`` the share by which it moved (90th over 10th percentile, minus one). ``unstable`` names the
    entries whose error is larger than asked for, ``noise`` says why the machine was too noisy for a table that deserves
    trust, where its maker took one all the same. Keys of ``additivity`` and ``residual`` name a network,
    ``space/sizes``: the report on sums of entries, and on the same with the residual predictor.
    """

    sentinel_ms: Milliseconds | None = None
    sentinel_drift: FiniteFloat | None = None
    worst_relative_iqr: FiniteFloat | None = None
    worst_relative_error: FiniteFloat | None = None
    unstable: list[Name] = []
    noise: list[Name] = []
    additivity: dict[Name, Additivity] = {}
    residual: dict[Name, Additivity] = {}


class Entry(Strict):
    """One workload's latency: ``error_ms`` is the half width of its 95 % interval (None: not known), ``p10_ms`` and
    ``p90_ms`` the spread of ``samples`` single readings. ``macs`` as fvcore counts them, ``macs_conv_linear`` as
    NAS-Bench-201 lists them.
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


class LatencyTable(Strict):
    """A whole table. ``sha256`` covers the canonical JSON of everything else."""

    format: Literal["hwnas-latency-table"] = "hwnas-latency-table"
    version: Literal[1] = 1
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

    @model_validator(mode="after")
    def _one_entry_a_workload(self) -> LatencyTable:
        keys = [entry.workload.key for entry in self.entries]
        if len(set(keys)) != len(keys):
            raise ValueError(f"workload {next(k for k in keys if keys.count(k) > 1)} stands twice")
        return self

    def content(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @property
    def sha256(self) -> str:
        return sha256_of(self.content())

    @property
    def noise_warning(self) -> str:
        """What whoever uses the table must know; empty where there is nothing to warn of."""
        if not self.quality.noise:
            return ""
        return f"warning: made on a noisy machine ({'; '.join(self.quality.noise)}); measure anew when it is quiet"

    def describe(self) -> str:
        runtime = self.runtime
        return (
            f"{self.device.name}, {runtime.name} {runtime.version} ({runtime.provider}), {runtime.precision}, "
            f"{runtime.threads} thread{'s' * (runtime.threads > 1)}, batch {runtime.batch}"
        )


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
