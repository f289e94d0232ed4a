"""Naive reference: a supernet that runs every candidate on every edge, one after the other, as published code does.

Default layout; ``none`` multiplies by zero; what an edge gives is ``sum(w * op(x))``. What the tool saves is measured
against this. It takes its modules from a supernet of the tool, so both have the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor, nn

from hwnas.networks.drop_path import DropPath
from hwnas.networks.mixed_cell import Mixed, MixedCell
from hwnas.networks.supernet import Supernet
from hwnas.operations import DilatedDepthwise
from hwnas.spaces import FixedModule


class NaiveSupernet(nn.Module):
    """The function of ``supernet`` with all candidates run: images [N, C, H, W] -> scores."""

    def __init__(self, supernet: Supernet) -> None:
        super().__init__()
        assert supernet.partial == 1
        assert not supernet.shared
        self.network, self.num_edges = supernet.network, supernet.num_edges
        self.supernet = supernet.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def forward(
        self,
        x: Tensor,
        mixture: Mapping[str, Mixed],
        instances: Mapping[int, Mixed] | None = None,
        drop: DropPath | None = None,
    ) -> Tensor:
        """Run the supernet; only the weights of each ``Mixed`` are used."""
        values = {-1: x.contiguous()}
        for index, (part, module) in enumerate(zip(self.network.parts, self.supernet.parts, strict=True)):
            inputs = [values[source] for source in part.inputs]
            if isinstance(part, FixedModule):
                values[index] = module(*inputs)
            else:
                weights = (instances or {}).get(index, mixture[part.kind]).weights
                values[index] = naive_cell(module, weights, inputs, drop)  # type: ignore[arg-type]
        return values[len(self.supernet.parts) - 1]


def naive_cell(cell: MixedCell, weights: Tensor, inputs: list[Tensor], drop: DropPath | None) -> Tensor:
    nodes = [prepare(x) for prepare, x in zip(cell.preprocess, inputs, strict=True)]
    for node in cell.cell.inner_nodes:
        values = [naive_edge(cell, e, weights[e], nodes[cell.cell.edges[e][0]]) for e in cell.cell.edges_into(node)]
        nodes.append(sum(drop(value) if drop else value for value in values))  # type: ignore[arg-type]
    outputs = [nodes[node] for node in cell.cell.outputs]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def naive_edge(cell: MixedCell, e: int, weights: Tensor, x: Tensor) -> Tensor:
    def output(op: str) -> Tensor:
        if op != "none":
            return naive_operation(cell.candidate(e, op), x)
        stride = -(-x.shape[2] // cell.out_size[0])
        return x[:, :, ::stride, ::stride].mul(0.0)

    return sum(w * output(op) for w, op in zip(weights, cell.operations, strict=True))  # type: ignore[return-value]


def naive_operation(module: nn.Module, x: Tensor) -> Tensor:
    """Use torch's own dilated convolutions."""
    if isinstance(module, DilatedDepthwise):
        return nn.Conv2d.forward(module, x)
    if isinstance(module, nn.Sequential):
        return reduce(lambda y, layer: naive_operation(layer, y), module, x)
    return module(x)  # type: ignore[no-any-return]
