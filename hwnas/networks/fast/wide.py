"""What leaves a node, wide: one operation on several edges runs as a single operation, exact, with gradients.

A convolution of several edges has their weights side by side, a batch norm their channels. What an edge weighs in the
mixture is the factor of the batch norm at a candidate's end: the weighed output is not kept for the gradient. What
learns nothing is one for all edges, and a matrix weighs it. Parameters and running statistics stay in the candidates.
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
LEARNT = (nn.Conv2d, FactorizedReduce)


def layers_of(module: nn.Module) -> Layers:
    """A candidate's layers, ``FactorizedReduce`` standing for its halves; none where it cannot run wide."""
    if isinstance(module, FactorizedReduce):
        layers: Layers = (module.relu, module, module.norm)
    else:
        layers = tuple(module) if isinstance(module, nn.Sequential) else (module,)
    normed = isinstance(layers[-1], nn.BatchNorm2d) or not any(isinstance(layer, LEARNT) for layer in layers)
    return layers if normed and all(map(_is_known, layers)) else ()


def _is_known(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.bias is None and layer.padding_mode == "zeros" and layer.groups in (1, layer.in_channels)
    if isinstance(layer, nn.BatchNorm2d):
        return not layer.affine and layer.track_running_stats and layer.momentum is not None
    return isinstance(layer, (FactorizedReduce, nn.ReLU, nn.Identity, nn.MaxPool2d, nn.AvgPool2d))


def weighed_sums(
    candidates: Mapping[int, Mapping[int, Layers]], x: Tensor, firsts: dict[str, Tensor], weights: Tensor
) -> dict[int, Tensor]:
    """For every edge that leaves x the sum of its candidates' outputs, weighed by ``weights`` [E, K], in training.

    ``candidates[o][e]`` are the layers of operation o on edge e; for one operation they differ at most in what they
    have learnt. ``firsts`` has what first layers have made of x, by their names.
    """
    wide: dict[tuple[int, ...], Tensor] = {}  # for edges that run together their sums, side by side
    equal: dict[tuple[int, ...], dict[int, Tensor]] = defaultdict(dict)  # of all of these edges, by operation
    factors: dict[tuple[int, ...], tuple[Tensor, ...]] = {}
    for o, mine in candidates.items():
        different = _differ(list(mine.values()))
        for edges in _together(mine, x) if different else [tuple(mine)]:
            factors[edges] = factors.get(edges) or torch.stack([weights[e] for e in edges]).unbind(1)
            columns = list(zip(*dict.fromkeys(mine[e] for e in edges), strict=True))
            y = _output(columns, x, firsts, factors[edges][o] if different else None)
            if not different:
                equal[edges][o] = y
            else:
                wide[edges] = wide[edges].add_(y) if edges in wide else y
    sums: dict[int, Tensor] = {}
    for edges, values in equal.items():
        matrix = torch.stack([factors[edges][o] for o in values], dim=1)
        alone = matrix.numel() == 1
        weighed = [matrix[0, 0] * y for y in values.values()] if alone else _Weighed.apply(matrix, *values.values())
        sums |= _added(sums, edges, weighed)
    for edges, y in wide.items():
        sums |= _added(sums, edges, y.chunk(len(edges), dim=1) if len(edges) > 1 else [y])
    return sums


def _added(sums: dict[int, Tensor], edges: Sequence[int], values: Sequence[Tensor]) -> dict[int, Tensor]:
    return {e: sums[e] + y if e in sums else y for e, y in zip(edges, values, strict=True)}


def _differ(candidates: list[Layers]) -> bool:
    """Whether edges have outputs of their own: they have learnt, and not the same."""
    learnt = any(isinstance(layer, LEARNT) for layer in candidates[0])
    return learnt and (len(candidates) == 1 or len(set(candidates)) > 1)


def _together(mine: Mapping[int, Layers], x: Tensor) -> list[tuple[int, ...]]:
    """The edges that run as one: all, but on a CPU grouped convolutions are slower than one after the other."""
    layers = next(iter(mine.values()))
    depthwise = any(isinstance(layer, nn.Conv2d) and layer.groups > 1 for layer in layers)
    return [(e,) for e in mine] if depthwise and x.device.type == "cpu" else [tuple(mine)]


def _output(columns: list[Layers], x: Tensor, firsts: dict[str, Tensor], factors: Tensor | None) -> Tensor:
    """What ``columns``, each a layer of every edge, make of x; weighed by ``factors`` [E], [N, E * C, H, W]."""
    count = 1  # of edges that are side by side
    for place, column in enumerate(columns):
        layer = column[0]
        if isinstance(layer, nn.BatchNorm2d):
            x = _normalised(column, x, factors if place == len(columns) - 1 else None)
        elif isinstance(layer, FactorizedReduce):
            x, count = _halved(column, x), len(column)
        elif isinstance(layer, DilatedDepthwise) and len(column) == 1:
            before = columns[0][0]
            x = _dilated(layer, x, {} if place > 1 or isinstance(before, LEARNT) else firsts, str(before))
        elif isinstance(layer, nn.Conv2d):
            if layer.groups > 1 and count < len(column):
                count = len(column)
                name = " ".join([f"{count} times", *(str(before) for before, *_ in columns[:place])])
                if name not in firsts:
                    firsts[name] = torch.cat([x] * count, dim=1)
                x = firsts[name]
            x = _convolved(column, x, layer.groups * count)
            count = len(column)
        elif place == 0:
            name = str(layer)
            if name not in firsts:
                firsts[name] = layer(x)
            x = firsts[name]
        else:
            behind_norm = isinstance(layer, nn.ReLU) and isinstance(columns[place - 1][0], nn.BatchNorm2d)
            x = F.relu_(x) if behind_norm else layer(x)  # no norm needs its output for the gradient
    return x


def _convolved(column: Sequence[Any], x: Tensor, groups: int) -> Tensor:
    first = column[0]
    weight = torch.cat([conv.weight for conv in column]) if len(column) > 1 else first.weight
    if isinstance(first, Pointwise):
        return pointwise(x, weight, first.stride[0])
    return F.conv2d(x, weight, None, first.stride, first.padding, first.dilation, groups)


def _dilated(conv: DilatedDepthwise, x: Tensor, firsts: dict[str, Tensor], behind: str) -> Tensor:
    """The grids of x, which is what is ``behind`` a first layer, are made once for all convolutions that read them."""
    name = f"grids {conv.stride} {conv.dilation} {behind}"
    grids = firsts[name] if name in firsts else conv.grids(x)
    if grids is None:
        return conv(x)
    firsts[name] = grids
    return conv.on_grids(grids, x.shape)


def _halved(column: Sequence[Any], x: Tensor) -> Tensor:
    """Even and odd half of every edge."""
    if len(column) == 1:
        return column[0].halves(x)
    even = pointwise(x, torch.cat([m.even.weight for m in column]), 2)
    odd = pointwise(column[0].shifted(x), torch.cat([m.odd.weight for m in column]), 2)
    halves = zip(even.chunk(len(column), dim=1), odd.chunk(len(column), dim=1), strict=True)
    return torch.cat([half for pair in halves for half in pair], dim=1)


def _normalised(norms: Sequence[Any], x: Tensor, factors: Tensor | None) -> Tensor:
    """By the batch's statistics, which are added to the running ones, times ``factors``, one for every norm."""
    first = norms[0]
    mean, variance = first.running_mean.new_zeros(2, x.shape[1])
    scale = None if factors is None else factors.to(mean).repeat_interleave(first.num_features)
    x = F.batch_norm(x, mean, variance, scale, None, True, 1.0, first.eps)
    means, variances = mean.split(first.num_features), variance.split(first.num_features)
    copies = len(norms) // len(means)  # norms of edges that have one x have seen the same
    running = [norm.running_mean for norm in norms] + [norm.running_var for norm in norms]
    torch._foreach_lerp_(running, [*means * copies, *variances * copies], first.momentum)
    torch._foreach_add_([norm.num_batches_tracked for norm in norms], 1)
    return x


class _Weighed(torch.autograd.Function):
    """For every row of a matrix [E, K] the sum of the K values it weighs; what is kept are the values, no copies."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(matrix, *values)
        return _product(matrix, _rows(values))

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, ...]:
        matrix, *values = ctx.saved_tensors
        rows, above = _rows(values), _rows(slopes)
        with torch.autocast(rows.device.type, enabled=False):
            taught = above.flatten(1) @ rows.flatten(1).to(above).t()
        passed = _product(matrix.t(), above)
        return taught.to(matrix), *(p.to(v.dtype) for p, v in zip(passed, values, strict=True))


def _rows(values: Sequence[Tensor]) -> Tensor:
    """[K, N, H, W, C]."""
    return torch.stack([value.permute(0, 2, 3, 1) for value in values])


def _product(matrix: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
    with torch.autocast(rows.device.type, enabled=False):
        sums = matrix.to(rows) @ rows.flatten(1)
    return sums.view(-1, *rows.shape[1:]).permute(0, 1, 4, 2, 3).unbind()


def compact(x: Tensor) -> Tensor:
    """x in memory of its own, no slice of what is wide; and so its gradient: batch norms are slow with slices."""
    if x.requires_grad:
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        x = x.clone() if x._is_view() else x
        x.register_hook(lambda slope: slope.contiguous(memory_format=layout))
    return x
