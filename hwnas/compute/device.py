"""Where a network is computed while it learns: by this machine's processor, or by a GPU through CUDA.

Networks are timed elsewhere (hwnas.profiling), on the device that they are for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.recipe import Compute

CPU = torch.device("cpu")


def choose_device(asked: Compute) -> torch.device:
    """The device for what was asked; ``auto`` is a GPU where torch can use one. Of several, this process's own.

    Raises HwnasError for cuda where there is none.
    """
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise HwnasError(
            "torch can use no CUDA GPU here",
            "leave out --compute, or install a driver and a torch that is built for it",
        )
    return torch.device("cuda", torch.cuda.current_device()) if there and asked != "cpu" else CPU


def describe(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the processor"


def layout_on(device: torch.device, network: nn.Module) -> torch.memory_format:
    """In which a network's convolutions are fast: channels last, but for depthwise ones on a GPU, of which torch's own
    kernels take channels first (not measured).
    """
    depthwise = any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in network.modules())
    return torch.contiguous_format if depthwise and device.type == "cuda" else torch.channels_last


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on ``device``; neither waits for the other (from pinned memory a copy is queued like any work)."""
    if tensor.device == device:
        return tensor
    if device.type == "cuda" and tensor.device == CPU and not tensor.requires_grad:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
