"""The connection to any browser on any device: it opens a page of this machine and runs the models.

A job begins on a page that was loaded anew. When the page is lost, its next opening resumes with the interrupted run.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, FiniteFloat, ValidationError

from hwnas.errors import HwnasError
from hwnas.profiling.connections.page_device import UNKNOWN, Described, Hello, Milliseconds, Sent, browser_of, device_of
from hwnas.profiling.connections.page_exchange import Command, Exchange, PageReplacedError
from hwnas.profiling.connections.page_server import PageServer
from hwnas.profiling.connections.page_serving import serve_page, what_to_try
from hwnas.profiling.protocol import PROTOCOL
from hwnas.runtimes.device_spec import DeviceSpec
from hwnas.text import printable
from hwnas.validation import first_problem

MOST_CLOCK_MS = 5.0  # a run lasts some hundred steps of the clock
SLACK = 0.05  # by which the clocks of two machines may differ
RULES = ("block_ms", "visit_ms", "min_blocks", "max_blocks")
THROUGH_USB = "open it as localhost: --device 'page?host=localhost' with `adb reverse` or a tunnel of ssh"
Answer = TypeVar("Answer", bound=Sent)


class Loaded(Sent):
    """The answer to ``load``: the model's number, and how long loading it took."""

    model: int
    load_ms: Annotated[FiniteFloat, Field(ge=0, le=1e7)]


class Timed(Sent):
    """The answer to ``values``: milliseconds of one inference for each block, inferences in a block, all together."""

    times: Annotated[list[Milliseconds], Field(min_length=1, max_length=1000)]
    runs: Annotated[int, Field(ge=1, le=10**7)]
    wall_ms: Milliseconds


def page_lines(spec: DeviceSpec, job_file: Path) -> Iterator[str]:
    """Run a job on the page of a spec and yield the lines of its events, as a profiler prints them.

    The page is served from the first job on until this program ends. Raises HwnasError when nobody opens it, when it
    stays away, cannot run the job, or sends what cannot be true.
    """
    server = serve_page(spec)
    run = _PageJob(spec, server, json.loads(job_file.read_text(encoding="utf-8")), job_file.parent)
    while True:
        try:
            yield json.dumps(run.start())
            while run.number < len(run.job["visits"]):
                yield json.dumps(run.visit())
            break
        except PageReplacedError:
            continue
    yield json.dumps({"event": "end", "load": None, "stolen": None})


@dataclass
class _PageJob:
    """One job on a page; ``number`` is that of the next run."""

    spec: DeviceSpec
    server: PageServer
    job: dict[str, Any]
    folder: Path
    number: int = field(init=False)
    models: dict[str, int] = field(init=False, default_factory=dict)
    hello: Hello = field(init=False)

    def __post_init__(self) -> None:
        self.number = self.job["first_visit"]

    @property
    def exchange(self) -> Exchange:
        return self.server.exchange

    def start(self) -> Command:
        """Take a page without models and return the start line. Raises HwnasError when it cannot run the job."""
        self.models = {}
        self.hello = _checked(Hello, self.exchange.fresh(what_to_try(self.server.exchange.address, self.spec)))
        _check_page(self.spec, self.hello)
        described = self._ask(Described, {"do": "describe"})
        options: dict[str, str | bool] = {"page": True, "pinned": False}
        if self.server.provider == "webgpu":
            options["adapter"] = _adapter_of(described, self.hello)
        return {
            "event": "start",
            "protocol": PROTOCOL,
            "runtime": self.spec.runtime.name,
            "version": self.hello.version,
            "provider": "onnxruntime-web" if self.server.provider == "webgpu" else self.server.provider,
            "options": options,
            "device": device_of(self.hello, described, self.spec.name),
            "processors": None,
            "available": described.cores,
            "governor": None,
            "load": None,
            "clock_ms": self.hello.clock_ms,
        }

    def visit(self) -> Command:
        """Make the next run, after loading its model if the page lacks it, and return its line."""
        name = self.job["visits"][self.number]
        warmup_ms, load_ms = self.job["warmup_ms"], None
        if name not in self.models:
            load_ms = self._load(name)
            warmup_ms = self.job["first_warmup_ms"]
        rules = {rule: self.job[rule] for rule in RULES}
        command = {"do": "values", "model": self.models[name], "warmup_ms": warmup_ms, "clock_ms": self.hello.clock_ms}
        progress = {"done": self.number, "total": len(self.job["visits"])}
        began_s = time.monotonic()
        timed = self._ask(Timed, {**command, **rules, **progress})
        _check_times(timed, self.job, self.hello.clock_ms, 1e3 * (time.monotonic() - began_s))
        times = sorted(timed.times)
        line = {"event": "visit", "visit": self.number, "model": name, "blocks": len(times)}
        line |= {"min_ms": times[0], "median_ms": times[len(times) // 2], "wall_ms": timed.wall_ms}
        self.number += 1
        return line if load_ms is None else {**line, "load_ms": load_ms}

    def _load(self, name: str) -> float:
        self.server.model = self.folder / self.job["models"][name]
        self.exchange.used = True
        command = {"do": "load", "threads": self.job["threads"], "batch": self.job["batch"]}
        command |= {"provider": self.server.provider, "clock_ms": self.hello.clock_ms}
        loaded = self._ask(Loaded, command)
        if loaded.model != len(self.models):
            raise _untrue("the number of a model that it was not given")
        self.models[name] = loaded.model
        return loaded.load_ms

    def _ask(self, model: type[Answer], command: Command) -> Answer:
        answer = self.exchange.ask(command)
        if isinstance(answer, dict) and "error" in answer:
            fix = "a browser with little memory holds fewer models: close its other tabs, or profile a smaller space"
            raise HwnasError(f"the page failed: {printable(' '.join(str(answer['error']).split())[:300])}", fix)
        return _checked(model, answer)


def _check_page(spec: DeviceSpec, hello: Hello) -> None:
    """Raise HwnasError when a page cannot run the jobs of a spec."""
    browser = browser_of(hello.agent)
    if hello.version is None:
        raise HwnasError(f"onnxruntime-web does not start in {browser}", "use a newer browser")
    if spec.threads > 1 and not hello.isolated:
        raise HwnasError(
            f"{browser} gives a page one thread when it was opened by http on a network address",
            f"leave out threads={spec.threads}, or {THROUGH_USB}",
        )
    if hello.clock_ms > MOST_CLOCK_MS:
        raise HwnasError(
            f"the clock of {browser} has steps of {hello.clock_ms:.3g} ms, too coarse to time models",
            "use another browser, or switch off its protection against fingerprinting for this address",
        )


def _adapter_of(described: Described, hello: Hello) -> str:
    """Return the name of the adapter of WebGPU. Raises HwnasError for a page that has none."""
    browser, without = browser_of(hello.agent), "time WebAssembly with --device page"
    if described.adapter is None and not described.secure:
        problem = f"{browser} has no WebGPU in a page that was opened by http on a network address"
        raise HwnasError(problem, f"{THROUGH_USB}, or {without}")
    if described.adapter is None:
        raise HwnasError(f"{browser} has no WebGPU on this device", f"use a newer browser, or {without}")
    return described.adapter or UNKNOWN


def _check_times(timed: Timed, job: dict[str, Any], clock_ms: float, waited_ms: float) -> None:
    """Raise HwnasError for times that the page cannot have taken: too many, too few, or more than went by here."""
    least, most = job["min_blocks"], max(job["min_blocks"], job["max_blocks"])
    if not least <= len(timed.times) <= most:
        raise _untrue(f"{len(timed.times)} times where {least} to {most} were asked for")
    if timed.wall_ms > (1 + SLACK) * waited_ms + clock_ms:
        raise _untrue(f"a run of {timed.wall_ms:.4g} ms {waited_ms:.4g} ms after it was asked for")
    if math.fsum(timed.times) * timed.runs > (1 + SLACK) * timed.wall_ms + clock_ms:
        raise _untrue(f"times of more than {timed.wall_ms:.4g} ms in a run of {timed.wall_ms:.4g} ms")


def _checked(model: type[Answer], answer: Any) -> Answer:
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        raise _untrue(first_problem(error)) from None


def _untrue(what: str) -> HwnasError:
    return HwnasError(f"the page sent what cannot be true: {what}", "open it in another browser, which you trust")
