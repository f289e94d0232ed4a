"""GDAS: search with a differentiable architecture sampler (Dong & Yang, CVPR 2019).

One operation runs on every edge, drawn with Gumbel noise; the gradient is that of the relaxed sample:

    q = softmax((log p + G) / temperature),   Z = one_hot(argmax q) - stop(q) + q,   p = softmax(alpha).

The temperature falls linearly from 10 to 0.1. Logits and weights learn from separate images, in turn. With ``ghosts``
the operations that do not run add their entry of Z, whose value is 0, to the edge: its gradient is then the sum of
dL/dy, as if their outputs were ones. The released code does so, the paper's formula does not.
"""

from __future__ import annotations

import torch

from hwnas.search.choices import register
from hwnas.search.distribution import Draw, DrawContext, EdgeLogits, gumbel_like, one_hot


@register("distribution", "straight_through")
class StraightThrough(EdgeLogits):
    """A one-hot sample whose gradient is that of the relaxed one."""

    def draw(self, context: DrawContext) -> Draw:
        mixture, chosen = {}, {}
        for kind, scores in self.scores().items():
            logs = torch.log_softmax(scores, dim=-1)
            soft = torch.softmax((logs + gumbel_like(logs, context)) / context.temperature, dim=-1)
            chosen[kind] = soft.argmax(dim=-1)
            mixture[kind] = one_hot(chosen[kind], soft) - soft.detach() + soft
        return Draw(mixture, chosen)
