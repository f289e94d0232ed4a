"""Split candidates into steps, to share first layers and to find what the kernels and fused edges can run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeGuard

import torch
from torch import Tensor, nn

from hwnas.networks.fast.fused_edges import Layers, layers_of
from hwnas.networks.fast.kernel_layers import pool
from hwnas.networks.fast.weighted_sum import Block, Term, weighted_sum
from hwnas.operations import FactorizedReduce

Layer = Callable[[Tensor], Tensor]
POOLS = (nn.MaxPool2d, nn.AvgPool2d)


@dataclass
class FirstOutputs:
    """The outputs of first layers on one tensor, by the text of the layer, and its unused ReLU copies."""

    by_layer: dict[str, Tensor] = field(default_factory=dict)
    rectified: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Steps:
    """A module as its ``first`` layer if that has no parameters, the layers after it, and the batch norm at its end.

    ``blocks`` is the whole module if the kernels can run all of its layers, ``layers`` if edges can be fused; modules
    of one ``kind`` differ only in their parameters.
    """

    first: nn.Module | None
    rest: tuple[Layer, ...]
    norm: nn.BatchNorm2d | None
    blocks: tuple[Block, ...] = ()
    layers: Layers = ()
    kind: str = ""

    def in_blocks(self, x: Tensor) -> bool:
        """Return whether the kernels run the whole module on x."""
        return bool(self.blocks) and x.dtype != torch.bfloat16

    def rectifies(self, x: Tensor) -> bool:
        """Return whether ``term`` reads the ReLU of x."""
        return isinstance(self.first, nn.ReLU) and not self.in_blocks(x)

    def term(self, x: Tensor, first_outputs: FirstOutputs) -> Term:
        """Return the module's output for x as a summand for the kernels."""
        if self.in_blocks(x):
            return Term(x, self.blocks)
        if _is_average_pool(self.first) and not self.rest and self.norm is None:
            return Term(x, pooled=True)
        value = self._before_norm(x, first_outputs, True)
        return Term(value, (), self.norm) if self.norm is None or is_plain(self.norm) else Term(self.norm(value))

    def output(self, x: Tensor, first_outputs: FirstOutputs, compiled: bool) -> Tensor:
        """Return the module's output for x."""
        if compiled:
            term = self.term(x, first_outputs)
            return weighted_sum([term], torch.ones(1)) if term.norms or term.pooled else term.value
        value = self._before_norm(x, first_outputs, False)
        return value if self.norm is None else self.norm(value)

    def _before_norm(self, x: Tensor, first_outputs: FirstOutputs, compiled: bool) -> Tensor:
        if first_outputs.rectified and isinstance(self.first, nn.ReLU):
            x = first_outputs.rectified.pop()
        elif self.first is not None:
            name = str(self.first)
            if name not in first_outputs.by_layer:
                first_outputs.by_layer[name] = (
                    pool(x, self.first) if compiled and _is_pool(self.first) else self.first(x)
                )
            x = first_outputs.by_layer[name]
        for layer in self.rest:
            x = layer(x)
        return x


def steps_of(module: nn.Module) -> Steps:
    """Split a module."""
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
    """Return the blocks that a candidate consists of; none if it has other layers."""
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
    """Return whether the kernels can run it: 3x3, one stride, a border that does not count."""
    if not isinstance(layer, POOLS) or layer.ceil_mode or getattr(layer, "count_include_pad", False):
        return False
    square = layer.kernel_size in (3, (3, 3)) and layer.padding in (1, (1, 1)) and getattr(layer, "dilation", 1) == 1
    return square and isinstance(layer.stride, int) and getattr(layer, "divisor_override", None) is None


def _is_average_pool(layer: nn.Module | None) -> bool:
    """Return whether the kernels apply it in their sums."""
    return isinstance(layer, nn.AvgPool2d) and _is_pool(layer) and layer.stride == 1


def _is_pointwise(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.groups == 1 and conv.bias is None


def _is_depthwise(conv: nn.Conv2d) -> bool:
    kernel, dilation = conv.kernel_size[0], conv.dilation[0]
    square = conv.kernel_size in ((3, 3), (5, 5)) and conv.padding == (dilation * (kernel // 2),) * 2
    return square and conv.groups == conv.in_channels == conv.out_channels and conv.bias is None
