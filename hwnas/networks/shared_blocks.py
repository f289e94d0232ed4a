"""One block for all kernels, expansions and widths of a layer (once-for-all, Cai et al., ICLR 2020).

The candidates of a layer that are inverted residuals and differ in nothing but kernel and expansion share one block:
that of the largest kernel and the widest expansion. A candidate has the first channels of its middle, and the centre of
its depthwise kernels. With ``transformed`` every size of kernel is a learnt linear map of the centre of the next larger
one (shared by the channels of a layer; the identity at first). Candidates without the first 1x1 convolution, or with a
grouped one, share a block of their own.

Where the widths before and after a layer are chosen, a candidate has the first of their channels, too, with or without
``shared_blocks``: without, the variants of each candidate share a block. Operations other than inverted residuals and
plain convolutions, and grouped convolutions, whose groups would be mixed, have weights of their own for every width.

Differences from the paper: batch norms have no learnable factors in a search, and every candidate has running
statistics of its own. The paper's are the first channels of shared ones and fit no candidate until they are
recalibrated, as those of a child are here, too. Weights come from the chosen learning, not from progressive shrinking.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.operations import build_operation
from hwnas.spaces import Network, Workload
from hwnas.spaces.mobile_blocks import InvertedResidual, MobileLayer, inverted_residual, read_mobile_layer
from hwnas.spaces.space import CellInstance

Sharing = Literal["slices", "transformed"]
Key = tuple[str, tuple[str, ...]]  # of a candidate of a layer: the operation, and those of the edges that it reads


class SharedBlock(nn.Module):
    """The convolutions of the largest of some candidates, and the maps to smaller kernels by their side."""

    def __init__(self, workloads: Sequence[Workload], sharing: Sharing, affine: bool = False) -> None:
        super().__init__()
        self.affine = affine  # of the candidates' batch norms
        largest = largest_of(workloads)
        self.convolutions = nn.ModuleList(
            conv for _, _, conv in convolutions_of(build_operation(largest, affine=False))
        )
        self.kernels = sorted({_layer(w).kernel for w in workloads}, reverse=True)
        maps = {str(k): nn.Parameter(torch.eye(k * k)) for k in self.kernels[1:]} if sharing == "transformed" else {}
        self.maps = nn.ParameterDict(maps)

    def candidate(self, workload: Workload) -> nn.Module:
        """Build a candidate whose convolutions are slices of this block's."""
        block = build_operation(workload, affine=self.affine)
        for (parent, name, own), shared in zip(convolutions_of(block), self.convolutions, strict=True):
            assert isinstance(shared, nn.Conv2d)
            setattr(parent, name, SlicedConvolution(own, shared, self))
        return block


class SlicedConvolution(nn.Module):
    """A convolution of the sizes of ``own`` whose weight is a slice of that of a shared block, which owns it."""

    def __init__(self, own: nn.Conv2d, shared: nn.Conv2d, block: SharedBlock) -> None:
        super().__init__()
        self.out_channels, self.in_channels, self.groups = own.out_channels, own.in_channels, own.groups
        self.kernel, self.stride = own.kernel_size[0], own.stride
        self.dilation, self.padding = own.dilation, own.dilation[0] * (self.kernel // 2)
        self._owner = (shared, block)  # in a tuple, so that the block's parameters are not registered again

    @property
    def weight(self) -> Tensor:
        """The weight [out, in / groups, kernel, kernel]: a view, but for kernels that a map makes."""
        shared, block = self._owner
        weight = self._first_channels
        for kernel in block.kernels if shared.kernel_size[0] > 1 else ():
            if self.kernel <= kernel < weight.shape[-1]:
                weight = _centre(weight, kernel)
                if str(kernel) in block.maps:
                    flat = weight.reshape(-1, kernel * kernel)
                    weight = (flat @ block.maps[str(kernel)].T).reshape(weight.shape)
        return weight

    @property
    def slice(self) -> Tensor:
        """The slice [out, in / groups, kernel, kernel] of the shared weight, a view; it is ``weight`` without maps."""
        return _centre(self._first_channels, self.kernel)

    @property
    def _first_channels(self) -> Tensor:
        return self._owner[0].weight[: self.out_channels, : self.in_channels // self.groups]

    @property
    def bias(self) -> Tensor | None:
        """The bias [out], a view; None for a convolution without one."""
        bias = self._owner[0].bias
        return None if bias is None else bias[: self.out_channels]

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        return nn.functional.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


def shared_blocks(
    candidates: Mapping[Key, Workload], sharing: Sharing | None, affine: bool = False
) -> Iterator[tuple[SharedBlock, dict[Key, nn.Module]]]:
    """Yield every block that candidates of a layer share, with these candidates.

    ``sharing`` None: the variants of each operation share a block, and no two operations do.
    """
    for keys in _sharing(candidates, across=sharing is not None):
        block = SharedBlock([candidates[key] for key in keys], sharing or "slices", affine)
        yield block, {key: block.candidate(candidates[key]) for key in keys}


def require_shareable(network: Network, space: str) -> None:
    """Raise HwnasError where no layer of a network has candidates that can share a block."""
    for part in network.parts:
        for candidates in part.candidates if isinstance(part, CellInstance) else ():
            if _sharing({(name, ()): workload for name, workload in candidates.items() if workload}, across=True):
                return
    raise HwnasError(
        f"shared_blocks shares kernels and expansions of inverted residuals, and space {space} has none that differ in "
        "these alone",
        "remove shared_blocks from the recipe, or search in a chain such as --space mobilenetv3",
    )


def largest_of(workloads: Sequence[Workload]) -> Workload:
    """Return the workload with the most channels, the largest kernel and the widest middle of some that share a block.

    None of them adds its input; the block's convolutions are the same.
    """
    layers = [_layer(w) for w in workloads]
    into, out = max(w.in_channels for w in workloads), max(w.out_channels for w in workloads)
    largest, first = replace(workloads[0], in_channels=into, out_channels=out), layers[0]
    if not isinstance(first, InvertedResidual):
        return largest
    pairs = zip(layers, workloads, strict=True)
    widest = max(layer.middle_channels(w.in_channels) for layer, w in pairs if isinstance(layer, InvertedResidual))
    form = {**vars(first), "kernel": max(layer.kernel for layer in layers), "residual": False}
    facts = {name: value for name, value in form.items() if name not in ("expansion", "middle")}
    return replace(largest, op=inverted_residual(into, widest, **facts).op)


def convolutions_of(module: nn.Module) -> list[tuple[nn.Module, str, nn.Conv2d]]:
    """Return the convolutions of a module in their order, each with the module that holds it and its name there."""
    found: list[tuple[nn.Module, str, nn.Conv2d]] = []
    for path, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d):
            parent, _, name = path.rpartition(".")
            found.append((module.get_submodule(parent), name, layer))
    return found


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's ``state_dict`` with the slices that it has of a shared block."""
    state = dict(module.state_dict())
    for name, layer in module.named_modules():
        if isinstance(layer, SlicedConvolution):
            state[f"{name}.weight"] = layer.weight.detach()
            if layer.bias is not None:
                state[f"{name}.bias"] = layer.bias.detach()
    return state


def slices_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the slices that a module has of a shared block, by the names of its tensors: views, without gradient."""
    found: dict[str, Tensor] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, SlicedConvolution):
            found[f"{name}.weight"] = layer.slice.detach()
            if layer.bias is not None:
                found[f"{name}.bias"] = layer.bias.detach()
    return found


def _sharing(candidates: Mapping[Key, Workload], across: bool) -> list[list[Key]]:
    """Return the candidates that share a block, two or more each: equal but for kernel, expansion and channels.

    ``across`` operations, or each operation's variants alone.
    """
    groups: dict[tuple[object, ...], list[Key]] = {}
    for key, workload in candidates.items():
        if form := _form(workload):
            inverted = isinstance(_layer(workload), InvertedResidual)
            groups.setdefault((form, None if across and inverted else key[0]), []).append(key)
    return [keys for keys in groups.values() if len(keys) > 1]


def _form(workload: Workload) -> tuple[Any, ...] | None:
    """Return what candidates that share a block have in common; None for an operation that cannot share."""
    layer, w = read_mobile_layer(workload.op), workload
    if layer is None:
        return None
    channels = (w.in_channels, w.out_channels) if layer.groups > 1 else ()  # first channels would mix the groups
    if not isinstance(layer, InvertedResidual):
        return layer, channels
    middle = layer.middle_channels(w.in_channels) if layer.groups > 1 else 0
    form = replace(layer, kernel=1, expansion=1, middle=0, residual=False)
    return form, channels, middle, layer.expands(w.in_channels)


def _layer(workload: Workload) -> MobileLayer:
    layer = read_mobile_layer(workload.op)
    assert layer is not None
    return layer


def _centre(weight: Tensor, kernel: int) -> Tensor:
    """Return the centre [.., kernel, kernel] of kernels."""
    margin = (weight.shape[-1] - kernel) // 2
    return weight[..., margin : margin + kernel, margin : margin + kernel]
