"""The device on which networks are trained: this machine's CPU, or a GPU through CUDA.

Networks are timed on the device that they are for, by hwnas.profiling.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.recipe import Compute
from hwnas.text import plural

CPU = torch.device("cpu")
CPUS = Path("/sys/devices/system/cpu")
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def choose_device(requested: Compute) -> torch.device:
    """Return the device for a recipe's ``compute``; ``auto`` is a GPU where torch can use one.

    Each of several processes gets its own GPU. Raises HwnasError for cuda where there is none, and where torchrun has
    started more processes on this machine than it has GPUs.
    """
    available = torch.cuda.is_available()
    if requested == "cuda" and not available:
        raise HwnasError(
            "torch finds no CUDA GPU on this machine",
            "leave out --compute, or install a driver and a torch that is built for it",
        )
    if requested == "cpu" or not available:
        return CPU
    processes, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if processes > gpus:
        raise HwnasError(
            f"{processes} processes cannot share the {plural(gpus, 'GPU')} of this machine",
            f"start one a GPU (torchrun --nproc-per-node {gpus}), or compute on the processor with --compute cpu",
        )
    return torch.device("cuda", torch.cuda.current_device())


def available_cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def physical_cores() -> int:
    """Return the number of physical cores that this process may use, at least one.

    Hyper-threads of one core count once, and the quota of a container counts (cgroup v2). Where the system does not
    say which hyper-threads belong together, each counts as a core.
    """
    if not hasattr(os, "sched_getaffinity"):
        return available_cores()
    cores = {_siblings(processor) for processor in os.sched_getaffinity(0)}
    return max(1, min(len(cores), _quota()))


def _siblings(processor: int) -> str:
    """Return the numbers of the hyper-threads that share a processor's core, such as "0,32"."""
    file = CPUS / f"cpu{processor}/topology/thread_siblings_list"
    return file.read_text() if file.exists() else str(processor)


def _quota() -> int:
    """Return how many processors a container may keep busy."""
    limit, period = QUOTA.read_text().split() if QUOTA.exists() else ("max", "1")
    return sys.maxsize if limit == "max" else int(limit) // int(period)


def describe(device: torch.device) -> str:
    """Return the name of a GPU, with its number where there are several."""
    if device.type != "cuda":
        return "the processor"
    number = f" ({device})" if torch.cuda.device_count() > 1 else ""
    return torch.cuda.get_device_name(device) + number


def layout_on(device: torch.device, network: nn.Module) -> torch.memory_format:
    """Return the memory layout in which a network's convolutions are fast: channels last.

    Networks with depthwise convolutions on a GPU get channels first, which torch's own kernels for them use (not
    measured).
    """
    depthwise = any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in network.modules())
    return torch.contiguous_format if depthwise and device.type == "cuda" else torch.channels_last


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on ``device``.

    Copies to a GPU, from pinned memory, are queued like other work. A copy to the CPU waits: torch does not order a
    queued one before the CPU's reads.
    """
    if tensor.device == device:
        return tensor
    if device.type == "cuda" and tensor.device == CPU and not tensor.requires_grad:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type != "cpu")
