"""ExecuTorch on a CPU, with XNNPACK. Its models, NAME.pte, are written from torch modules, for a fixed batch size."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwnas.files import write_bytes
from hwnas.imports import require_extra
from hwnas.runtimes.runtime import Runtime

if TYPE_CHECKING:
    from torch import Tensor, nn

XNNPACK = "executorch.backends.xnnpack.partition.xnnpack_partitioner"


def write_program(module: nn.Module, inputs: Sequence[Tensor], path: Path) -> None:
    """Write a module in evaluation mode, for inputs of exactly these shapes, with all that XNNPACK can run left to it.

    Writing takes a second for an operation, 17 s for a network of nasbench201. Raises HwnasError when executorch is not
    installed.
    """
    import torch

    with _without_warnings():
        exir: Any = require_extra("executorch.exir", "executorch", "writing models for ExecuTorch")
        partitioner: Any = require_extra(XNNPACK, "executorch", "writing models for ExecuTorch")
    module.eval()
    with _without_warnings(), torch.no_grad():
        program = torch.export.export(module, tuple(inputs))
        lowered = exir.to_edge_transform_and_lower(program, partitioner=[partitioner.XnnpackPartitioner()])
        write_bytes(path, lowered.to_executorch().buffer)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Suppress warnings about the insides of torch and torchao, some of which are logged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def open_program(path: Path) -> Callable[[Sequence[NDArray[np.float32]]], list[NDArray[np.float32]]]:
    """Return a function that runs a program of ExecuTorch. Raises HwnasError when executorch is not installed."""
    import torch

    with _without_warnings():
        runtime: Any = require_extra("executorch.runtime", "executorch", "running models in ExecuTorch")
    method = runtime.Runtime.get().load_program(str(path)).load_method("forward")

    def run(inputs: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        return [y.numpy().copy() for y in method.execute([torch.from_numpy(x) for x in inputs])]

    return run


RUNTIME = Runtime(
    name="executorch",
    profiler="executorch_cpu.py",
    hardware=r"cpu",
    suffix=".pte",
    write_module=write_program,
    processes=6,
)
