"""Runtimes on an Android phone over adb, timed by their own benchmark programs, which the user builds or downloads."""

from __future__ import annotations

from dataclasses import replace

from hwnas.errors import HwnasError
from hwnas.runtimes.runtime import Runtime

SERIAL = r"(?a:[A-Za-z0-9][\w.:-]{0,99})"
# The benchmark program of each runtime. ncnn's computes in float16 wherever the phone can, and takes single images.
PROGRAMS = {"onnxruntime": "onnxruntime_perf_test", "litert": "benchmark_model", "ncnn": "benchncnn"}
BENCHMARK = "benchmark"  # the option of a phone's table that names the program
ANY_PHONE = "any"  # the serial number that stands for the only phone


def on_android(runtime: Runtime) -> Runtime:
    """Return a runtime as it is timed on a phone. Raises HwnasError for a runtime without a benchmark program there."""
    if runtime.name not in PROGRAMS:
        raise HwnasError(f"runtime {runtime.name} is not timed on Android", f"use one of {', '.join(PROGRAMS)}")
    float16 = runtime.name == "ncnn"
    return replace(
        runtime,
        profiler="android_adb.py",
        hardware=r"cpu",
        processes=3,  # each pushes all models anew
        rewrites=None,
        fixed_batch=True,
        takes_binary=True,
        float32=not float16,
        float16=float16,
        own_float16=float16,
    )


def require_benchmark(runtime: Runtime, binary: str, batch: int) -> None:
    """Raise HwnasError when a phone's device names no benchmark program, or a batch that it cannot run."""
    program = PROGRAMS[runtime.name]
    if not binary:
        raise HwnasError(
            f"a phone has no benchmark program of {runtime.name}",
            f"name yours, built for Android: android://SERIAL+{runtime.name}?binary=PATH/{program}",
        )
    if runtime.name == "ncnn" and batch > 1:
        raise HwnasError(f"{program} takes single images, not a batch of {batch}", "leave out batch=")
