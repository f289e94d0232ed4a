"""A node's weighted sum over candidates by the compiled kernels, exact, with gradients.

    y = sum over terms k of w[k] * factor[k] * norm_k(z[k])

The z of a term is a tensor (with a norm or without), or the output of a chain of ReLUs, depthwise and pointwise
convolutions. A batch norm without learnable parameters needs no separate pass: it is a scale and a shift per channel,
applied in the sum that follows or in the ReLU of the next block. Average pooling is linear, so the sum of all pooled
terms is pooled once. Only the z are saved for the gradient; values inside a block are computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hwnas.networks.fast.kernels import BlockSizes
from hwnas.networks.fast.native import address, pixel_rows, require_first_order, row_address
from hwnas.networks.fast.sum_kernels import (
    BlockStep,
    GradientSource,
    add_gradients,
    add_plain_gradients,
    block_backward,
    block_forward,
    norm_of,
    slopes,
    statistics,
    through_norm,
    total,
)


@dataclass(frozen=True)
class Block:
    """ReLU, depthwise convolution (or none), pointwise convolution, batch norm."""

    depthwise: nn.Conv2d | None
    pointwise: nn.Conv2d
    norm: nn.BatchNorm2d

    @property
    def weights(self) -> list[Tensor]:
        return [conv.weight for conv in (self.depthwise, self.pointwise) if conv is not None]

    def sizes(self, x: Tensor) -> BlockSizes:
        n, channels, height, width = x.shape
        stride, dilation, kernel = 1, 1, 0
        if self.depthwise is not None:
            stride, dilation = self.depthwise.stride[0], self.depthwise.dilation[0]
            kernel = self.depthwise.kernel_size[0]
        out_size = ((size + stride - 1) // stride for size in (height, width))
        return BlockSizes(n, height, width, channels, kernel, stride, dilation, *out_size, self.pointwise.out_channels)


@dataclass(frozen=True)
class Term:
    """One summand: a tensor [N, C, H, W] and the ``blocks``, or the ``norm`` alone, that are applied to it.

    A term with neither may be ``pooled``: replaced by the 3x3 means of its pixels, a border of one pixel not counted.
    """

    value: Tensor
    blocks: tuple[Block, ...] = ()
    norm: nn.BatchNorm2d | None = None
    pooled: bool = False

    @property
    def norms(self) -> list[nn.BatchNorm2d]:
        own = [self.norm] if self.norm is not None and not self.blocks else []
        return [block.norm for block in self.blocks] + own

    @property
    def normed(self) -> bool:
        """Return whether a norm is applied last."""
        return bool(self.blocks) or self.norm is not None


def weighted_sum(terms: Sequence[Term], weights: Tensor, factors: Tensor | None = None) -> Tensor:
    """Sum ``terms``, weighted by ``weights`` [K] and, per image, by ``factors`` [K, N].

    Norms use the batch's statistics and update their running ones. All terms have one shape; those with a norm come
    first.
    """
    normed = [term.normed for term in terms]
    assert normed == sorted(normed, reverse=True)
    values = {id(term.value): term.value for term in terms}
    types = {value.dtype for value in values.values()}
    if torch.bfloat16 in types and (len(types) > 1 or any(term.blocks for term in terms)):
        values = {key: value.float() for key, value in values.items()}  # no kernel of blocks in bfloat16
    indices = {key: index for index, key in enumerate(values)}
    plan = [(indices[id(term.value)], term.blocks, term.norm, term.pooled) for term in terms]
    tracked = [norm.num_batches_tracked for term in terms for norm in term.norms]
    if counts := [count for count in tracked if count is not None]:
        torch._foreach_add_(counts, 1)
    learnable = [weight for term in terms for block in term.blocks for weight in block.weights]
    return _WeightedSum.apply(plan, len(values), factors, weights, *values.values(), *learnable)


class _WeightedSum(torch.autograd.Function):
    """``plan`` has a row (index of its tensor, blocks, norm, pooled) for each term; ``tensors`` are ``count`` values,
    then the weights of the blocks.
    """

    @staticmethod
    def forward(ctx: Any, plan: list, count: int, factors: Tensor | None, weights: Tensor, *tensors: Tensor) -> Tensor:
        saved: list[Tensor] = [pixel_rows(value) for value in tensors[:count]] + list(tensors[count:])
        dtype = saved[0].dtype
        small = torch.float32 if dtype == torch.bfloat16 else dtype
        index, blocks, *_ = plan[0]
        channels = blocks[-1].pointwise.out_channels if blocks else saved[index].shape[1]
        mean, rstd = torch.zeros(len(plan), channels, dtype=small), torch.ones(len(plan), channels, dtype=small)
        learnable = iter(range(count, len(tensors)))
        chains, outputs = [], []
        for k, (index, blocks, norm, _) in enumerate(plan):
            chain, x, before = [], index, None
            for number, block in enumerate(blocks):
                sizes = block.sizes(saved[x])
                depthwise = next(learnable) if block.depthwise is not None else None
                step = BlockStep(sizes, x, before, depthwise, next(learnable), len(saved))
                last = number == len(blocks) - 1
                after = [] if last else [torch.empty(sizes.out_channels, dtype=small) for _ in range(2)]
                means = (row_address(mean, k), row_address(rstd, k)) if last else map(address, after)
                saved.append(block_forward(step, saved, norm_of(block.norm, *means)))
                if not last:
                    before = len(saved), len(saved) + 1
                    saved += after
                x = step.z
                chain.append(step)
            if norm is not None and not blocks:
                statistics(saved[x], norm_of(norm, row_address(mean, k), row_address(rstd, k)))
            chains.append((index, chain))
            outputs.append(x)
        w, factors = weights.detach().to(small), None if factors is None else factors.to(small)
        scale = w[:, None] * rstd
        pooled = [int(row[3]) for row in plan]
        y = total([saved[z] for z in outputs], factors, pooled, scale, -scale * mean)
        ctx.save_for_backward(w, factors, mean, rstd, *saved)
        ctx.chains, ctx.outputs, ctx.count, ctx.dtype = chains, outputs, count, weights.dtype
        ctx.normed = sum(bool(blocks) or norm is not None for _, blocks, norm, _ in plan)
        ctx.plain = _pairs_by_index([(k, plan[k][0], pooled[k]) for k in range(ctx.normed, len(plan))])
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        require_first_order()
        w, factors, mean, rstd, *saved = ctx.saved_tensors
        g = pixel_rows(g.to(saved[ctx.outputs[0]].dtype))
        gradients: list[Tensor | None] = [None] * len(saved)
        dw = torch.empty_like(w)
        if ctx.plain:
            dw[ctx.normed :] = add_plain_gradients(ctx.plain, w, factors, saved, g, gradients)
        if normed := ctx.normed:
            w, mean, rstd = w[:normed], mean[:normed], rstd[:normed]
            slope = slopes([saved[z] for z in ctx.outputs[:normed]], factors, mean, g)
            dw[:normed] = (rstd * slope[:, 1]).sum(dim=1)
            scales = through_norm(w[:, None], mean, rstd, slope, g.shape[0] * g.shape[2] * g.shape[3])
            direct: list[tuple[GradientSource, int]] = []  # of terms without blocks, by their index
            weights_too = any(ctx.needs_input_grad[4 + ctx.count :])
            for k, (index, chain) in enumerate(ctx.chains[:normed]):
                source = GradientSource(g, saved[ctx.outputs[k]], factors, *scales, k)
                for step in reversed(chain):
                    source = block_backward(step, source, saved, gradients, weights_too)
                if not chain:
                    direct.append((source, index))
            add_gradients(direct, gradients)
        return None, None, None, dw.to(ctx.dtype), *gradients[: len(ctx.needs_input_grad) - 4]


def _pairs_by_index(plain: list[tuple[int, int, int]]) -> list[tuple[int, list[int | None]]]:
    """Group terms (number, index, pooled) by the index of their tensor: at most one not pooled and one pooled each."""
    pairs: list[tuple[int, list[int | None]]] = []
    for k, index, pooled in plain:
        free = next((pair for other, pair in pairs if other == index and pair[pooled] is None), None)
        if free is None:
            free = [None, None]
            pairs.append((index, free))
        free[pooled] = k
    return pairs
