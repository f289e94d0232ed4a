"""Make a network narrower: leave out some channels of its layers, or shape it as another that was made narrower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.networks.channels.groups import Channels
from hwnas.networks.channels.recording import Ids
from hwnas.networks.child import ChildNetwork

LayerWidths = Mapping[str, Sequence[int]]  # channels that a layer reads and makes, by its name


def narrow(child: ChildNetwork, channels: Channels, keep: NDArray[np.bool_]) -> dict[str, list[int]]:
    """Leave out, in place, the channels that ``keep`` [removable channels] does not name; return the layers' widths.

    The output is that of the network with these channels masked.
    """
    for name, layer in channels.layers.items():
        reads = None if layer.reads is None else layer.reads.kept(keep)
        _shrink(child.get_submodule(name), reads, layer.makes.kept(keep))
    return layer_widths(child)


def layer_widths(child: ChildNetwork) -> dict[str, list[int]]:
    """Return how many channels every convolution, batch norm and linear layer reads and makes, by the layer's name."""
    found = ((name, _widths(module)) for name, module in child.named_modules())
    return {name: list(widths) for name, widths in found if widths}


def set_layer_widths(child: ChildNetwork, widths: LayerWidths, source: str) -> None:
    """Shape the layers of a network, in place, as ``layer_widths`` describes them; the weights are the first ones.

    Raises HwnasError, which names ``source``, where the widths are not those of a narrower network of this kind.
    """
    whole = layer_widths(child)
    if widths.keys() != whole.keys():
        odd = sorted(widths.keys() ^ whole.keys())[0]
        raise HwnasError(f"{source} has the widths of another network (layer {odd})", "prune the network again")
    for name, (reads, makes) in widths.items():
        if not (1 <= reads <= whole[name][0] and 1 <= makes <= whole[name][1]):
            problem = f"layer {name} reads {reads} and makes {makes} channels, of {whole[name][0]} and {whole[name][1]}"
            raise HwnasError(f"{source}: {problem}", "prune the network again")
        module = child.get_submodule(name)
        same = isinstance(module, nn.BatchNorm2d) or (isinstance(module, nn.Conv2d) and _is_depthwise(module))
        _shrink(module, None if same else np.arange(reads), np.arange(makes))


def _widths(module: nn.Module) -> tuple[int, int] | None:
    if isinstance(module, nn.Conv2d):
        return module.in_channels, module.out_channels
    if isinstance(module, nn.BatchNorm2d):
        return module.num_features, module.num_features
    return (module.in_features, module.out_features) if isinstance(module, nn.Linear) else None


def _is_depthwise(module: nn.Conv2d) -> bool:
    return module.groups == module.in_channels > 1


def _shrink(module: nn.Module, reads: Ids | None, makes: Ids) -> None:
    """Leave the channels ``reads`` and ``makes`` of a layer; ``reads`` is None where a layer reads what it makes."""
    rows = torch.from_numpy(makes)
    if isinstance(module, nn.BatchNorm2d):
        module.num_features = len(makes)
    elif isinstance(module, nn.Conv2d):
        if reads is None:  # each channel that is read makes equally many
            module.groups = module.in_channels = len(makes) * module.in_channels // module.out_channels
        else:
            module.in_channels = len(reads)
        module.out_channels = len(makes)
    elif isinstance(module, nn.Linear) and reads is not None:
        module.in_features, module.out_features = len(reads), len(makes)
    for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        if tensor.dim():
            left = tensor.detach()[rows]
            if name == "weight" and reads is not None:
                groups = getattr(module, "groups", 1)
                left = left[:, torch.from_numpy(reads[: len(reads) // groups])]
            _replace(module, name, left.clone())


def _replace(module: nn.Module, name: str, value: Tensor) -> None:
    if name in module._parameters:
        setattr(module, name, nn.Parameter(value))
    else:
        module.register_buffer(name, value)
