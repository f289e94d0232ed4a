"""The accelerated supernet. ``accelerate`` makes a supernet faster and leaves its results unchanged."""

from __future__ import annotations

from collections.abc import Callable

from hwnas.networks.fast.cell import FastCell
from hwnas.networks.fast.cuda_graphs import GraphReplay
from hwnas.networks.supernet import Supernet


def accelerate(
    supernet: Supernet,
    *,
    precision: str = "float32",
    compiled: bool = False,
    replay: bool = False,
    log: Callable[[str], None] = print,
) -> GraphReplay:
    """Let ``supernet`` compute its cells faster, and return its forward pass in ``precision``.

    Values and gradients are those of the plain supernet but for rounding; parameters and running statistics stay in its
    modules. ``compiled`` uses the compiled kernels (hwnas.networks.fast.kernels) where possible, else plain torch.
    ``replay`` records passes as CUDA graphs; if that fails, the reason is logged. Recurrent cells stay as they are.
    """
    for cell in supernet.cells:
        if not cell.cell.recurrent:
            cell.evaluation = FastCell(cell, compiled)
    return GraphReplay(supernet, precision, replay, log)
