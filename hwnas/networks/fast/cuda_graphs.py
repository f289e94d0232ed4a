"""Record the forward and backward pass of a supernet on a GPU as CUDA graphs and replay them.

A replayed step takes two launches instead of thousands. Only passes that differ in nothing but the values of their
tensors can be replayed: those in which every candidate runs (runs: all). Other passes, and all on a CPU, run eagerly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor, nn

from hwnas.compute.precision import computing
from hwnas.networks.drop_path import DropPath
from hwnas.networks.dropout import Dropout
from hwnas.networks.mixed_cell import Mixed
from hwnas.networks.supernet import Supernet

MOST_GRAPHS = 4  # each holds the memory of a pass


class GraphReplay:
    """The forward pass of ``supernet`` in one precision, replayed from CUDA graphs if ``enabled``.

    If a pass cannot be recorded, the reason is logged, ``enabled`` becomes False, the memory of recorded passes is
    freed, and all passes run eagerly.
    """

    def __init__(self, supernet: Supernet, precision: str, enabled: bool, log: Callable[[str], None]) -> None:
        self.supernet, self.precision, self.enabled, self.log = supernet, precision, enabled, log
        self._graphs: dict[object, _TensorPass] = {}

    def __call__(
        self,
        images: Tensor,
        mixture: Mapping[str, Mixed],
        instances: Mapping[int, Mixed],
        drop: DropPath | Dropout | None,
        frozen: bool,
    ) -> Tensor:
        """Return the scores of a batch. With ``frozen`` no gradient of the supernet's weights may be computed."""
        if self.enabled and not instances and not isinstance(drop, Dropout):
            mixture = {kind: mixed.on(images.device) for kind, mixed in mixture.items()}
            key = images.shape, frozen, drop is not None, *(_key(kind, mixed) for kind, mixed in mixture.items())
            if key in self._graphs or len(self._graphs) < MOST_GRAPHS:
                return self._replayed(key, images, mixture, drop, frozen)
            self._disable(f"forward passes are of more than {MOST_GRAPHS} kinds; CUDA graphs are no longer used")
        with computing(self.precision, images.device):
            return self.supernet(images, mixture, instances, drop)

    def _replayed(
        self, key: object, images: Tensor, mixture: Mapping[str, Mixed], drop: DropPath | None, frozen: bool
    ) -> Tensor:
        tensors = [t for mixed in mixture.values() for t in (mixed.weights, mixed.edges) if t is not None]
        tensors += [drop.rows] if drop else []
        if key not in self._graphs:
            self._graphs[key] = self._record(
                _TensorPass(self.supernet, mixture, self.precision), images, tensors, frozen
            )
        return self._graphs[key](images, *tensors)

    def _disable(self, line: str) -> None:
        self.enabled = False
        self._graphs.clear()
        self.log(line)

    def _record(self, module: _TensorPass, images: Tensor, tensors: list[Tensor], frozen: bool) -> _TensorPass:
        """Record a pass if possible, and restore the statistics of batch norms that recording changed."""
        samples = tuple(t.detach().clone().requires_grad_(t.requires_grad) for t in (images, *tensors))
        buffers = list(self.supernet.buffers())
        values, trainable = [b.clone() for b in buffers], [p for p in module.parameters() if p.requires_grad]
        stream = torch.cuda.current_stream() if images.is_cuda else None
        try:
            for parameter in trainable:
                parameter.requires_grad_(not frozen)
            torch.cuda.make_graphed_callables(module, samples, allow_unused_input=True)  # replaces its forward
        except RuntimeError as error:
            if stream is not None:
                _leave_recording(stream)
            reason = str(error).splitlines()[0]
            self._disable(f"CUDA graphs cannot record the supernet ({reason}); its operators run one by one")
        finally:
            for parameter in trainable:
                parameter.requires_grad_()
            torch._foreach_copy_(buffers, values)
        return module


class _TensorPass(nn.Module):
    """A pass whose arguments are tensors: images, the weights (and edges) of each mixture, the rows of a drop path."""

    def __init__(self, supernet: Supernet, mixture: Mapping[str, Mixed], precision: str) -> None:
        super().__init__()
        self.supernet, self.precision = supernet, precision
        self.mixture = {kind: mixed.detached() for kind, mixed in mixture.items()}  # without the graph of their draw

    def forward(self, images: Tensor, *tensors: Tensor) -> Tensor:
        rest = iter(tensors)
        mixture = {}
        for kind, mixed in self.mixture.items():
            weights = next(rest)
            mixture[kind] = replace(mixed, weights=weights, edges=None if mixed.edges is None else next(rest))
        rows = next(rest, None)
        with computing(self.precision, images.device):
            return self.supernet(images, mixture, None, None if rows is None else DropPath(rows))


def _leave_recording(stream: torch.cuda.Stream) -> None:
    """Undo what a failed recording leaves in torch, and continue on ``stream``.

    The current stream is still the recording's, and the GPU draws no random number until a recording succeeds.
    """
    with suppress(RuntimeError), torch.cuda.graph(torch.cuda.CUDAGraph()):
        torch.zeros(1, device=stream.device)
    torch.cuda.set_stream(stream)


def _key(kind: str, mixed: Mixed) -> object:
    active = mixed.active and tuple(map(tuple, mixed.active))
    return kind, active, mixed.weights.requires_grad, mixed.edges is not None
