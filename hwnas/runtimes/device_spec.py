"""Naming a device: ``cpu``, ``cpu+torch``, ``cuda:0+torch``, ``ssh://user@host+onnxruntime``, or a YAML file."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl

from hwnas.cost.fusion import Rewrite
from hwnas.errors import HwnasError
from hwnas.files import shipped
from hwnas.runtimes.int8 import FLOAT32
from hwnas.runtimes.runtime import RUNTIMES, Runtime

FORMS = "use cpu, cpu+torch, cuda:0+torch, cpu+onnxruntime?threads=2 or ssh://user@host+onnxruntime"
DEFAULT_RUNTIME = {"cpu": "onnxruntime", "cuda": "torch", "browser": "onnxruntime-web"}
# Nothing that a shell or ssh could read as something else: no leading dash, no quote, no space.
HOST = r"(?a:(?:[A-Za-z0-9_][\w.-]*@)?(?:[A-Za-z0-9][\w.-]*|\[[0-9A-Fa-f:]+\])(?::\d{1,5})?)"
PYTHON = r"(?a:[\w/][\w./-]*)"


@dataclass(frozen=True)
class DeviceSpec:
    """Where and with what to run: hardware (``cpu``, ``cuda:N``, ``browser``), runtime, threads, batch size, precision.

    ``host`` is a machine to reach by ssh (``user@name:port``), empty for this one; ``python`` the interpreter there.
    """

    hardware: str
    runtime: str
    threads: int = 1
    batch: int = 1
    host: str = ""
    python: str = "python3"
    precision: str = FLOAT32

    @property
    def text(self) -> str:
        where = f"ssh://{self.host}/" if self.host else ""
        python = f"&python={self.python}" if self.python != "python3" else ""
        precision = f"&precision={self.precision}" if self.precision != FLOAT32 else ""
        return f"{where}{self.hardware}+{self.runtime}?threads={self.threads}&batch={self.batch}{precision}{python}"

    @property
    def rewrites(self) -> tuple[Rewrite, ...] | None:
        """What is known of what the runtime's optimiser does to a cell: of integers nothing."""
        return self.made_by.rewrites if self.precision == FLOAT32 else None

    @property
    def made_by(self) -> Runtime:
        return RUNTIMES[self.runtime]


def parse_device(text: str) -> DeviceSpec:
    """Read a device spec or the YAML file (a path, or a name in ``configs/devices``) that holds one under ``device``.

    Raises HwnasError for a spec of another form, an unknown runtime or option.
    """
    file = Path(text) if text.endswith((".yaml", ".yml")) else shipped("configs") / "devices" / f"{text}.yaml"
    if text.endswith((".yaml", ".yml")) or (re.fullmatch(r"[\w-]+", text) and file.exists()):
        text = _spec_in(file)
    form = rf"(?:ssh://({HOST})/?)?(cpu|cuda:\d+|browser)?(?:\+([\w-]+))?(?:\?(.*))?"
    found = re.fullmatch(form, text)
    if not found or not (found[1] or found[2]):
        raise HwnasError(f"unknown device {text!r}", FORMS)
    host, hardware, query = found[1] or "", found[2] or "cpu", found[4] or ""
    runtime = found[3] or DEFAULT_RUNTIME[hardware.split(":")[0]]
    if runtime not in RUNTIMES:
        raise HwnasError(f"unknown runtime {runtime!r} in device {text!r}", f"use one of {', '.join(RUNTIMES)}")
    if not re.fullmatch(RUNTIMES[runtime].hardware, hardware):
        fix = f"use {hardware}+{DEFAULT_RUNTIME[hardware.split(':')[0]]}"
        raise HwnasError(f"runtime {runtime} does not run on {hardware}", fix)
    spec = DeviceSpec(hardware, runtime, host=host)
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in ("threads", "batch"):
            if not re.fullmatch(r"[1-9]\d{0,3}", value):
                raise HwnasError(f"{name}={value!r} in device {text!r} is not a whole number of at least 1")
            spec = replace(spec, threads=int(value)) if name == "threads" else replace(spec, batch=int(value))
        elif name == "precision":
            spec = replace(spec, precision=value)
            require_precision(spec)
        elif name == "python" and host:
            if not re.fullmatch(PYTHON, value):
                raise HwnasError(f"python={value!r} in device {text!r} is not the name or path of an interpreter")
            spec = replace(spec, python=value)
        else:
            raise HwnasError(f"unknown option {name!r} in device {text!r}", "threads, batch and precision can be given")
    return spec


def require_precision(spec: DeviceSpec) -> None:
    """Raises HwnasError when networks of the spec's precision cannot be made for its runtime."""
    known = spec.made_by.precisions
    if spec.precision not in known:
        raise HwnasError(
            f"runtime {spec.runtime} is not profiled with precision {spec.precision!r}", f"use {' or '.join(known)}"
        )


def _spec_in(file: Path) -> str:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise HwnasError(f"cannot read device file {file}: {error.strerror}", FORMS) from error
    except (yaml.YAMLError, UnicodeDecodeError):
        raise HwnasError(f"device file {file} is not valid YAML", FORMS) from None
    if not isinstance(content, dict) or not isinstance(content.get("device"), str):
        raise HwnasError(f"device file {file} has no line 'device: …'", FORMS)
    return content["device"]
