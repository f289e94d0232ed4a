"""Fuse one operation over all edges that leave a node, exact, with gradients.

A fused convolution concatenates the weights of its edges, a fused batch norm their channels. The mixture's weight of an
edge is the scale of the batch norm at the candidate's end, so the weighted output is not saved for the gradient. An
operation without parameters runs once for all edges, and a matrix weights its output. Parameters and running statistics
stay in the candidates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwnas.operations import DilatedDepthwise, FactorizedReduce, Pointwise, pointwise

Layers = tuple[nn.Module, ...]
LEARNABLE = (nn.Conv2d, FactorizedReduce)


def layers_of(module: nn.Module) -> Layers:
    """Return a candidate's layers, ``FactorizedReduce`` in place of its two halves; none if it cannot be fused."""
    if isinstance(module, FactorizedReduce):
        layers: Layers = (module.relu, module, module.norm)
    else:
        layers = tuple(module) if isinstance(module, nn.Sequential) else (module,)
    normed = isinstance(layers[-1], nn.BatchNorm2d) or not any(isinstance(layer, LEARNABLE) for layer in layers)
    return layers if normed and all(map(_is_known, layers)) else ()


def _is_known(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.bias is None and layer.padding_mode == "zeros" and layer.groups in (1, layer.in_channels)
    if isinstance(layer, nn.BatchNorm2d):
        return not layer.affine and layer.track_running_stats and layer.momentum is not None
    return isinstance(layer, (FactorizedReduce, nn.ReLU, nn.Identity, nn.MaxPool2d, nn.AvgPool2d))


def weighted_sums(
    candidates: Mapping[int, Mapping[int, Layers]], x: Tensor, first_outputs: dict[str, Tensor], weights: Tensor
) -> dict[int, Tensor]:
    """Return for every edge that leaves x the sum of its candidates, weighted by ``weights`` [E, K], in training.

    ``candidates[o][e]`` are the layers of operation o on edge e; for one operation they differ only in their
    parameters. ``first_outputs`` holds the outputs of first layers on x, by the text of the layer.
    """
    fused: dict[tuple[int, ...], Tensor] = {}  # by the edges that run together, their sums side by side
    equal: dict[tuple[int, ...], dict[int, Tensor]] = defaultdict(dict)  # outputs that edges share, by operation
    factors: dict[tuple[int, ...], tuple[Tensor, ...]] = {}
    for o, mine in candidates.items():
        different = _differ(list(mine.values()))
        for edges in _together(mine, x) if different else [tuple(mine)]:
            factors[edges] = factors.get(edges) or torch.stack([weights[e] for e in edges]).unbind(1)
            columns = list(zip(*dict.fromkeys(mine[e] for e in edges), strict=True))
            y = _output(columns, x, first_outputs, factors[edges][o] if different else None)
            if not different:
                equal[edges][o] = y
            else:
                fused[edges] = fused[edges].add_(y) if edges in fused else y
    sums: dict[int, Tensor] = {}
    for edges, values in equal.items():
        matrix = torch.stack([factors[edges][o] for o in values], dim=1)
        alone = matrix.numel() == 1
        weighted = (
            [matrix[0, 0] * y for y in values.values()] if alone else _WeightedByMatrix.apply(matrix, *values.values())
        )
        sums |= _added(sums, edges, weighted)
    for edges, y in fused.items():
        sums |= _added(sums, edges, y.chunk(len(edges), dim=1) if len(edges) > 1 else [y])
    return sums


def _added(sums: dict[int, Tensor], edges: Sequence[int], values: Sequence[Tensor]) -> dict[int, Tensor]:
    return {e: sums[e] + y if e in sums else y for e, y in zip(edges, values, strict=True)}


def _differ(candidates: list[Layers]) -> bool:
    """Return whether edges have outputs of their own: they have parameters, and do not share them."""
    learnable = any(isinstance(layer, LEARNABLE) for layer in candidates[0])
    return learnable and (len(candidates) == 1 or len(set(candidates)) > 1)


def _together(mine: Mapping[int, Layers], x: Tensor) -> list[tuple[int, ...]]:
    """Group the edges that run as one: all of them, but on a CPU grouped convolutions are slower than single ones."""
    layers = next(iter(mine.values()))
    depthwise = any(isinstance(layer, nn.Conv2d) and layer.groups > 1 for layer in layers)
    return [(e,) for e in mine] if depthwise and x.device.type == "cpu" else [tuple(mine)]


def _output(columns: list[Layers], x: Tensor, first_outputs: dict[str, Tensor], factors: Tensor | None) -> Tensor:
    """Apply ``columns``, each one layer of every edge, to x: [N, E * C, H, W], weighted by ``factors`` [E]."""
    count = 1  # edges whose channels are side by side in x
    for depth, column in enumerate(columns):
        layer = column[0]
        if isinstance(layer, nn.BatchNorm2d):
            x = _normalised(column, x, factors if depth == len(columns) - 1 else None)
        elif isinstance(layer, FactorizedReduce):
            x, count = _halved(column, x), len(column)
        elif isinstance(layer, DilatedDepthwise) and len(column) == 1:
            before = columns[0][0]
            x = _dilated(layer, x, {} if depth > 1 or isinstance(before, LEARNABLE) else first_outputs, str(before))
        elif isinstance(layer, nn.Conv2d):
            if layer.groups > 1 and count < len(column):
                count = len(column)
                name = " ".join([f"{count} times", *(str(before) for before, *_ in columns[:depth])])
                if name not in first_outputs:
                    first_outputs[name] = torch.cat([x] * count, dim=1)
                x = first_outputs[name]
            x = _convolved(column, x, layer.groups * count)
            count = len(column)
        elif depth == 0:
            name = str(layer)
            if name not in first_outputs:
                first_outputs[name] = layer(x)
            x = first_outputs[name]
        else:
            after_norm = isinstance(layer, nn.ReLU) and isinstance(columns[depth - 1][0], nn.BatchNorm2d)
            x = F.relu_(x) if after_norm else layer(x)  # norms do not need their output for the gradient
    return x


def _convolved(column: Sequence[Any], x: Tensor, groups: int) -> Tensor:
    first = column[0]
    weight = torch.cat([conv.weight for conv in column]) if len(column) > 1 else first.weight
    if isinstance(first, Pointwise):
        return pointwise(x, weight, first.stride[0])
    return F.conv2d(x, weight, None, first.stride, first.padding, first.dilation, groups)


def _dilated(conv: DilatedDepthwise, x: Tensor, first_outputs: dict[str, Tensor], before: str) -> Tensor:
    """Apply a dilated convolution to x, the output of layer ``before``; convolutions that read x share its grids."""
    name = f"grids {conv.stride} {conv.dilation} {before}"
    grids = first_outputs[name] if name in first_outputs else conv.grids(x)
    if grids is None:
        return conv(x)
    first_outputs[name] = grids
    return conv.on_grids(grids, x.shape)


def _halved(column: Sequence[Any], x: Tensor) -> Tensor:
    """Apply the even and the odd half of every edge."""
    if len(column) == 1:
        return column[0].halves(x)
    even = pointwise(x, torch.cat([m.even.weight for m in column]), 2)
    odd = pointwise(column[0].shifted(x), torch.cat([m.odd.weight for m in column]), 2)
    halves = zip(even.chunk(len(column), dim=1), odd.chunk(len(column), dim=1), strict=True)
    return torch.cat([half for pair in halves for half in pair], dim=1)


def _normalised(norms: Sequence[Any], x: Tensor, factors: Tensor | None) -> Tensor:
    """Normalise by the batch's statistics, update the running ones, and scale by ``factors``, one for every norm."""
    first = norms[0]
    mean, variance = first.running_mean.new_zeros(2, x.shape[1])
    scale = None if factors is None else factors.to(mean).repeat_interleave(first.num_features)
    x = F.batch_norm(x, mean, variance, scale, None, True, 1.0, first.eps)
    means, variances = mean.split(first.num_features), variance.split(first.num_features)
    copies = len(norms) // len(means)  # norms of edges that share one x have the same statistics
    running = [norm.running_mean for norm in norms] + [norm.running_var for norm in norms]
    torch._foreach_lerp_(running, [*means * copies, *variances * copies], first.momentum)
    torch._foreach_add_([norm.num_batches_tracked for norm in norms], 1)
    return x


class _WeightedByMatrix(torch.autograd.Function):
    """The weighted sum of K values for each row of a matrix [E, K]; the values are saved without copying them."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(matrix, *values)
        return _product(matrix, _rows(values))

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, ...]:
        matrix, *values = ctx.saved_tensors
        rows, above = _rows(values), _rows(slopes)
        with torch.autocast(rows.device.type, enabled=False):
            matrix_gradient = above.flatten(1) @ rows.flatten(1).to(above).t()
        value_gradients = _product(matrix.t(), above)
        return matrix_gradient.to(matrix), *(p.to(v.dtype) for p, v in zip(value_gradients, values, strict=True))


def _rows(values: Sequence[Tensor]) -> Tensor:
    """Return [K, N, H, W, C]."""
    return torch.stack([value.permute(0, 2, 3, 1) for value in values])


def _product(matrix: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
    with torch.autocast(rows.device.type, enabled=False):
        sums = matrix.to(rows) @ rows.flatten(1)
    return sums.view(-1, *rows.shape[1:]).permute(0, 1, 4, 2, 3).unbind()


def own_memory(x: Tensor) -> Tensor:
    """Copy x if it is a slice of a fused tensor, and so its gradient: batch norms are slow on slices."""
    if x.requires_grad:
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        x = x.clone() if x._is_view() else x
        x.register_hook(lambda slope: slope.contiguous(memory_format=layout))
    return x
