#!/usr/bin/env python3
"""Compare the cost of a search step with that of a naive supernet, which runs every candidate on every edge.

    python -m benchmarks.supernet_step --space darts --method snas --batch-size 64 --json

A step is what the method does with one batch (weights and, where they take turns, logits), past its warm-up, on random
images in memory. The naive one is the same method's step with the supernet of benchmarks.naive_mixture in float32.
Each runs in a process of its own, whose peak memory is reported, torch included (on a GPU: that of its tensors). They
take turns, so that their ratio is of one machine in one state. ``input_share`` is the share of a step spent on its
batch of images. With ``--profile`` the result has the time of each part of a step and of torch's operators, from one
further turn of each (``profile``).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.method_steps import make_search
from benchmarks.naive_mixture import NaiveSupernet
from hwnas.benchmark.cost_meter import peak_memory_mb
from hwnas.compute.device import describe
from hwnas.files import write_json
from hwnas.networks.fast.cuda_graphs import GraphReplay
from hwnas.networks.fast.kernels import kernels
from hwnas.networks.supernet import Supernet
from hwnas.profiling.session import ask
from hwnas.runtimes.device_spec import parse_device
from hwnas.search.search import Search
from hwnas.training.optimizers import ParameterOptimizer
from hwnas.training.step_profile import span, started, stop, table_of, wait_for_gpu
from hwnas.training.step_table import StepTable

METHODS = ("snas", "darts", "drnas", "advantagenas", "entrannas")
TURN = 2  # steps: AdvantageNAS's are of two kinds in turn


def naive_search(arguments: argparse.Namespace) -> Search:
    """Replace the supernet of a search by the naive one."""
    search = make_search(arguments.method, arguments, precision="float32", kernels="torch", compute=arguments.compute)
    naive = NaiveSupernet(Supernet(search.sized)).to(search.device)
    state = search.supernet_state
    state.module = naive  # type: ignore[assignment]
    state.passes = GraphReplay(naive, state.precision, False, print)  # type: ignore[arg-type]
    state.weights = ParameterOptimizer(search.recipe.weights, naive.parameters(), search.processes)
    return search


def own_search(arguments: argparse.Namespace) -> Search:
    asked = {name: getattr(arguments, name) for name in ("precision", "kernels", "compute")}
    return make_search(arguments.method, arguments, **asked)


MAKE = {"own": own_search, "naive": naive_search}


class Worker:
    """A process that takes steps of one kind on request."""

    def __init__(self, kind: str) -> None:
        command = [sys.executable, "-m", "benchmarks.supernet_step", *sys.argv[1:], "--worker", kind]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self._read()

    def turn(self, order: str = "time") -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        return self._read()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self.process.wait():
            raise SystemExit("a worker failed")

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else sys.exit("a worker failed")


def work(arguments: argparse.Namespace) -> None:
    """A line that says what it is; then for every line read, "time" or "profile", one of seconds a step and peak memory
    so far, or of where the time went.
    """
    search = MAKE[arguments.worker](arguments)
    on_gpu = search.device.type == "cuda"
    about = {
        "setting": search.sized.setting.describe(),
        "computed_on": describe(search.device),
        "precision": search.supernet_state.precision,
        "kernels": "compiled kernels" if search.recipe.kernels == "compiled" and kernels().library else "plain torch",
        "threads": torch.get_num_threads(),
        "batches_s": batches_s(search, arguments.batch_size),
    }
    print(json.dumps(about), flush=True)

    def take_turn(profiled: bool = False) -> None:
        for _ in range(TURN):
            with span("step"):
                search.take_step()
                if profiled:
                    wait_for_gpu()
        wait_for_gpu()

    for line in sys.stdin:
        if line.strip() == "profile":
            profiler = started()
            take_turn(profiled=True)
            stop(profiler)
            print(json.dumps(table_of(profiler).to_json()), flush=True)
            continue
        start = time.perf_counter()
        take_turn()
        seconds = (time.perf_counter() - start) / TURN
        peak_mb = torch.cuda.max_memory_allocated() / 1e6 if on_gpu else peak_memory_mb()
        print(json.dumps({"step_s": seconds, "peak_mb": peak_mb}), flush=True)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    workers = {kind: Worker(kind) for kind in MAKE}
    turns: dict[str, list[dict[str, Any]]] = {kind: [] for kind in MAKE}
    for _ in range(arguments.rounds + 1):
        for kind, worker in workers.items():
            turns[kind].append(worker.turn())
    profiles = {kind: worker.turn("profile") for kind, worker in workers.items()} if arguments.profile else None
    for worker in workers.values():
        worker.close()
    times = {kind: [turn["step_s"] for turn in done[1:]] for kind, done in turns.items()}  # the first warms up
    peaks = {kind: done[-1]["peak_mb"] for kind, done in turns.items()}
    ratios = [naive / own for naive, own in zip(times["naive"], times["own"], strict=True)]
    own, naive = (statistics.median(times[kind]) for kind in ("own", "naive"))
    about = workers["own"].about
    batches = about.pop("batches_s")
    return {
        "space": arguments.space,
        "method": arguments.method,
        "batch_size": arguments.batch_size,
        **about,
        "step_ms": 1000 * own,
        "step_ms_least_most": [1000 * min(times["own"]), 1000 * max(times["own"])],
        "naive_ms": 1000 * naive,
        "naive_ms_least_most": [1000 * min(times["naive"]), 1000 * max(times["naive"])],
        "ratio": statistics.median(ratios),
        "ratio_least_most": [min(ratios), max(ratios)],
        "peak_mb": peaks["own"],
        "naive_peak_mb": peaks["naive"],
        "peak_share": peaks["own"] / peaks["naive"],
        "input_share": batches / own,
        "profile": profiles,
        "rounds": arguments.rounds,
        "torch": torch.__version__,
        "device": ask(parse_device("cpu")).device.model_dump(mode="json"),
    }


def batches_s(search: Search, batch_size: int) -> float:
    """Return the seconds for the images of a step: one batch for every subset of the training images that it reads."""
    parts = {id(batches.subset): batches.subset for batches in search.batches.values()}.values()
    start = time.perf_counter()
    for step in range(10):
        for images in parts:
            search.data.train_batch(step, batch_size, search.recipe.seed, images)
    wait_for_gpu()
    return (time.perf_counter() - start) / 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="darts", choices=("darts", "nasbench201"))
    parser.add_argument("--method", default="snas", choices=METHODS)
    parser.add_argument("--channels", type=int)
    parser.add_argument("--depth", type=int)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="float32", choices=("auto", "float32", "tf32", "bfloat16"))
    parser.add_argument("--compute", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--kernels", default="torch", choices=("torch", "compiled"))
    parser.add_argument("--profile", action="store_true", help="Say where the time of a last turn went, too.")
    parser.add_argument("--json", action="store_true", help="Print everything as JSON.")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", choices=tuple(MAKE), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return
    result = measure(arguments)
    if arguments.json:
        print(json.dumps(result, indent=1))
    else:
        print(
            f"{result['step_ms']:.0f} ms a step, naive {result['naive_ms']:.0f} ms: {result['ratio']:.2f} times less; "
            f"peak {result['peak_mb']:.0f} MB, {result['peak_share']:.0%} of naive; {result['kernels']}"
        )
        for kind, table in (result["profile"] or {}).items():
            print(*StepTable.model_validate(table).describe(kind), sep="\n")
    if arguments.out:
        write_json(arguments.out, result)


if __name__ == "__main__":
    main()
