"""Compiled kernels for mixtures on a CPU (mixture.cpp), built once a machine with its C++ compiler and cached.

They are optional: plain torch computes the same but for rounding.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch  # before the library, so that there is one OpenMP runtime

from hwnas.compute.device import CPU
from hwnas.compute.precision import AS_REQUESTED
from hwnas.errors import HwnasError
from hwnas.files import atomic_path
from hwnas.recipe import Kernels as Requested

SOURCE = Path(__file__).with_name("mixture.cpp")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
BUILD_S = 180
LEAST_CHANNELS = 16  # in a mixture, from which kernels in float32 take less time than plain torch
Pointer, Long = ctypes.c_void_p, ctypes.c_long


class Norm(ctypes.Structure):
    """A batch norm on a batch: the addresses of mean and 1 / deviation, and of the running statistics (0: none)."""

    _fields_ = (
        *((name, Pointer) for name in ("mean", "rstd", "running_mean", "running_var")),
        *((name, ctypes.c_double) for name in ("eps", "momentum")),
    )


class Gradient(ctypes.Structure):
    """The gradient before a norm: a * factor * g + b * z + c."""

    _fields_ = (
        ("g", Pointer),
        ("z", Pointer),
        ("g_stride", Long),
        ("z_stride", Long),
        *((name, Pointer) for name in ("factor", "a", "b", "c")),
    )


class PlainTerm(ctypes.Structure):
    """A tensor that is summed itself [0], or its means [1], or both (``is``), and the address of its gradient."""

    _fields_ = (
        ("x", Pointer),
        ("gx", Pointer),
        ("x_stride", Long),
        ("add", Long),
        ("is", Long * 2),
        ("weight", ctypes.c_double * 2),
        ("factor", Pointer * 2),
    )


class BlockSizes(ctypes.Structure):
    """The sizes of ReLU, depthwise (``kernel`` 0: none) and pointwise convolution."""

    _fields_ = tuple(
        (name, Long)
        for name in (
            *("images", "height", "width", "channels", "kernel", "stride", "dilation"),
            *("out_height", "out_width", "out_channels"),
        )
    )


# The arguments of each function before the number of threads: p a pointer, l a number.
SIGNATURES = {
    "statistics": "pllllp",
    "weighted_sum": "lppppppllllp",
    "slopes": "lpppppllllp",
    "gradients": "lppplll",
    "plain_gradients": "lpplllllp",
    "gather": "lpplpllllp",
    "pool_forward": "lpl" + "lllllll" + "p",
    "pool_backward": "lplpl" + "lllllll" + "p",
    "block_forward": "plppppppp",
    "block_backward": "ppl" + "pppppp" + "l" + "ppp",
}
BLOCKS = ("block_forward", "block_backward")  # in float32 and float64 only
TYPES = ("float32", "float64", "bfloat16")


@dataclass(frozen=True)
class Kernels:
    """The compiled library, or None and the reason."""

    library: ctypes.CDLL | None
    reason: str = ""


def choose_kernels(
    requested: Requested, precision: str, channels: int, device: torch.device, is_single: bool
) -> tuple[str, str]:
    """Return compiled or torch for a recipe's ``kernels``, and the reason.

    ``auto`` is compiled where that takes less time (docs/how-to/faster.md): in bfloat16, and in float32 with at least
    16 ``channels`` in the mixture of the first cells. A chain of layers, which sums nothing, has 0, as recurrent cells
    have. ``is_single``: one process searches.
    """
    if requested == "torch":
        return "torch", AS_REQUESTED
    if device != CPU:
        return "torch", "compiled kernels are for processors"
    if not is_single:
        return "torch", "several processes share batch norms"
    if requested == "auto" and not channels:
        return "torch", "as fast in chains of layers and in recurrent cells"
    if requested == "auto" and precision == "float32" and channels < LEAST_CHANNELS:
        return "torch", f"as fast in float32 with {channels} channels in the mixture"
    if kernels().library is None:
        return "torch", kernels().reason
    return "compiled", AS_REQUESTED if requested == "compiled" else "faster, and equal but for rounding"


@cache
def kernels() -> Kernels:
    """Return the kernels: compiled on the first call on a machine, in seconds, and loaded on the first of a process."""
    try:
        return Kernels(_load(_built()))
    except (OSError, HwnasError, subprocess.SubprocessError) as error:
        return Kernels(None, str(error).splitlines()[0])


def _built() -> Path:
    """Return the library for this processor, compiled unless it is cached."""
    from platformdirs import user_cache_path

    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        raise HwnasError("no C++ compiler")
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=BUILD_S).stdout
    made_of = [SOURCE.read_bytes(), " ".join(FLAGS).encode(), version, _processor()]
    digest = hashlib.sha256(b"\0".join(made_of)).hexdigest()[:16]
    library = user_cache_path("hwnas") / "kernels" / f"mixture-{digest}.so"
    if not library.exists():
        with atomic_path(library) as temporary:
            command = [compiler, *FLAGS, "-o", str(temporary), str(SOURCE)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S)
            if done.returncode:
                first = next((line for line in done.stderr.splitlines() if "error" in line), "it failed")
                raise HwnasError(f"{compiler} does not build {SOURCE.name}: {first}")
    return library


def _processor() -> bytes:
    """Return the properties of the processor that ``-march=native`` depends on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_bytes().split(b"\n\n")[0].splitlines() if info.exists() else []
    wanted = [line for line in lines if line.startswith((b"flags", b"Features", b"model name"))]
    return b"\n".join([platform.machine().encode(), *wanted])


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    kinds = {"p": Pointer, "l": Long}
    for name, signature in SIGNATURES.items():
        for dtype in TYPES[:2] if name in BLOCKS else TYPES:
            function = getattr(library, f"{name}_{dtype}")
            function.argtypes = [*(kinds[letter] for letter in signature), ctypes.c_int]
            function.restype = None
    return library
