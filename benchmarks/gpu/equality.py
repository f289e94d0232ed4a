"""Compare some steps of searches on the GPU with the same steps on the processor, in float32 and float64.

DARTS, whose random numbers are the same on both, in both spaces. The result is the largest difference of a weight, a
statistic or a logit, relative to the largest value of its tensor. In float64, where rounding explains no more than a
tiny one, a difference above MOST_IN_FLOAT64 is a failure.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.method_steps import make_search
from hwnas.compute.device import CPU
from hwnas.errors import HwnasError
from hwnas.files import write_json
from hwnas.search.search import Search

BATCH_SIZE = 16
MOST_IN_FLOAT64 = 1e-6


def steps(arguments: argparse.Namespace, compute: str, dtype: torch.dtype) -> tuple[torch.device, dict[str, Tensor]]:
    """Return the device that computed some steps and the state after them, on the processor."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        search = make_search("darts", arguments, precision="float32", kernels="torch", compute=compute)
        for _ in range(arguments.steps):
            search.take_step()
    finally:
        torch.set_default_dtype(usual)
    return search.device, tensors(search)


def tensors(search: Search) -> dict[str, Tensor]:
    parts = {"supernet": search.supernet, "logits": search.targets[0].distribution}
    return {
        f"{part} {name}": tensor.detach().to(CPU)
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point()
    }


def difference(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> tuple[float, str]:
    """Return the largest relative difference and the name of its tensor."""
    found = {
        name: float((mine[name] - value).abs().max() / value.abs().max().clamp_min(1e-12))
        for name, value in theirs.items()
    }
    name = max(found, key=lambda key: found[key])
    return found[name], name


def compare(arguments: argparse.Namespace, space: str, dtype: torch.dtype) -> dict[str, Any]:
    """Return both devices and the largest difference after the same steps on them.

    Raises HwnasError where the reference was not computed on the processor, or both were computed on one device.
    """
    arguments.space = space
    device, mine = steps(arguments, "cuda", dtype)
    reference, theirs = steps(arguments, "cpu", dtype)
    if reference != CPU or device == reference:
        raise HwnasError(
            f"the steps on {device} have no reference: it was computed on {reference}", "compare a GPU with the CPU"
        )
    largest, where = difference(mine, theirs)
    names = {"device": str(device), "reference": str(reference)}
    return {"space": space, "dtype": str(dtype), **names, "difference": largest, "where": where}


def require_equal(rows: list[dict[str, Any]]) -> None:
    """Raise HwnasError for a difference in float64 that rounding does not explain."""
    for row in rows:
        if row["dtype"] == "torch.float64" and not row["difference"] <= MOST_IN_FLOAT64:
            raise HwnasError(
                f"{row['space']} differs by {row['difference']:.1e} in float64, in {row['where']}",
                "find the operator whose results differ: compare fewer --steps at a smaller --depth",
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for space in ("nasbench201", "darts"):
        for dtype in (torch.float32, torch.float64):
            rows.append(compare(arguments, space, dtype))
            print(rows[-1], flush=True)
            write_json(arguments.out, {"rows": rows})
    require_equal(rows)


if __name__ == "__main__":
    main()
