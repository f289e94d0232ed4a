"""A supernet's passes on a GPU, recorded once as CUDA graphs and replayed: a step's thousands of launches become two.

Recorded are passes that are the same at every step but for what is in their tensors: those in which every candidate
runs (runs: all), forward and backward. Any other pass, and any on a processor, runs as it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from hwnas.compute.precision import computing
from hwnas.networks.supernet import DropPath, Mixed, Supernet

MOST = 4  # recordings: each holds the memory of a pass


class GraphReplay:
    """GraphReplay over ``supernet`` in training, in one precision.

    ``records``: whether to record at all. ``say`` hears why a pass that should be recorded cannot be.
    """

    def __init__(self, supernet: Supernet, precision: str, records: bool, say: Callable[[str], None]) -> None:
        self.supernet, self.precision, self.records, self.log = supernet, precision, records, say
        self._recorded: dict[object, _Pass] = {}

    def __call__(
        self,
        images: Tensor,
        mixture: Mapping[str, Mixed],
        places: Mapping[int, Mixed],
        drop: DropPath | None,
        frozen: bool,
    ) -> Tensor:
        """The scores of a batch. ``frozen`` says that no gradient of the supernet's weights will be asked for."""
        if self.records and not places:
            mixture = {kind: mixed.on(images.device) for kind, mixed in mixture.items()}
            key = images.shape, frozen, drop is not None, *(_key(kind, mixed) for kind, mixed in mixture.items())
            if key in self._recorded or len(self._recorded) < MOST:
                return self._replayed(key, images, mixture, drop, frozen)
            self.records = False
            self.log(f"passes over the supernet are of more than {MOST} kinds: they are not replayed")
        with computing(self.precision, images.device):
            return self.supernet(images, mixture, places, drop)

    def _replayed(
        self, key: object, images: Tensor, mixture: Mapping[str, Mixed], drop: DropPath | None, frozen: bool
    ) -> Tensor:
        tensors = [t for mixed in mixture.values() for t in (mixed.weights, mixed.edges) if t is not None]
        tensors += [drop.rows] if drop else []
        if key not in self._recorded:
            self._recorded[key] = self._record(_Pass(self.supernet, mixture, self.precision), images, tensors, frozen)
        return self._recorded[key](images, *tensors)

    def _record(self, one: _Pass, images: Tensor, tensors: list[Tensor], frozen: bool) -> _Pass:
        """The pass, recorded if it can be; the statistics of batch norms are as they were before."""
        samples = tuple(t.detach().clone().requires_grad_(t.requires_grad) for t in (images, *tensors))
        buffers = list(self.supernet.buffers())
        kept, learnt = [b.clone() for b in buffers], [p for p in one.parameters() if p.requires_grad]
        try:
            for parameter in learnt:
                parameter.requires_grad_(not frozen)
            torch.cuda.make_graphed_callables(one, samples, allow_unused_input=True)  # from now on ``one`` replays it
        except RuntimeError as error:
            self.records = False
            self.log(
                f"CUDA graphs cannot record the supernet ({str(error).splitlines()[0]}): its operators run one by one"
            )
        finally:
            for parameter in learnt:
                parameter.requires_grad_()
            torch._foreach_copy_(buffers, kept)
        return one


class _Pass(nn.Module):
    """A pass whose arguments are tensors alone: images, every mixture's weights (and edges), rows of a drop path."""

    def __init__(self, supernet: Supernet, mixture: Mapping[str, Mixed], precision: str) -> None:
        super().__init__()
        self.supernet, self.mixture, self.precision = supernet, dict(mixture), precision

    def forward(self, images: Tensor, *tensors: Tensor) -> Tensor:
        rest = iter(tensors)
        mixture = {}
        for kind, mixed in self.mixture.items():
            weights = next(rest)
            mixture[kind] = replace(mixed, weights=weights, edges=None if mixed.edges is None else next(rest))
        rows = next(rest, None)
        with computing(self.precision, images.device):
            return self.supernet(images, mixture, None, None if rows is None else DropPath(rows))


def _key(kind: str, mixed: Mixed) -> object:
    active = mixed.active and tuple(map(tuple, mixed.active))
    return kind, active, mixed.weights.requires_grad, mixed.edges is not None
