"""What a profile is to measure: which workloads and networks, written as models into a folder of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas import __version__
from hwnas.cost.fusion import pieces
from hwnas.errors import HwnasError
from hwnas.files import sha256_of
from hwnas.profiling.assemble import Assembled
from hwnas.profiling.models import SENTINEL, Whole, repeated, write_model
from hwnas.profiling.names import SENTINEL_NAME, network_names
from hwnas.profiling.protocol import PROTOCOL, Start
from hwnas.progress import OnProgress
from hwnas.runtimes.device_spec import DeviceSpec
from hwnas.spaces import Architecture, SizedSpace, Workload
from hwnas.spaces.encoding import decode
from hwnas.tables.io import read_table
from hwnas.tables.schema import LatencyTable

LEAST_PROCESSES = 3  # processes of the profiler for everything …
NETWORK_PROCESSES = 5  # … for whole networks: a fit and a report look at many, none has to be settled …
MOST_PROCESSES = 1.5  # … and for entries that do not settle, times the processes that the rounds are meant for
MOST_DRAWS = 20_000  # of random architectures, among which those to time are found
LEAST_NETWORKS = 8  # of a space that has no more, nothing can be fitted and judged


@dataclass(frozen=True)
class ProfilePlan:
    """What to measure and how long: rounds over all workloads, networks for the correction and for its report.

    ``minutes`` bounds the timing, not the writing of models, and not the first process of the profiler; ``remeasure``
    times the unstable entries of a table again; ``accept_noise`` makes a table on a machine that is too noisy for one,
    and marks it.
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

    @property
    def processes(self) -> int:
        """The processes of the profiler over which the rounds are spread."""
        return min(self.rounds, self.spec.runtime.processes)

    @property
    def least_processes(self) -> int:
        """In so many everything is timed."""
        return min(LEAST_PROCESSES, self.processes)

    @property
    def network_processes(self) -> int:
        """In so many whole networks are timed."""
        return min(NETWORK_PROCESSES, self.processes)

    @property
    def most_processes(self) -> int:
        """An entry that is not settled after so many is marked."""
        return round(self.processes * MOST_PROCESSES)

    @property
    def rounds_each(self) -> int:
        """The rounds of one process."""
        return -(-self.rounds // self.processes)

    def needed(self) -> list[Workload]:
        """What a table of the network holds."""
        network = self.sized.network
        return [*network.workloads(), *pieces(network)]

    def workloads(self, before: LatencyTable | None) -> list[Workload]:
        """What the space needs and the table that is there lacks."""
        known = {entry.workload for entry in before.entries} if before else set()
        return [workload for workload in self.needed() if workload not in known]

    def keep(self, before: LatencyTable) -> LatencyTable:
        """What stays of a table that is there: all of it, or without what is unstable of this network."""
        if not self.remeasure:
            return before
        again = {workload.key for workload in self.needed()} & set(before.quality.unstable)
        entries = [entry for entry in before.entries if entry.workload.key not in again]
        unstable = [key for key in before.quality.unstable if key not in again]
        quality = before.quality.model_copy(update={"unstable": unstable})
        return before.model_copy(update={"entries": entries, "quality": quality})


def existing(plan: ProfilePlan, out: Path, start: Start) -> LatencyTable | None:
    """The table that ``out`` already holds, if it is of this very device and runtime."""
    if not out.exists():
        return None
    try:
        table = read_table(out)
    except HwnasError as error:
        raise HwnasError(error.problem, f"remove it (rm {out}) or write to another file with --out") from None
    spec, runtime = plan.spec, table.runtime
    here = (start.device.fingerprint, start.runtime, start.version, start.provider)
    there = (table.device.fingerprint, runtime.name, runtime.version, runtime.provider)
    asked, held = (spec.threads, spec.batch, spec.precision), (runtime.threads, runtime.batch, runtime.precision)
    if (here, asked) != (there, held):
        raise HwnasError(
            f"{out} is a table of another device or runtime ({table.describe()})", "write to another file with --out"
        )
    if table.protocol.version != PROTOCOL:
        raise HwnasError(
            f"{out} was measured by protocol {table.protocol.version}, this hwnas measures by {PROTOCOL}",
            "write to another file with --out",
        )
    return plan.keep(table)


def partial_folder(plan: ProfilePlan, out: Path, workloads: Sequence[Workload], start: Start) -> Path:
    """Where models and readings of this very question are kept: this device, this version of the runtime, these models.

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


def random_architectures(plan: ProfilePlan) -> list[Architecture]:
    """Different random architectures that have at least one path from input to output in every cell: as many as the
    plan asks for, or fewer where few of a space have one.

    Raises HwnasError when it has next to none.
    """
    generator = np.random.default_rng(201)
    found: dict[Architecture, None] = {}
    space = plan.sized.space
    wanted = min(plan.fit_networks + plan.report_networks, space.num_architectures // 4)
    for _ in range(MOST_DRAWS):
        if len(found) == wanted:
            break
        choices: NDArray[np.intp] = generator.integers(len(space.operations), size=space.num_edges)
        architecture = decode(space, choices)
        cells = zip(space.cells.values(), architecture.cells, strict=True)
        if all(any(cell.live_edges(operations)) for cell, operations in cells):
            found[architecture] = None
    if len(found) < min(LEAST_NETWORKS, plan.fit_networks + plan.report_networks):
        raise HwnasError(
            f"too few architectures of space {space.name} have a path from input to output ({len(found)} found)",
            "give its cells more nodes, edges or operations",
        )
    return list(found)


def models_to_time(
    plan: ProfilePlan, workloads: Sequence[Workload], networks: Sequence[Architecture]
) -> dict[str, Assembled]:
    """Every model by its name: the sentinel, each workload repeated few and many times, the networks."""
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
    """Write every model that is not there yet; returns name -> file."""
    files: dict[str, str] = {}
    for number, (name, model) in enumerate(models.items()):
        files[name] = f"{number}{spec.runtime.suffix}"
        write_model(model, spec, folder / files[name])
        on_progress("writing models", number + 1, len(models))
    return files
