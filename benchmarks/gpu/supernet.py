"""Time a step of SNAS's supernet on a GPU against the naive supernet: precisions, CUDA graphs, memory, work of the GPU.

The naive supernet runs every candidate on every edge, one after the other, in float32 (benchmarks.naive_mixture).
Variants run one after another in one process; the result is written after each.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.supernet_step import naive_search, own_search
from hwnas.compute.device import describe
from hwnas.compute.memory import peak_gpu_bytes
from hwnas.files import write_json
from hwnas.search.search import Search
from hwnas.training.step_profile import span, started, stop, table_of, wait_for_gpu

WARM_UP, BLOCKS = 3, 5
VARIANTS = (
    ("naive", "float32", False),
    ("ours", "float32", True),
    ("ours", "float32", False),
    ("ours", "tf32", True),
    ("ours", "bfloat16", True),
    ("ours", "tf32", False),
    ("ours", "bfloat16", False),
)


def build(kind: str, precision: str, graphs: bool, arguments: argparse.Namespace) -> Search:
    """Build the search of a variant, on a GPU."""
    arguments.precision, arguments.compute = precision, "cuda"
    search = naive_search(arguments) if kind == "naive" else own_search(arguments)
    if not graphs:
        search.supernet_state.passes.enabled = False
    return search


def measured(search: Search, seconds: float) -> dict[str, Any]:
    """Return milliseconds of a step, the median of blocks of ``seconds``, peak memory and the GPU's share of a step.

    ``peak_mb`` is that of tensors, ``reserved_mb`` has the memory of recorded passes as well.
    """
    for _ in range(WARM_UP):
        search.take_step()
    once_s = timed(search, 1)
    count = max(1, round(seconds / max(once_s, 1e-6)))
    times = [timed(search, count) / count for _ in range(BLOCKS)]
    profiler = started()
    with span("step"):
        search.take_step()
        wait_for_gpu()
    stop(profiler)
    table = table_of(profiler)
    on_gpu, reserved = search.device.type == "cuda", peak_gpu_bytes(search.device)
    return {
        "step_ms": 1e3 * statistics.median(times),
        "step_ms_least_most": [1e3 * min(times), 1e3 * max(times)],
        "steps_timed": count * BLOCKS,
        "peak_mb": torch.cuda.max_memory_allocated(search.device) / 1e6 if on_gpu else None,
        "reserved_mb": reserved and reserved / 1e6,
        "gpu_share": None if table.gpu_ms is None else table.gpu_ms / table.step_ms,
        "profile": table.to_json(),
    }


def timed(search: Search, steps: int) -> float:
    """Return the seconds of some steps."""
    wait_for_gpu()
    start = time.perf_counter()
    for _ in range(steps):
        search.take_step()
    wait_for_gpu()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=0.6, help="Length of a block of steps.")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precisions", nargs="+", default=["float32", "tf32", "bfloat16"])
    parser.add_argument("--method", default="snas")
    parser.add_argument("--kernels", default="torch")
    parser.add_argument("--channels", type=int)
    parser.add_argument("--depth", type=int)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for kind, precision, graphs in VARIANTS:
        if precision not in arguments.precisions:
            continue
        row: dict[str, Any] = {"supernet": kind, "precision": precision, "cuda_graphs": graphs}
        try:
            search = build(kind, precision, graphs, arguments)
            row |= {"computed_on": describe(search.device), "setting": search.sized.setting.describe()}
            row |= measured(search, arguments.seconds)
            row["cuda_graphs"] = search.supernet_state.passes.enabled  # False where they could not be recorded
        except Exception as error:  # one variant must not end the others
            row["error"] = f"{type(error).__name__}: {error}"
        rows.append(row)
        print({key: value for key, value in row.items() if key != "profile"}, flush=True)
        write_json(arguments.out, {"space": arguments.space, "batch_size": arguments.batch_size, "rows": ratios(rows)})
        search = None  # type: ignore[assignment]
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with how many times less than the naive step each takes."""
    naive = next((row["step_ms"] for row in rows if row["supernet"] == "naive" and "step_ms" in row), None)
    return [
        {**row, "times_less": naive / row["step_ms"]} if naive is not None and "step_ms" in row else row for row in rows
    ]


if __name__ == "__main__":
    main()
