"""The protocol between host and profiler: a job goes out, a line of JSON for each event comes back.

``profilers/README.md`` describes it. The fields of ``Job`` are the keys of the job file, in which a run is a "visit".
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from hwnas.errors import HwnasError
from hwnas.files import sha256_of
from hwnas.profiling.names import SENTINEL_NAME
from hwnas.runtimes.device_spec import DeviceSpec
from hwnas.tables.schema import Device, Gpu
from hwnas.text import plural

PROTOCOL = 2
SENTINEL_EVERY = 5


@dataclass(frozen=True)
class Job:
    """The work of one process of a profiler, as written to the job file. ``visits`` names a model for each run.

    ``options`` are settings of the runtime, such as its execution provider; most runtimes have none.
    """

    hardware: str
    threads: int
    batch: int
    models: dict[str, str]
    visits: list[str]
    pin: bool = True
    first_warmup_ms: float = 10.0
    warmup_ms: float = 0.5
    block_ms: float = 0.05
    visit_ms: float = 3.0
    min_blocks: int = 3
    max_blocks: int = 40
    protocol: int = PROTOCOL
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One run of a model: a few blocks in a row. Milliseconds of one inference, the least and the median of the blocks.

    ``waited`` is the share of the run in which the process was ready to run and had no processor, 0 where unknown;
    ``wall_ms`` the duration of the run, warm-up included; ``load_ms`` that of loading the model, before its first run.
    """

    model: str
    min_ms: float
    median_ms: float
    waited: float = 0.0
    wall_ms: float = 0.0
    load_ms: float = 0.0


@dataclass(frozen=True)
class Start:
    """The description of a device and its runtime that a profiler prints before its first run.

    ``clock_ms`` is the smallest step of the clock that times the runs, None if unknown.
    """

    device: Device
    runtime: str
    version: str
    provider: str
    options: dict[str, str | int | float | bool]
    processors: list[int] | None
    governor: str | None
    load: float | None
    clock_ms: float | None


@dataclass
class JobValues:
    """The values of one process: all runs of a job, in order.

    ``stolen`` is the share of time that a virtual machine's host took away, ``gpu`` the state of the GPU that was
    timed.
    """

    job: Job
    start: Start | None = None
    runs: list[Run] = field(default_factory=list)
    stolen: float | None = None
    gpu: Gpu | None = None

    @property
    def wall_ms(self) -> float:
        """The duration of all runs, the loading of models included."""
        return sum(run.wall_ms + run.load_ms for run in self.runs)

    def add(self, line: str) -> None:
        """Add an event that the profiler printed.

        Raises HwnasError for a line that breaks the protocol, and for a device with fewer processors than threads.
        """
        try:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == "start":
                self._add_start(event)
            elif event["event"] == "visit":
                self._add_run(event)
            elif event["event"] == "end":
                self.stolen = event["stolen"]
                self.gpu = Gpu.model_validate(event["gpu"]) if event.get("gpu") else None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, ValidationError) as error:
            raise HwnasError(
                f"the profiler printed {line[:200]!r}, which is not of protocol {PROTOCOL} ({error})"
            ) from None

    def _add_start(self, event: dict[str, Any]) -> None:
        start = _start(event)
        available = event.get("available")
        if available is not None and self.job.threads > int(available):
            raise HwnasError(
                f"{self.job.threads} threads are more than the {plural(int(available), 'processor')} "
                f"that may be used on {start.device.name}",
                f"give a device with threads={available} or fewer",
            )
        self.start = self.start or start
        if (start.device, start.version) != (self.start.device, self.start.version):
            raise HwnasError("the device or its runtime has changed since this job began", "run the same command again")

    def _add_run(self, event: dict[str, Any]) -> None:
        if event["visit"] != len(self.runs) or self.job.visits[event["visit"]] != event["model"]:
            raise ValueError("a visit out of order")
        min_ms, median_ms = float(event["min_ms"]), float(event["median_ms"])
        if not 0 < min_ms <= median_ms < float("inf"):
            raise ValueError("an impossible time")
        wall_ms = float(event["wall_ms"])
        waited = float(event.get("waited_ms", 0)) / max(wall_ms, 1e-9)
        load_ms = float(event.get("load_ms", 0))
        self.runs.append(Run(str(event["model"]), min_ms, median_ms, waited, wall_ms, load_ms))


def _start(event: dict[str, Any]) -> Start:
    device = event["device"]
    fingerprint = sha256_of(
        [device["kind"], device["model"], device["cores"], round(device["memory_bytes"] / 2**30), device["os"]]
    )[:16]
    return Start(
        Device(**device, fingerprint=fingerprint),
        str(event["runtime"]),
        str(event["version"]),
        str(event["provider"]),
        event["options"],
        event["processors"],
        event["governor"],
        event["load"],
        event.get("clock_ms"),
    )


def make_job(spec: DeviceSpec, models: Mapping[str, str], rounds: int, seed: int, runs: Mapping[str, int]) -> Job:
    """Run every model once a round, in an order shuffled anew each round, with the sentinel in between.

    ``runs`` limits the number of runs of the models that it names; these are spread evenly over the rounds.
    """
    order: list[str] = []
    shuffler = random.Random(seed)
    names = sorted(set(models) - {SENTINEL_NAME})
    for number in range(rounds):
        due = [
            n for n in names if (number + 1) * runs.get(n, rounds) // rounds > number * runs.get(n, rounds) // rounds
        ]
        shuffler.shuffle(due)
        for position, name in enumerate(due):
            if position % SENTINEL_EVERY == 0:
                order.append(SENTINEL_NAME)
            order.append(name)
    order.append(SENTINEL_NAME)
    return new_job(spec, models, order)


def new_job(spec: DeviceSpec, models: Mapping[str, str], visits: list[str]) -> Job:
    """Return the job of making some runs of models on a device."""
    return Job(spec.hardware, spec.threads, spec.batch, dict(models), visits, options=spec.job_options)
