"""One block for all kernels and expansions of a layer (once-for-all, Cai et al., ICLR 2020).

The candidates of a layer that are inverted residuals and differ in nothing but kernel and expansion share one block:
that of the largest kernel and the widest expansion. A candidate has the first channels of its middle, and the centre of
its depthwise kernels. With ``transformed`` every size of kernel is a learnt linear map of the centre of the next larger
one (shared by the channels of a layer; the identity at first). Candidates without the first 1x1 convolution, or with a
grouped one, share a block of their own.

Differences from the paper: batch norms have no learnable factors in a search, and every candidate has running
statistics of its own. The paper's are the first channels of shared ones and fit no candidate until they are
recalibrated, as those of a child are here, too. Weights come from the chosen learning, not from progressive shrinking.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.operations import build_operation
from hwnas.operations.mobile_blocks import InvertedResidualBlock, SqueezeExcitation
from hwnas.spaces import Network, Workload
from hwnas.spaces.mobile_blocks import InvertedResidual, inverted_residual, read_mobile_layer
from hwnas.spaces.space import CellInstance

Sharing = Literal["slices", "transformed"]


class SharedBlock(nn.Module):
    """The convolutions of the largest of some candidates, and the maps to smaller kernels by their side."""

    def __init__(self, workloads: Sequence[Workload], sharing: Sharing) -> None:
        super().__init__()
        largest = largest_of(workloads)
        block = build_operation(largest, affine=False)
        assert isinstance(block, InvertedResidualBlock)
        self.convolutions = nn.ModuleList(conv for _, _, conv in convolutions_of(block))
        self.kernels = sorted({_block(w).kernel for w in workloads}, reverse=True)
        maps = {str(k): nn.Parameter(torch.eye(k * k)) for k in self.kernels[1:]} if sharing == "transformed" else {}
        self.maps = nn.ParameterDict(maps)

    def candidate(self, workload: Workload) -> InvertedResidualBlock:
        """Build a candidate whose convolutions are slices of this block's."""
        block = build_operation(workload, affine=False)
        assert isinstance(block, InvertedResidualBlock)
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
        weight = shared.weight[: self.out_channels, : self.in_channels // self.groups]
        for kernel in block.kernels if shared.kernel_size[0] > 1 else ():
            if self.kernel <= kernel < weight.shape[-1]:
                weight = _centre(weight, kernel)
                if str(kernel) in block.maps:
                    flat = weight.reshape(-1, kernel * kernel)
                    weight = (flat @ block.maps[str(kernel)].T).reshape(weight.shape)
        return weight

    @property
    def bias(self) -> Tensor | None:
        """The bias [out], a view; None for a convolution without one."""
        bias = self._owner[0].bias
        return None if bias is None else bias[: self.out_channels]

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        return nn.functional.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


def shared_blocks(
    candidates: Mapping[str, Workload], sharing: Sharing
) -> Iterator[tuple[SharedBlock, dict[str, InvertedResidualBlock]]]:
    """Yield every block that candidates of a layer share, with these candidates by name."""
    for names in _sharing(candidates):
        block = SharedBlock([candidates[name] for name in names], sharing)
        yield block, {name: block.candidate(candidates[name]) for name in names}


def require_shareable(network: Network, space: str) -> None:
    """Raise HwnasError where no layer of a network has candidates that can share a block."""
    for part in network.parts:
        for candidates in part.candidates if isinstance(part, CellInstance) else ():
            if _sharing({name: workload for name, workload in candidates.items() if workload}):
                return
    raise HwnasError(
        f"shared_blocks shares kernels and expansions of inverted residuals, and space {space} has none that differ in "
        "these alone",
        "remove shared_blocks from the recipe, or search in a chain such as --space mobilenetv3",
    )


def largest_of(workloads: Sequence[Workload]) -> Workload:
    """Return the workload with the largest kernel and the widest middle of some that share a block."""
    blocks = [_block(w) for w in workloads]
    first, channels = workloads[0], workloads[0].in_channels
    form = {**vars(blocks[0]), "kernel": max(block.kernel for block in blocks)}
    widest = max(block.middle_channels(channels) for block in blocks)
    facts = {name: value for name, value in form.items() if name not in ("expansion", "middle")}
    return replace(first, op=inverted_residual(channels, widest, **facts).op)


def convolutions_of(block: InvertedResidualBlock) -> list[tuple[nn.Module, str, nn.Conv2d]]:
    """Return the convolutions of a block in their order, each with the module that holds it and its name there."""
    found: list[tuple[nn.Module, str, nn.Conv2d]] = []
    for name, layer in block.layers.named_children():
        if isinstance(layer, SqueezeExcitation):
            found += [(layer, "reduce", layer.reduce), (layer, "expand", layer.expand)]
        elif isinstance(layer, nn.Conv2d):
            found.append((block.layers, name, layer))
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


def _sharing(candidates: Mapping[str, Workload]) -> list[list[str]]:
    """Return the names of candidates that share a block: two or more that are equal but for kernel and expansion."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, workload in candidates.items():
        block = read_mobile_layer(workload.op)
        if isinstance(block, InvertedResidual):
            channels = workload.in_channels
            middle = block.middle_channels(channels) if block.groups > 1 else 0  # first channels would mix the groups
            form = replace(block, kernel=1, expansion=1, middle=0)
            groups.setdefault((form, middle, block.expands(channels)), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _block(workload: Workload) -> InvertedResidual:
    block = read_mobile_layer(workload.op)
    assert isinstance(block, InvertedResidual)
    return block


def _centre(weight: Tensor, kernel: int) -> Tensor:
    """Return the centre [.., kernel, kernel] of kernels."""
    margin = (weight.shape[-1] - kernel) // 2
    return weight[..., margin : margin + kernel, margin : margin + kernel]
