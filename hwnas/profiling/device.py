"""Naming a device: ``cpu``, ``cpu+torch``, ``cuda:0+torch``, ``cpu+onnxruntime?threads=2``, or a YAML file."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl

from hwnas.errors import HwnasError
from hwnas.files import sha256_of, shipped
from hwnas.tables.schema import Device

PROFILERS = {"onnxruntime": "onnxruntime_cpu.py", "torch": "torch_eager.py"}
FORMS = "use cpu, cpu+torch, cuda:0+torch or cpu+onnxruntime?threads=2"


@dataclass(frozen=True)
class DeviceSpec:
    """Where and with what to run: hardware (``cpu``, ``cuda:N``), runtime, threads and batch size."""

    hardware: str
    runtime: str
    threads: int = 1
    batch: int = 1

    @property
    def text(self) -> str:
        return f"{self.hardware}+{self.runtime}?threads={self.threads}&batch={self.batch}"

    @property
    def profiler(self) -> Path:
        return shipped("profilers") / PROFILERS[self.runtime]

    @property
    def model_suffix(self) -> str:
        return ".onnx" if self.runtime == "onnxruntime" else ".pt2"


def parse_device(text: str) -> DeviceSpec:
    """Read a device spec or the YAML file (a path, or a name in ``configs/devices``) that holds one under ``device``.

    Raises HwnasError for a spec of another form, an unknown runtime or option.
    """
    file = Path(text) if text.endswith((".yaml", ".yml")) else shipped("configs") / "devices" / f"{text}.yaml"
    if text.endswith((".yaml", ".yml")) or (re.fullmatch(r"[\w-]+", text) and file.exists()):
        text = _spec_in(file)
    found = re.fullmatch(r"(cpu|cuda:\d+)(?:\+([\w-]+))?(?:\?(.*))?", text)
    if not found:
        raise HwnasError(f"unknown device {text!r}", FORMS)
    hardware, runtime, query = found[1], found[2], found[3] or ""
    runtime = runtime or ("torch" if hardware.startswith("cuda") else "onnxruntime")
    if runtime not in PROFILERS:
        raise HwnasError(f"unknown runtime {runtime!r} in device {text!r}", f"use one of {', '.join(PROFILERS)}")
    if runtime == "onnxruntime" and hardware != "cpu":
        raise HwnasError(f"runtime onnxruntime is timed on the CPU, not on {hardware}", f"use {hardware}+torch")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = set(options) - {"threads", "batch"}
    if unknown:
        raise HwnasError(f"unknown option {min(unknown)!r} in device {text!r}", "threads and batch can be given")
    numbers = {}
    for name, value in options.items():
        if not re.fullmatch(r"[1-9]\d{0,3}", value):
            raise HwnasError(f"{name}={value!r} in device {text!r} is not a whole number of at least 1")
        numbers[name] = int(value)
    return DeviceSpec(hardware, runtime, **numbers)


def _spec_in(file: Path) -> str:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise HwnasError(f"cannot read device file {file}: {error.strerror}", FORMS) from error
    except yaml.YAMLError:
        raise HwnasError(f"device file {file} is not valid YAML", FORMS) from None
    if not isinstance(content, dict) or not isinstance(content.get("device"), str):
        raise HwnasError(f"device file {file} has no line 'device: …'", FORMS)
    return content["device"]


def this_device(spec: DeviceSpec) -> Device:
    """What this machine says of itself. Raises HwnasError when a CUDA device is named and there is none."""
    if spec.hardware == "cpu":
        model = _cpu_model()
        cores, memory = os.cpu_count() or 0, _memory_bytes()
    else:
        import torch

        number = int(spec.hardware.split(":")[1])
        if not torch.cuda.is_available() or number >= torch.cuda.device_count():
            raise HwnasError(f"there is no CUDA device {number} here", "use --device cpu")
        properties = torch.cuda.get_device_properties(number)
        model = properties.name
        cores, memory = properties.multi_processor_count, properties.total_memory
    kind: Literal["cpu", "gpu"] = "cpu" if spec.hardware == "cpu" else "gpu"
    system = f"{platform.system()} {platform.machine()}"
    fingerprint = sha256_of([kind, model, cores, round(memory / 2**30), system])[:16]
    return Device(
        name=model, kind=kind, model=model, cores=cores, memory_bytes=memory, os=system, fingerprint=fingerprint
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    name = fields.get("model name", platform.machine())
    stepping = [fields[key] for key in ("cpu family", "model") if key in fields]
    return f"{name} (family {stepping[0]}, model {stepping[1]})" if len(stepping) == 2 else name


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
