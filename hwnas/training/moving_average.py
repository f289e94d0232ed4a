"""The exponential moving average of a network's weights and statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class MovingAverage(AveragedModel):
    """a <- decay a + (1 - decay) w, for parameters and buffers alike; the first update copies w.

    The values are those of torch's class, whose updates copy the number of updates to the network's device each time,
    which would wait for a GPU.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Update the average by the values of ``model``."""
        averages, values = _tensors(self.module), _tensors(model)
        if int(self.n_averaged) == 0:  # on the CPU
            torch._foreach_copy_(averages, values)
        else:
            assert self.multi_avg_fn  # see __init__
            for dtype in dict.fromkeys(value.dtype for value in values):
                pairs = [(a, v) for a, v in zip(averages, values, strict=True) if v.dtype == dtype]
                of_dtype, new = (list(tensors) for tensors in zip(*pairs, strict=True))
                self.multi_avg_fn(of_dtype, new, self.n_averaged)
        self.n_averaged += 1


def _tensors(network: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in (*network.parameters(), *network.buffers())]
