"""Candidates taken apart: what several have in common is computed once, and what fuses is told to the kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeGuard

import torch
from torch import Tensor, nn

from hwnas.networks.fast.mixture import Block, Term, mix, pool
from hwnas.networks.fast.wide import Layers, layers_of
from hwnas.operations import FactorizedReduce

Layer = Callable[[Tensor], Tensor]
POOLS = (nn.MaxPool2d, nn.AvgPool2d)


@dataclass
class Firsts:
    """What first layers have ``made`` of a tensor, by their names, and its ReLUs that are still to be read."""

    made: dict[str, Tensor] = field(default_factory=dict)
    rectified: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Steps:
    """A module as its ``first`` layer where that learns nothing, the layers behind, and the batch norm at its end.

    ``blocks`` are the whole of it where the kernels know all of its layers, ``layers`` where it can run wide; modules
    of one ``kind`` differ at most in what they have learnt.
    """

    first: nn.Module | None
    rest: tuple[Layer, ...]
    norm: nn.BatchNorm2d | None
    blocks: tuple[Block, ...] = ()
    layers: Layers = ()
    kind: str = ""

    def in_blocks(self, x: Tensor) -> bool:
        """Whether the kernels run all of it on x."""
        return bool(self.blocks) and x.dtype != torch.bfloat16

    def rectifies(self, x: Tensor) -> bool:
        """Whether ``term`` reads a ReLU of x."""
        return isinstance(self.first, nn.ReLU) and not self.in_blocks(x)

    def term(self, x: Tensor, firsts: Firsts) -> Term:
        """The module's output for x as a summand for the kernels."""
        if self.in_blocks(x):
            return Term(x, self.blocks)
        if _is_averaging(self.first) and not self.rest and self.norm is None:
            return Term(x, pooled=True)
        value = self._behind_first(x, firsts, True)
        return Term(value, (), self.norm) if self.norm is None or is_plain(self.norm) else Term(self.norm(value))

    def output(self, x: Tensor, firsts: Firsts, fused: bool) -> Tensor:
        if fused:
            term = self.term(x, firsts)
            return mix([term], torch.ones(1)) if term.norms or term.pooled else term.value
        value = self._behind_first(x, firsts, False)
        return value if self.norm is None else self.norm(value)

    def _behind_first(self, x: Tensor, firsts: Firsts, fused: bool) -> Tensor:
        if firsts.rectified and isinstance(self.first, nn.ReLU):
            x = firsts.rectified.pop()
        elif self.first is not None:
            name = str(self.first)
            if name not in firsts.made:
                firsts.made[name] = pool(x, self.first) if fused and _is_pool(self.first) else self.first(x)
            x = firsts.made[name]
        for layer in self.rest:
            x = layer(x)
        return x


def steps_of(module: nn.Module) -> Steps:
    """Take a module apart."""
    if isinstance(module, FactorizedReduce):
        return Steps(module.relu, (module.halves,), module.norm, (), layers_of(module), str(module))
    layers = list(module) if isinstance(module, nn.Sequential) else [module]
    norm = None
    if isinstance(layers[-1], nn.BatchNorm2d):
        norm = layers[-1]
        layers.pop()
    first = layers.pop(0) if layers and isinstance(layers[0], (nn.ReLU, *POOLS)) else None
    rest = tuple(layer for layer in layers if not isinstance(layer, nn.Identity))
    return Steps(first, rest, norm, blocks_of(module), layers_of(module), str(module))


def blocks_of(module: nn.Module) -> tuple[Block, ...]:
    """The blocks that a candidate is made of; none when it is something else."""
    layers = list(module) if isinstance(module, nn.Sequential) else []
    blocks = []
    while layers:
        convolutions = [layer for layer in layers[1:3] if isinstance(layer, nn.Conv2d)]
        size = 2 + len(convolutions)
        norm = layers[size - 1] if size <= len(layers) else None
        if not isinstance(layers[0], nn.ReLU) or not isinstance(norm, nn.BatchNorm2d) or not is_plain(norm):
            return ()
        if not convolutions or not _is_pointwise(convolutions[-1]) or not all(map(_is_depthwise, convolutions[:-1])):
            return ()
        *before, last = convolutions
        blocks.append(Block(before[0] if before else None, last, norm))
        layers = layers[size:]
    return tuple(blocks)


def is_plain(norm: nn.Module) -> bool:
    return type(norm) is nn.BatchNorm2d and not norm.affine and norm.track_running_stats


def _is_pool(layer: nn.Module) -> TypeGuard[nn.MaxPool2d | nn.AvgPool2d]:
    """Whether the kernels know it: 3x3, one stride, a border that does not count."""
    if not isinstance(layer, POOLS) or layer.ceil_mode or getattr(layer, "count_include_pad", False):
        return False
    square = layer.kernel_size in (3, (3, 3)) and layer.padding in (1, (1, 1)) and getattr(layer, "dilation", 1) == 1
    return square and isinstance(layer.stride, int) and getattr(layer, "divisor_override", None) is None


def _is_averaging(layer: nn.Module | None) -> bool:
    """Whether the kernels take it into their sums."""
    return isinstance(layer, nn.AvgPool2d) and _is_pool(layer) and layer.stride == 1


def _is_pointwise(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.groups == 1 and conv.bias is None


def _is_depthwise(conv: nn.Conv2d) -> bool:
    kernel, dilation = conv.kernel_size[0], conv.dilation[0]
    square = conv.kernel_size in ((3, 3), (5, 5)) and conv.padding == (dilation * (kernel // 2),) * 2
    return square and conv.groups == conv.in_channels == conv.out_channels and conv.bias is None
