"""The steps of a session on a GPU, in order of worth, and the time that each may take.

A step is a command of its own, so that one that fails or hangs does not touch the others.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

BUDGETS = ("mild", "moderate", "aggressive")
TABLES = {"nasbench201": "nasbench201_cuda.json", "darts": "darts_cuda.json"}
MOST_S = 660  # what the whole plan may take
RETURN_S = 5  # kept for packing what comes back


@dataclass(frozen=True)
class Step:
    """One command with a limit in seconds.

    A ``resumable`` step resumes where an earlier session left it, and may take all the time that the others leave. The
    result of a step is provisional until the step that it ``builds_on`` has finished.
    """

    name: str
    what: str
    limit_s: float
    command: tuple[str, ...]
    resumable: bool = False
    builds_on: str = ""


@dataclass(frozen=True)
class Places:
    """The folders of a session: ``out`` comes back, ``work`` stays."""

    out: Path
    work: Path

    def table(self, space: str) -> Path:
        return self.work / TABLES[space]

    def result(self, step: str) -> Path:
        """Return the file into which a step writes its result."""
        return self.work / f"{step}.result.json"

    def run(self, step: str) -> Path:
        """Return the folder of a resumable step."""
        return self.work / step


def steps(places: Places) -> list[Step]:
    """Return the steps on a GPU."""
    return [
        Step("tests", "the tests that need a GPU", 70, _tests()),
        Step(
            "equality", "steps on the GPU and on the processor, in float32 and float64", 40, _module("equality", places)
        ),
        Step("profile_nasbench201", "latency table of nasbench201", 90, _profile("nasbench201", places, "0.75")),
        Step("profile_darts", "latency table of darts", 110, _profile("darts", places, "0.9")),
        Step("supernet_darts", "a step against the naive supernet, darts", 80, _supernet("darts", places)),
        Step("supernet_nasbench201", "the same, nasbench201", 60, _supernet("nasbench201", places)),
        Step("snas", "SNAS in darts, 50 epochs, three budgets", 70, _search("snas", "darts", 50, places), True),
        Step("drnas", "DrNAS in nasbench201, 100 epochs", 50, _search("drnas", "nasbench201", 100, places), True),
        Step("cells", "the found cells and DARTS_V2, 25 epochs each", 45, _cells(places), True, builds_on="snas"),
    ]


def rehearsal(places: Places) -> list[Step]:
    """Return the same steps, tiny, on the simulated device of the tests; tables are of the processor."""
    tiny = {
        "tests": _tests(),
        "equality": _module("equality", places, *_TINY_EQUALITY, pretended=True),
        "profile_nasbench201": _profile("nasbench201", places, "0.01", *_TINY_PROFILE),
        "profile_darts": _profile("darts", places, "0.01", *_TINY_PROFILE),
        "supernet_darts": _supernet("darts", places, *_TINY_STEPS, pretended=True),
        "supernet_nasbench201": _supernet("nasbench201", places, *_TINY_STEPS, pretended=True),
        "snas": _search("snas", "darts", 2, places, *_TINY_SEARCH, pretended=True),
        "drnas": _search("drnas", "nasbench201", 2, places, *_TINY_SEARCH, pretended=True),
        "cells": _cells(places, *_TINY_CELLS, pretended=True),
    }
    return [replace(step, command=tiny[step.name]) for step in steps(places)]


_TINY_SIZES = ("--channels", "4", "--depth", "3")
_TINY_EQUALITY = ("--steps", "1", "--batch-size", "4", *_TINY_SIZES)
_TINY_PROFILE = ("--device", "cpu+torch", "--rounds", "3", "--networks", "4", "--made-up", *_TINY_SIZES)
_TINY_CELLS = ("--epochs", "1", "--precision", "float32", *_TINY_SIZES)
_TINY_STEPS = ("--batch-size", "4", "--seconds", "0.01", "--precisions", "float32", *_TINY_SIZES)
_TINY_SEARCH = ("--channels", "4", "--layers", "3", "--batch-size", "16", "--precision", "float32")


def _tests() -> tuple[str, ...]:
    # Of files that do not register the simulated device, which torch would take for its accelerator instead of the GPU.
    files = ("compute/test_gpu.py", "profilers/test_cuda_profiler.py", "profiling/test_profiling.py")
    chosen = [f"tests/{file}" for file in files]
    return (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", *chosen, "-k", "gpu or cuda")


def _module(name: str, places: Places, *options: str, pretended: bool = False) -> tuple[str, ...]:
    return (*_python(f"benchmarks.gpu.{name}", pretended), "--out", str(places.result(name)), *options)


def _cells(places: Places, *options: str, pretended: bool = False) -> tuple[str, ...]:
    return _module("cells", places, "--work", str(places.work), *options, pretended=pretended)


def _profile(space: str, places: Places, minutes: str, *options: str) -> tuple[str, ...]:
    files = ("--out", str(places.table(space)), "--result", str(places.result(f"profile_{space}")))
    return (*_python("benchmarks.gpu.profile"), "--space", space, *files, "--minutes", minutes, *options)


def _supernet(space: str, places: Places, *options: str, pretended: bool = False) -> tuple[str, ...]:
    result = str(places.result(f"supernet_{space}"))
    return (*_python("benchmarks.gpu.supernet", pretended), "--space", space, "--out", result, *options)


def _search(
    method: str, space: str, epochs: int, places: Places, *options: str, pretended: bool = False
) -> tuple[str, ...]:
    budgets = [word for budget in BUDGETS for word in ("--budget", budget)]
    return (
        *_python("hwnas", pretended),
        *("search", "--space", space, "--table", str(places.table(space)), "--method", method, *budgets),
        *("--data", "python:benchmarks.gpu.images:cifar10", "--epochs", str(epochs), "--child-epochs", "0"),
        # Finalists would take time that the plan does not have.
        *("--finalists", "0", "--compute", "cuda", "--out", str(places.run(method)), *options),
    )


def _python(module: str, pretended: bool = False) -> tuple[str, ...]:
    first = ("benchmarks.gpu.pretended", module) if pretended else (module,)
    return (sys.executable, "-m", *first)
