"""Describe the device of a page by what its browser says. What it does not say stays unknown."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat

from hwnas.text import shorten

# By the first that a user agent contains: most contain those that come later here, too.
BROWSERS = {
    "Edge": r"Edg(?:A|iOS)?/(\d+)",
    "Opera": r"OPR/(\d+)",
    "Samsung Internet": r"SamsungBrowser/(\d+)",
    "Firefox": r"(?:Firefox|FxiOS)/(\d+)",
    "Chrome": r"CriOS/(\d+)",
    "Chromium": r"Chrome/(\d+)",
    "Safari": r"Version/(\d+(?:\.\d+)?).* Safari/",
}
SYSTEMS = {
    r"Android": "Android",
    r"(?:iPhone|CPU) OS (\d+)(?:_(\d+))?": "iOS",
    r"Windows": "Windows",
    r"CrOS": "ChromeOS",
    r"Mac OS X": "macOS",
    r"Tizen": "Tizen",
    r"Web0S": "webOS",
    r"Linux (\w+)": "Linux",
    r"Linux": "Linux",
}
UNKNOWN = "unknown"


def _shown(text: str) -> str:
    if not text.isprintable():
        raise ValueError("a character that cannot be printed")
    return text


Text = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_shown)]
Milliseconds = Annotated[FiniteFloat, Field(gt=0, le=1e6)]


class Sent(BaseModel):
    """Base of what a page sends: no unknown fields, no converted types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Hello(Sent):
    """The first message of a page. ``version`` is that of onnxruntime-web, None if it does not start."""

    version: Annotated[str, Field(pattern=r"^[\w.+-]{1,40}$")] | None
    agent: Text
    isolated: bool
    clock_ms: Milliseconds


class Described(Sent):
    """The browser's description of its device; None where it does not say.

    ``renderer`` is the GPU as WebGL names it, ``adapter`` as WebGPU does, '' if that has no name. ``secure`` is False
    for a page that was opened by http on a network address: its browser says less, and has no WebGPU.
    """

    secure: bool
    cores: Annotated[int, Field(ge=1, le=4096)] | None
    model: Text | None
    renderer: Text | None
    adapter: Annotated[str, Field(max_length=300), AfterValidator(_shown)] | None


def device_of(hello: Hello, described: Described, name: str) -> dict[str, Any]:
    """Return the device of a start line.

    ``model``, which the fingerprint is made of, has what every page says, however it was opened: the browser's version
    and the GPU. ``name`` also has the device's model, or is the one given. 0 cores and 0 bytes mean unknown.
    """
    system, gpu = system_of(hello.agent), shorten(gpu_of(described.renderer or ""), 100)
    model = ", ".join(filter(None, [gpu, browser_of(hello.agent)]))
    return {
        "name": shorten(name or f"{described.model or system}, {model}", 200),
        "kind": "browser",
        "model": model,
        "cores": described.cores or 0,
        "memory_bytes": 0,
        "os": system,
    }


def gpu_of(renderer: str) -> str:
    """Return a GPU's name without the layers that WebGL names around it, and without their versions."""
    found = re.fullmatch(r"ANGLE \([^,]*, (?:ANGLE Metal Renderer: )?(.*), [^,]*\)", renderer)
    return found[1] if found else renderer


def browser_of(agent: str) -> str:
    """Return a browser's name and major version: "Chromium 143"."""
    for name, pattern in BROWSERS.items():
        if found := re.search(pattern, agent, re.ASCII):
            return f"{name} {found[1]}"
    return f"{UNKNOWN} browser"


def system_of(agent: str) -> str:
    """Return a system's name, with the version or the processor where a browser gives the true one: "iOS 18.5"."""
    for pattern, name in SYSTEMS.items():
        if found := re.search(pattern, agent, re.ASCII):
            known = ".".join(part for part in found.groups() if part)
            return f"{name} {known}".strip()
    return f"{UNKNOWN} system"
