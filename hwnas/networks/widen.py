"""Widen a supernet of partial channels and its optimiser's state (DrNAS's progressive search).

The candidates of a supernet with 1/k of the channels get those of a smaller k. New channels are copies of random old
ones, with their batch-norm statistics and momentum (Net2Wider, Chen et al., ICLR 2016). As in DrNAS's code incoming
weights are not divided by the number of copies, so the function changes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hwnas.networks.mixed_cell import MixedCell
from hwnas.networks.supernet import Supernet
from hwnas.operations import FactorizedReduce


def widen(supernet: Supernet, partial: int, momentum: dict[str, Tensor], generator: torch.Generator) -> Supernet:
    """Return a supernet with 1/``partial`` of the channels in its mixtures, from one with fewer.

    ``momentum``, by parameter name, is widened in place. Parameters outside the mixtures are copied.
    """
    wide = Supernet(supernet.sized, partial, supernet.shared, supernet.sharing)
    old = supernet.state_dict()
    origin: dict[str, tuple[Tensor, Tensor]] = {}
    for name, module in supernet.named_modules():
        if isinstance(module, MixedCell):
            for slot, candidates in enumerate(module.edges):
                assert isinstance(candidates, nn.ModuleDict)
                for op, candidate in candidates.items():
                    prefix = f"{name}.edges.{slot}.{op}"
                    ratio = supernet.partial, partial
                    for key, picks in _origins(candidate, wide.get_submodule(prefix), *ratio, generator).items():
                        origin[f"{prefix}.{key}"] = picks
    state = {key: _grown(value, *origin[key]) if key in origin else value for key, value in old.items()}
    wide.load_state_dict(state)
    for key in momentum:
        if key in origin:
            momentum[key] = _grown(momentum[key], *origin[key])
    return wide


def _origins(
    candidate: nn.Module, wider: nn.Module, old: int, new: int, generator: torch.Generator
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the old channel of each new one, outgoing and incoming, for each tensor of a candidate, by its name."""
    picks: dict[int, Tensor] = {}

    def grown(channels: int) -> Tensor:
        if channels not in picks:
            more = channels * old // new - channels
            copies = torch.randint(channels, (more,), generator=generator)
            picks[channels] = torch.cat([torch.arange(channels), copies])
        return picks[channels]

    result = {}
    for (name, module), wider_module in zip(candidate.named_modules(), wider.modules(), strict=True):
        prefix = f"{name}." if name else ""
        if isinstance(module, nn.Conv2d):
            # A depthwise convolution of a single channel has one group; only the wider one has more.
            depthwise = isinstance(wider_module, nn.Conv2d) and wider_module.groups > 1
            incoming = torch.arange(1) if depthwise else grown(module.in_channels)
            result[f"{prefix}weight"] = (grown(module.out_channels), incoming)
        elif isinstance(module, nn.BatchNorm2d):
            picked = grown(module.num_features), torch.arange(1)
            result |= {f"{prefix}running_mean": picked, f"{prefix}running_var": picked}
        elif isinstance(module, FactorizedReduce):  # its norm has the channels of both halves
            half = module.even.out_channels
            picks[module.norm.num_features] = torch.cat([grown(half), half + grown(module.odd.out_channels)])
    if isinstance(candidate, FactorizedReduce):
        for half_name in ("even", "odd"):
            outgoing, _ = result[f"{half_name}.weight"]
            channels = candidate.even.in_channels
            more = channels * old // new - channels
            copies = torch.randint(channels, (more,), generator=generator)
            result[f"{half_name}.weight"] = (outgoing, torch.cat([torch.arange(channels), copies]))
    return result


def _grown(value: Tensor, outgoing: Tensor, incoming: Tensor) -> Tensor:
    return value[outgoing] if value.dim() == 1 else value[outgoing][:, incoming]
