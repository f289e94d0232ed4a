"""Device specs: ``cpu``, ``cpu+torch``, ``page``, ``ssh://user@host+onnxruntime``, or a YAML file."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl, quote

from hwnas.errors import HwnasError
from hwnas.files import decode_text, shipped
from hwnas.runtimes.int8 import FLOAT32, INT8
from hwnas.runtimes.opset import LEAST_INT8, OPSET, parse_opset
from hwnas.runtimes.registry import RUNTIMES
from hwnas.runtimes.runtime import Rewrite, Runtime

FORMS = "use cpu, cpu+torch, cuda:0+torch, cpu+onnxruntime?threads=2, page or ssh://user@host+onnxruntime"
PAGE = "page"  # the hardware of any browser, on any device, that opens a page of hwnas
DEFAULT_RUNTIME = {"cpu": "onnxruntime", "cuda": "torch", "browser": "onnxruntime-web", PAGE: "onnxruntime-web"}
# No text that a shell or ssh could misread: no leading dash, no quote, no space.
HOST = r"(?a:(?:[A-Za-z0-9_][\w.-]*@)?(?:[A-Za-z0-9][\w.-]*|\[[0-9A-Fa-f:]+\])(?::\d{1,5})?)"
PYTHON = r"(?a:[\w/][\w./-]*)"
ADDRESS = r"(?a:[A-Za-z0-9][A-Za-z0-9.-]*)"
LONGEST_NAME = 100


@dataclass(frozen=True)
class DeviceSpec:
    """A device and how models run on it: hardware (``cpu``, ``cuda:N``, ``browser``, ``page``), runtime, threads, …

    ``host`` is a machine to reach by ssh (``user@name:port``), empty for this one; ``python`` the interpreter there.
    ``opset`` is the ONNX opset of the models.
    A page is served on ``address`` (a name or IPv4 address of this machine, empty for that in the local network) and
    ``port`` (0 for the usual one); ``name`` is the name of the device that opens it, empty for what it says itself.
    """

    hardware: str
    runtime: Runtime
    threads: int = 1
    batch: int = 1
    host: str = ""
    python: str = "python3"
    precision: str = FLOAT32
    opset: int = OPSET
    address: str = ""
    port: int = 0
    name: str = ""

    @property
    def text(self) -> str:
        """The spec as text, with all options that differ from their defaults.

        Where a page is served does not belong to the device and is left out.
        """
        where = f"ssh://{self.host}/" if self.host else ""
        python = f"&python={self.python}" if self.python != "python3" else ""
        precision = f"&precision={self.precision}" if self.precision != FLOAT32 else ""
        opset = f"&opset={self.opset}" if self.opset != OPSET else ""
        name = f"&name={quote(self.name)}" if self.name else ""
        options = f"threads={self.threads}&batch={self.batch}{precision}{opset}{python}{name}"
        return f"{where}{self.hardware}+{self.runtime.name}?{options}"

    @property
    def table_options(self) -> dict[str, int]:
        """The options that a table of this device has besides those that its profiler reports."""
        return {"opset": self.opset} if self.opset != OPSET else {}

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
    form = rf"(?:ssh://({HOST})/?)?(cpu|cuda:\d+|browser|page)?(?:\+([\w-]+))?(?:\?(.*))?"
    found = re.fullmatch(form, text)
    if not found or not (found[1] or found[2]):
        raise HwnasError(f"unknown device {text!r}", FORMS)
    host, hardware, query = found[1] or "", found[2] or "cpu", found[4] or ""
    runtime_name = found[3] or DEFAULT_RUNTIME[hardware.split(":")[0]]
    if runtime_name not in RUNTIMES:
        raise HwnasError(f"unknown runtime {runtime_name!r} in device {text!r}", f"use one of {', '.join(RUNTIMES)}")
    if not re.fullmatch(RUNTIMES[runtime_name].hardware, hardware):
        fix = f"use {hardware}+{DEFAULT_RUNTIME[hardware.split(':')[0]]}"
        raise HwnasError(f"runtime {runtime_name} does not run on {hardware}", fix)
    if host and hardware == PAGE:
        raise HwnasError(f"device {text!r} is a page on another machine", "start hwnas there with --device page")
    spec = DeviceSpec(hardware, RUNTIMES[runtime_name], host=host)
    for option, value in parse_qsl(query, keep_blank_values=True):
        spec = _with_option(spec, option, value, text)
    require_models(spec)
    return spec


def _with_option(spec: DeviceSpec, option: str, value: str, text: str) -> DeviceSpec:
    """Return the spec with one option of its text. Raises HwnasError for an unknown option or an invalid value."""
    if option in ("threads", "batch"):
        if not re.fullmatch(r"[1-9]\d{0,3}", value, re.ASCII):
            raise HwnasError(f"{option}={value!r} in device {text!r} is not a whole number of at least 1")
        return replace(spec, threads=int(value)) if option == "threads" else replace(spec, batch=int(value))
    if option == "precision":
        return replace(spec, precision=value)
    if option == "opset":
        return replace(spec, opset=parse_opset(value))
    if option == "python" and spec.host:
        if not re.fullmatch(PYTHON, value):
            raise HwnasError(f"python={value!r} in device {text!r} is not the name or path of an interpreter")
        return replace(spec, python=value)
    if spec.hardware != PAGE or option not in ("host", "port", "name"):
        known = "opset, host, port and name" if spec.hardware == PAGE else "precision and opset"
        raise HwnasError(f"unknown option {option!r} in device {text!r}", f"threads, batch, {known} can be given")
    if option == "host":
        if not re.fullmatch(ADDRESS, value):
            raise HwnasError(f"host={value!r} in device {text!r} is not a name or IPv4 address of this machine")
        return replace(spec, address=value)
    if option == "port":
        if not re.fullmatch(r"[1-9]\d{0,4}", value, re.ASCII) or not 1024 <= int(value) <= 65535:
            raise HwnasError(f"port={value!r} in device {text!r} is not a number from 1024 to 65535")
        return replace(spec, port=int(value))
    if not 0 < len(value) <= LONGEST_NAME or not value.isprintable():
        raise HwnasError(f"name={value!r} in device {text!r} is not a name of at most {LONGEST_NAME} characters")
    return replace(spec, name=value)


def require_models(spec: DeviceSpec) -> None:
    """Raise HwnasError when networks of the spec's precision and opset cannot be written for its runtime."""
    known = spec.runtime.precisions
    if spec.precision not in known:
        raise HwnasError(
            f"runtime {spec.runtime.name} is not profiled with precision {spec.precision!r}",
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
