"""ONNX Runtime's execution providers: other kernels, compilers and accelerators that run its graphs.

``?provider=openvino`` after a device of ONNX Runtime names one; ``openvino.device_type=GPU`` is an option of it, passed
on under its own name. A graph must run on its provider as a whole, unless ``fallback=cpu`` allows a mix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from hwnas.errors import HwnasError
from hwnas.runtimes.float16 import FLOAT16
from hwnas.runtimes.runtime import Runtime

CPU_PROVIDER = "cpu"
FALLBACK = "fallback"  # the option that lets nodes run on the CPU, and its name in a table
FALLBACK_VALUE = "cpu"
VALUE = r"(?a:[\w./:,\\-]{1,200})"


@dataclass(frozen=True)
class Provider:
    """One execution provider.

    - ``full_name``: ONNX Runtime's name.
    - ``float16``, ``int8``: whether networks of that precision are timed on it. int8 networks are those of the CPU:
      unsigned activations, which not all compilers take.
    - ``threads_option``: the option with which it gets the device's number of threads; ONNX Runtime's own do not count.
    - ``float16_options``: options that float16 networks need.
    - ``on_gpu``: whether it runs on an NVIDIA GPU, ``cuda:N`` in a spec.
    """

    full_name: str
    float16: bool = False
    int8: bool = False
    threads_option: str = ""
    float16_options: tuple[tuple[str, str], ...] = ()
    on_gpu: bool = False


PROVIDERS = {
    CPU_PROVIDER: Provider("CPUExecutionProvider", int8=True),
    "cuda": Provider("CUDAExecutionProvider", float16=True, on_gpu=True),
    "tensorrt": Provider(
        "TensorrtExecutionProvider", float16=True, float16_options=(("trt_fp16_enable", "1"),), on_gpu=True
    ),
    "openvino": Provider("OpenVINOExecutionProvider", float16=True, int8=True, threads_option="num_of_threads"),
    "coreml": Provider("CoreMLExecutionProvider", float16=True),
    "nnapi": Provider("NnapiExecutionProvider", int8=True),
    "xnnpack": Provider("XnnpackExecutionProvider", threads_option="intra_op_num_threads"),
    "qnn": Provider("QNNExecutionProvider", float16=True, int8=True),
    "dml": Provider("DmlExecutionProvider", float16=True),
    "webgpu": Provider("WebGpuExecutionProvider", float16=True),
}


def provider_called(name: str) -> str:
    """Return ``name`` if it is a provider's. Raises HwnasError if not."""
    if name not in PROVIDERS:
        raise HwnasError(f"unknown execution provider {name!r} of ONNX Runtime", f"use one of {', '.join(PROVIDERS)}")
    return name


def provider_of(full_name: str) -> str:
    """Return the provider of a table, by ONNX Runtime's name for it; the CPU where the table does not name any.

    Raises HwnasError for a provider that hwnas has no profiler for.
    """
    known = {provider.full_name: name for name, provider in PROVIDERS.items()}
    if full_name.endswith("ExecutionProvider") and full_name not in known:
        raise HwnasError(f"there is no profiler for the table's provider {full_name}", f"known are {', '.join(known)}")
    return known.get(full_name, CPU_PROVIDER)


def runtime_with(runtime: Runtime, name: str) -> Runtime:
    """Return ONNX Runtime with a provider: another profiler, other hardware and precisions, unknown rewrites.

    Raises HwnasError for a runtime without execution providers.
    """
    if name == CPU_PROVIDER:
        return runtime
    if runtime.name != "onnxruntime":
        raise HwnasError(
            f"runtime {runtime.name} has no execution providers",
            f"use cpu+onnxruntime?provider={name}, or leave it out",
        )
    provider = PROVIDERS[name]
    return replace(
        runtime,
        profiler="onnxruntime_provider.py",
        hardware=r"cuda:\d+" if provider.on_gpu else r"cpu",
        processes=4,  # a compiler may take seconds for a model
        rewrites=None,
        float16=provider.float16,
        int8=runtime.int8 if provider.int8 else None,
    )


def provider_option(text: str, name: str, value: str) -> tuple[str, str] | None:
    """Return an option of the form ``openvino.device_type``, None for another form; the CPU's own kernels have none.

    Raises HwnasError for an option of a provider that the device does not use, and for a value with odd characters.
    """
    found = re.fullmatch(r"(?a:([a-z]+)\.(\w{1,100}))", name)
    if not found or found[1] == CPU_PROVIDER:
        return None
    if found[1] != text:
        raise HwnasError(
            f"{name} is an option of provider {found[1]}, the device has {text}", f"add provider={found[1]}"
        )
    if not re.fullmatch(VALUE, value):
        raise HwnasError(f"{name}={value!r} is not a value of letters, digits and ./:,\\-")
    return found[2], value


def session_options(name: str, options: Iterable[tuple[str, str]], precision: str, fallback: bool) -> dict[str, object]:
    """Return what the profiler needs to know of a provider, as a job has it; empty for the CPU."""
    if name == CPU_PROVIDER:
        return {}
    provider = PROVIDERS[name]
    return {
        "provider": provider.full_name,
        "provider_options": {**dict(provider.float16_options if precision == FLOAT16 else ()), **dict(options)},
        "threads_option": provider.threads_option,
        "fallback": fallback,
    }


def table_options(name: str, options: Iterable[tuple[str, str]], fallback: bool) -> dict[str, str]:
    """Return the options of a table that was made with a provider."""
    return {f"{name}.{option}": value for option, value in options} | ({FALLBACK: FALLBACK_VALUE} if fallback else {})


def options_of(name: str, options: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Return the provider's options among those of a table. Raises HwnasError for an invalid value."""
    found = (provider_option(name, option, str(value)) for option, value in options.items())
    return tuple(sorted(pair for pair in found if pair))
