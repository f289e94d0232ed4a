"""Plan a profile: its workloads and networks, and their models in a folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hwnas import __version__
from hwnas.cost.fusion import pieces
from hwnas.errors import HwnasError
from hwnas.files import canonical_json, sha256_of
from hwnas.profiling.assemble import Assembled
from hwnas.profiling.models import SENTINEL, Whole, repeated, write_model
from hwnas.profiling.names import SENTINEL_NAME, network_names
from hwnas.profiling.protocol import PROTOCOL, Start
from hwnas.profiling.sample import random_architectures
from hwnas.progress import OnProgress
from hwnas.runtimes.device_spec import DeviceSpec
from hwnas.runtimes.int8 import FLOAT32
from hwnas.runtimes.registry import RUNTIMES
from hwnas.spaces import Architecture, SizedSpace, Workload
from hwnas.tables.io import read_table
from hwnas.tables.schema import LatencyTable
from hwnas.text import quoted

LEAST_PROCESSES = 3  # processes that time all models …
NETWORK_PROCESSES = 5  # … that time whole networks, which need not settle because a fit and a report use many …
MOST_PROCESSES = 1.5  # … and the limit for entries that do not settle, as a multiple of the plan's processes


@dataclass(frozen=True)
class ProfilePlan:
    """The content and length of a profile: rounds over all workloads, networks for the correction and for its report.

    ``minutes`` limits the timing, but neither the writing of models nor the first process of the profiler;
    ``remeasure`` times the unstable entries of a table again; ``accept_noise`` makes a table on a machine that is too
    noisy for one, and marks it. Raises HwnasError for a space of words on a runtime that cannot be given any.
    """

    spec: DeviceSpec
    sized: SizedSpace
    rounds: int = 30
    fit_networks: int = 30
    report_networks: int = 40
    minutes: float = math.inf
    remeasure: bool = False
    accept_noise: bool = False
    licence: str = ""

    def __post_init__(self) -> None:
        spec, space = self.spec, self.sized.space
        if space.is_recurrent and (not spec.runtime.words or spec.precision != FLOAT32):
            known = ", ".join(runtime.name for runtime in RUNTIMES.values() if runtime.words)
            raise HwnasError(
                f"networks of space {space.name} read words, which {spec.text} is not given",
                f"use float32 and one of the runtimes {known}, as with --device cpu",
            )

    @property
    def processes(self) -> int:
        """The processes of the profiler over which the rounds are spread."""
        return min(self.rounds, self.spec.runtime.processes)

    @property
    def least_processes(self) -> int:
        """The processes in which all models are timed."""
        return min(LEAST_PROCESSES, self.processes)

    @property
    def network_processes(self) -> int:
        """The processes in which whole networks are timed."""
        return min(NETWORK_PROCESSES, self.processes)

    @property
    def most_processes(self) -> int:
        """The processes after which an entry that is not settled is marked unstable."""
        return round(self.processes * MOST_PROCESSES)

    def networks(self) -> list[Architecture]:
        """Return the whole networks to time (hwnas.profiling.sample)."""
        return random_architectures(self.sized, self.fit_networks + self.report_networks)

    @property
    def rounds_each(self) -> int:
        """The rounds of one process."""
        return -(-self.rounds // self.processes)

    def needed(self) -> list[Workload]:
        """Return the workloads that a table of the network needs."""
        network = self.sized.network
        return [*network.workloads(), *pieces(network)]

    def workloads(self, before: LatencyTable | None) -> list[Workload]:
        """Return the workloads that the network needs and the existing table lacks."""
        known = {entry.workload for entry in before.entries} if before else set()
        return [workload for workload in self.needed() if workload not in known]

    def keep(self, before: LatencyTable) -> LatencyTable:
        """Return the existing table; with ``remeasure`` without the unstable entries of this network."""
        if not self.remeasure:
            return before
        again = {workload.key for workload in self.needed()} & set(before.quality.unstable)
        entries = [entry for entry in before.entries if entry.workload.key not in again]
        unstable = [key for key in before.quality.unstable if key not in again]
        quality = before.quality.model_copy(update={"unstable": unstable})
        return before.model_copy(update={"entries": entries, "quality": quality})


def existing(plan: ProfilePlan, out: Path, start: Start) -> LatencyTable | None:
    """Return the table in ``out``, if there is one. Raises HwnasError if it is of another device or runtime."""
    if not out.exists():
        return None
    try:
        table = read_table(out)
    except HwnasError as error:
        raise HwnasError(error.problem, f"remove it (`rm {quoted(out)}`) or write to another file with --out") from None
    spec, runtime = plan.spec, table.runtime
    here = (
        start.device.fingerprint,
        start.runtime,
        start.version,
        start.provider,
        {**start.options, **spec.table_options},
    )
    there = (table.device.fingerprint, runtime.name, runtime.version, runtime.provider, runtime.options)
    asked = (spec.hardware, spec.threads, spec.batch, spec.precision)
    held = (table.hardware, runtime.threads, runtime.batch, runtime.precision)
    if (here, asked) != (there, held):
        raise HwnasError(
            f"{out} is a table of another device or runtime ({table.hardware}, {table.describe()}, "
            f"options {canonical_json(runtime.options)})",
            "write to another file with --out",
        )
    if table.protocol.version != PROTOCOL:
        raise HwnasError(
            f"{out} was measured by protocol {table.protocol.version}, this hwnas measures by {PROTOCOL}",
            "write to another file with --out",
        )
    return plan.keep(table)


def partial_folder(plan: ProfilePlan, out: Path, workloads: Sequence[Workload], start: Start) -> Path:
    """Return the folder for models and values of this plan, on this device and version of the runtime.

    Raises HwnasError when it cannot be written.
    """
    made_of = [
        *(__version__, PROTOCOL, plan.spec.text, plan.sized.key, [workload.key for workload in workloads]),
        *(plan.fit_networks, plan.report_networks),
        *(start.device.fingerprint, start.runtime, start.version, start.provider),
    ]
    folder = out.with_name(out.name + ".partial") / sha256_of(made_of)[:12]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
    except OSError as error:
        raise HwnasError(f"cannot write to folder {out.parent}: {error.strerror}", "give another --out") from error
    return folder


def models_to_time(
    plan: ProfilePlan, workloads: Sequence[Workload], networks: Sequence[Architecture]
) -> dict[str, Assembled]:
    """Return every model by its name: the sentinel, each workload repeated few and many times, the networks."""
    models: dict[str, Assembled] = {SENTINEL_NAME: SENTINEL}
    for workload in workloads:
        models |= repeated(workload, plan.spec)
    models |= {
        name: Whole(plan.sized, architecture)
        for name, architecture in zip(network_names(networks), networks, strict=True)
    }
    return models


def write_models(
    spec: DeviceSpec, models: Mapping[str, Assembled], folder: Path, on_progress: OnProgress
) -> dict[str, str]:
    """Write every model that does not exist yet; return name -> file."""
    files: dict[str, str] = {}
    for number, (name, model) in enumerate(models.items()):
        files[name] = f"{number}{spec.runtime.suffix}"
        write_model(model, spec, folder / files[name])
        on_progress("writing models", number + 1, len(models))
    return files
