"""Device specs: ``cpu``, ``cpu+torch``, ``page``, ``ssh://user@host+onnxruntime``, or a YAML file."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl, quote

from hwnas.errors import HwnasError
from hwnas.files import decode_text, shipped
from hwnas.runtimes.android import ANY_PHONE, SERIAL, on_android, require_benchmark
from hwnas.runtimes.float16 import FLOAT16
from hwnas.runtimes.int8 import FLOAT32, INT8
from hwnas.runtimes.opset import LEAST_INT8, OPSET, parse_opset
from hwnas.runtimes.providers import (
    CPU_PROVIDER,
    FALLBACK,
    FALLBACK_VALUE,
    PROVIDERS,
    provider_called,
    provider_option,
    runtime_with,
    session_options,
    table_options,
)
from hwnas.runtimes.registry import RUNTIMES
from hwnas.runtimes.runtime import Rewrite, Runtime

FORMS = (
    "use cpu, cpu+torch, cuda:0+torch, cpu+onnxruntime?threads=2, page, ssh://user@host+onnxruntime or "
    "android://SERIAL+onnxruntime?binary=PATH"
)
PAGE = "page"  # the hardware of any browser, on any device, that opens a page of hwnas
DEFAULT_RUNTIME = {"cpu": "onnxruntime", "cuda": "torch", "browser": "onnxruntime-web", PAGE: "onnxruntime-web"}
# No text that a shell or ssh could misread: no leading dash, no quote, no space.
HOST = r"(?a:(?:[A-Za-z0-9_][\w.-]*@)?(?:[A-Za-z0-9][\w.-]*|\[[0-9A-Fa-f:]+\])(?::\d{1,5})?)"
PYTHON = r"(?a:[\w/][\w./-]*)"
ADDRESS = r"(?a:[A-Za-z0-9][A-Za-z0-9.-]*)"
LONGEST_NAME = 100
BINARY = r"(?a:[\w./~][\w./~@-]*)"
DEFAULT_HARDWARE = {"tensorrt": "cuda:0"}  # by runtime; of the others the CPU
SHORT_PRECISIONS = {"fp32": FLOAT32, "fp16": FLOAT16}
PYTHON_NAME = "python3"  # over ssh the one there; on this machine the one that runs hwnas


@dataclass(frozen=True)
class DeviceSpec:
    """A device and how models run on it: hardware (``cpu``, ``cuda:N``, ``browser``, ``page``), runtime, threads, …

    ``host`` is a machine to reach by ssh (``user@name:port``), empty for this one; ``python`` the interpreter there.
    ``opset`` is the ONNX opset of the models. ``provider`` is the execution provider of ONNX Runtime, with its options;
    ``fallback`` lets the CPU run what it cannot. ``binary`` is the program that times models.
    ``serial`` is an Android phone's number for adb, ``any`` for the only one, empty for other devices.
    A page is served on ``address`` (a name or IPv4 address of this machine, empty for that in the local network) and
    ``port`` (0 for the usual one); ``name`` is the name of the device that opens it, empty for what it says itself.
    """

    hardware: str
    runtime: Runtime
    threads: int = 1
    batch: int = 1
    host: str = ""
    python: str = PYTHON_NAME
    precision: str = FLOAT32
    opset: int = OPSET
    provider: str = CPU_PROVIDER
    provider_options: tuple[tuple[str, str], ...] = ()
    fallback: bool = False
    binary: str = ""
    serial: str = ""
    address: str = ""
    port: int = 0
    name: str = ""

    @property
    def text(self) -> str:
        """The spec as text, with all options that differ from their defaults.

        Where a page is served does not belong to the device and is left out.
        """
        where = f"ssh://{self.host}/" if self.host else f"android://{self.serial}/" if self.serial else ""
        given = {
            "precision": self.precision if self.precision != FLOAT32 else "",
            "opset": str(self.opset) if self.opset != OPSET else "",
            "provider": self.provider if self.provider != CPU_PROVIDER else "",
            **self._provider_options,
            "binary": self.binary,
            "python": self.python if self.python != PYTHON_NAME else "",
            "name": quote(self.name),
        }
        options = "".join(f"&{name}={value}" for name, value in given.items() if value)
        options = f"threads={self.threads}&batch={self.batch}{options}"
        return f"{where}{self.hardware}+{self.runtime.name}?{options}"

    @property
    def file_precision(self) -> str:
        """The precision of the model files: float32 also where the runtime converts them to float16 itself."""
        return FLOAT32 if self.precision == FLOAT16 and self.runtime.own_float16 else self.precision

    @property
    def table_options(self) -> dict[str, int | str]:
        """The options that a table of this device has besides those that its profiler reports."""
        return {**({"opset": self.opset} if self.opset != OPSET else {}), **self._provider_options}

    @property
    def job_options(self) -> dict[str, object]:
        """The settings of the runtime that a job has."""
        if self.serial:
            serial = "" if self.serial == ANY_PHONE else self.serial
            return {"binary": self.binary, "serial": serial, "runtime": self.runtime.name}
        if self.runtime.takes_binary:
            return {"binary": self.binary, "float16": self.precision == FLOAT16}
        return session_options(self.provider, self.provider_options, self.precision, self.fallback)

    @property
    def _provider_options(self) -> dict[str, str]:
        return table_options(self.provider, self.provider_options, self.fallback)

    @property
    def rewrites(self) -> tuple[Rewrite, ...] | None:
        """The optimisations of a cell that the runtime is known to make; None for integers, where they are unknown."""
        return self.runtime.rewrites if self.precision == FLOAT32 else None


def parse_device(text: str) -> DeviceSpec:
    """Parse a device spec, or a YAML file (a path, or a name in ``configs/devices``) with one under ``device``.

    Raises HwnasError for a spec of another form and for an unknown runtime or option.
    """
    file = Path(text) if text.endswith((".yaml", ".yml")) else shipped("configs") / "devices" / f"{text}.yaml"
    if text.endswith((".yaml", ".yml")) or (re.fullmatch(r"[\w-]+", text) and file.exists()):
        text = _spec_in(file)
    form = rf"(?:ssh://({HOST})/?|android://({SERIAL})?/?)?(cpu|cuda:\d+|browser|page)?(?:\+([\w-]+))?(?:\?(.*))?"
    found = re.fullmatch(form, text)
    phone = text.startswith("android://")
    if not found or not (found[1] or found[3] or phone):
        raise HwnasError(f"unknown device {text!r}", FORMS)
    host, query = found[1] or "", found[5] or ""
    hardware = found[3] or DEFAULT_HARDWARE.get(found[4], "cpu")
    runtime_name = found[4] or DEFAULT_RUNTIME[hardware.split(":")[0]]
    if runtime_name not in RUNTIMES:
        raise HwnasError(f"unknown runtime {runtime_name!r} in device {text!r}", f"use one of {', '.join(RUNTIMES)}")
    spec = DeviceSpec(hardware, RUNTIMES[runtime_name], host=host)
    if phone:
        spec = replace(spec, runtime=on_android(spec.runtime), serial=found[2] or ANY_PHONE)
    # The provider comes first: its own options depend on it.
    for name, value in sorted(parse_qsl(query, keep_blank_values=True), key=lambda pair: pair[0] != "provider"):
        spec = _with_option(spec, name, value, text)
    if not re.fullmatch(spec.runtime.hardware, spec.hardware):
        fix = f"use {hardware}+{DEFAULT_RUNTIME[hardware.split(':')[0]]}"
        raise HwnasError(f"runtime {runtime_name} does not run on {hardware}", fix)
    if host and hardware == PAGE:
        raise HwnasError(f"device {text!r} is a page on another machine", "start hwnas there with --device page")
    if phone:
        require_benchmark(spec.runtime, spec.binary, spec.batch)
    require_models(spec)
    return spec


def _with_option(spec: DeviceSpec, name: str, value: str, text: str) -> DeviceSpec:
    """Return the spec with one option of its text. Raises HwnasError for an unknown option or an invalid value."""
    if name in ("threads", "batch"):
        if not re.fullmatch(r"[1-9]\d{0,3}", value, re.ASCII):
            raise HwnasError(f"{name}={value!r} in device {text!r} is not a whole number of at least 1")
        return replace(spec, threads=int(value)) if name == "threads" else replace(spec, batch=int(value))
    if name == "precision":
        return replace(spec, precision=SHORT_PRECISIONS.get(value, value))
    if name == "opset":
        return replace(spec, opset=parse_opset(value))
    if name == "python" and spec.hardware not in (PAGE, "browser"):
        if not re.fullmatch(PYTHON, value):
            raise HwnasError(f"python={value!r} in device {text!r} is not the name or path of an interpreter")
        return replace(spec, python=value)
    if name == "binary" and spec.runtime.takes_binary:
        if not re.fullmatch(BINARY, value):
            raise HwnasError(f"binary={value!r} in device {text!r} is not the path of a program")
        return replace(spec, binary=value)
    if name == "provider" and not spec.serial:
        return with_provider(spec, value)
    if name == FALLBACK and value == FALLBACK_VALUE and spec.provider != CPU_PROVIDER:
        return replace(spec, fallback=True)
    if option := provider_option(spec.provider, name, value):
        return replace(spec, provider_options=tuple(sorted({**dict(spec.provider_options), **dict([option])}.items())))
    if spec.hardware == PAGE and name in ("host", "port", "name"):
        return _with_page_option(spec, name, value, text)
    known = "opset, host, port and name"
    if spec.hardware != PAGE:
        known = "precision, opset, python, binary, provider, PROVIDER.OPTION and, with a provider, fallback=cpu"
    raise HwnasError(f"unknown option {name!r} in device {text!r}", f"threads, batch, {known} can be given")


def _with_page_option(spec: DeviceSpec, name: str, value: str, text: str) -> DeviceSpec:
    """Return the spec of a page with one of the options that only pages have."""
    if name == "host":
        if not re.fullmatch(ADDRESS, value):
            raise HwnasError(f"host={value!r} in device {text!r} is not a name or IPv4 address of this machine")
        return replace(spec, address=value)
    if name == "port":
        if not re.fullmatch(r"[1-9]\d{0,4}", value, re.ASCII) or not 1024 <= int(value) <= 65535:
            raise HwnasError(f"port={value!r} in device {text!r} is not a number from 1024 to 65535")
        return replace(spec, port=int(value))
    if not 0 < len(value) <= LONGEST_NAME or not value.isprintable():
        raise HwnasError(f"name={value!r} in device {text!r} is not a name of at most {LONGEST_NAME} characters")
    return replace(spec, name=value)


def with_provider(spec: DeviceSpec, name: str) -> DeviceSpec:
    """Return a spec with an execution provider of ONNX Runtime. Raises HwnasError for an unknown one."""
    on_gpu = PROVIDERS[provider_called(name)].on_gpu and spec.hardware == "cpu"
    hardware = "cuda:0" if on_gpu else spec.hardware
    return replace(spec, hardware=hardware, runtime=runtime_with(spec.runtime, name), provider=name)


def require_models(spec: DeviceSpec) -> None:
    """Raise HwnasError when networks of the spec's precision and opset cannot be written for its runtime."""
    known = spec.runtime.precisions
    if spec.precision not in known:
        provider = f" with provider {spec.provider}" if spec.provider != CPU_PROVIDER else ""
        raise HwnasError(
            f"runtime {spec.runtime.name}{provider} is not profiled with precision {spec.precision!r}",
            f"use {' or '.join(known)}",
        )
    if spec.opset != OPSET and spec.runtime.suffix != ".onnx":
        raise HwnasError(
            f"runtime {spec.runtime.name} reads no ONNX files, which alone have an opset", "leave out opset="
        )
    if spec.precision == INT8 and spec.opset < LEAST_INT8:
        raise HwnasError(
            f"int8 networks cannot be written in ONNX opset {spec.opset}", f"use opset={LEAST_INT8} or a later one"
        )


def _spec_in(file: Path) -> str:
    import yaml

    try:
        content = yaml.safe_load(decode_text(file.read_bytes(), f"device file {file}", FORMS))
    except OSError as error:
        raise HwnasError(f"cannot read device file {file}: {error.strerror}", FORMS) from error
    except yaml.YAMLError:
        raise HwnasError(f"device file {file} is not valid YAML", FORMS) from None
    if not isinstance(content, dict) or not isinstance(content.get("device"), str):
        raise HwnasError(f"device file {file} has no line 'device: …'", FORMS)
    return content["device"]
