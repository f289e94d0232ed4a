"""A test case for profilers: subclass it, name a device, run pytest."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import ClassVar

import pytest

from hwnas.profiling.models import Repeated, write_model
from hwnas.profiling.protocol import Job
from hwnas.runtimes.device_spec import DeviceSpec, parse_device
from hwnas.spaces import Workload

WORKLOAD = Workload("nor_conv_3x3", 16, 16, 32, 32)


class ProfilerCase:
    """Run a profiler as a program on small models. ``device`` is a spec such as ``cpu+onnxruntime``.

    ``packages`` are the modules that it may import besides the standard library, ``runner`` and
    ``nvidia_smi``.
    """

    device: ClassVar[str]
    packages: ClassVar[set[str]] = {"numpy"}

    @property
    def spec(self) -> DeviceSpec:
        return parse_device(self.device)

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A folder with models: one copy of a convolution, thirteen copies, a sum, and one that is not chainable."""
        folder = tmp_path_factory.mktemp("models")
        spec = parse_device(request.cls.device)
        for name, workload, copies in (
            ("one", WORKLOAD, 1),
            ("many", WORKLOAD, 13),
            ("sum", Workload("sum", 16, 16, 32, 32), 4),
            ("linear", Workload("norm_relu_pool_linear", 16, 10, 8, 8), 2),
        ):
            write_model(Repeated(workload, copies), spec, folder / f"{name}{spec.runtime.suffix}")
        return folder

    def job(self, runs: list[str]) -> Job:
        models = {name: f"{name}{self.spec.runtime.suffix}" for name in runs}
        return Job(self.spec.hardware, self.spec.threads, self.spec.batch, models, runs)

    def call(self, folder: Path, job: Job, first_visit: int = 0) -> subprocess.CompletedProcess[str]:
        (folder / "job.json").write_text(json.dumps({**asdict(job), "first_visit": first_visit}))
        command = [sys.executable, str(self.spec.runtime.program), str(folder / "job.json")]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    def events(self, folder: Path, job: Job, first_visit: int = 0) -> list[dict]:
        result = self.call(folder, job, first_visit)
        assert result.returncode == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    def test_start_describes_device_and_runtime(self, folder: Path) -> None:
        (start, end) = self.events(folder, self.job([]))
        assert (start["event"], end["event"]) == ("start", "end")
        assert start["runtime"] == self.spec.runtime.name
        assert all(start[key] for key in ("version", "provider"))
        assert {"name", "kind", "model", "cores", "memory_bytes", "os"} == set(start["device"])
        assert start["device"]["cores"] > 0
        assert {"options", "processors", "available", "governor", "load", "clock_ms"} <= set(start)

    def test_runs_come_in_order_with_their_times(self, folder: Path) -> None:
        order = ["one", "many", "sum", "linear", "one", "sum"]
        runs = self.events(folder, self.job(order))[1:-1]
        assert [(v["event"], v["visit"], v["model"]) for v in runs] == [
            ("visit", number, name) for number, name in enumerate(order)
        ]
        assert all(0 < v["min_ms"] <= v["median_ms"] <= v["wall_ms"] for v in runs)
        assert all(v["blocks"] >= 2 for v in runs)

    def test_more_work_takes_longer(self, folder: Path) -> None:
        """Compare thirteen convolutions in a row with one: the runtime must not optimise the chain away."""
        runs = self.events(folder, self.job(["one", "many"] * 6))[1:-1]
        one, many = (min(v["min_ms"] for v in runs if v["model"] == name) for name in ("one", "many"))
        assert many > one * 1.5

    def test_a_job_resumes_from_any_run(self, folder: Path) -> None:
        events = self.events(folder, self.job(["one", "many", "one", "sum"]), first_visit=2)
        assert [(e["visit"], e["model"]) for e in events[1:-1]] == [(2, "one"), (3, "sum")]

    @pytest.mark.parametrize("fault", ["protocol", "missing", "corrupt"])
    def test_a_failure_is_one_line_and_an_exit_code(self, folder: Path, fault: str) -> None:
        job = self.job(["one"])
        if fault == "protocol":
            job = replace(job, protocol=99)
        else:
            (folder / f"corrupt{self.spec.runtime.suffix}").write_bytes(b"this is no model")
            job = replace(job, models={"one": f"{fault}{self.spec.runtime.suffix}"})
        result = self.call(folder, job)
        assert result.returncode != 0
        assert result.stderr.strip()
        assert '"event": "visit"' not in result.stdout

    def test_it_imports_its_runtime_and_nothing_else(self) -> None:
        tree = ast.parse(self.spec.runtime.program.read_text(encoding="utf-8"))
        imported = {
            name.split(".")[0]
            for node in ast.walk(tree)
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert imported - set(sys.stdlib_module_names) <= self.packages | {"runner", "nvidia_smi"}

    def test_batches_are_run(self, folder: Path, tmp_path: Path) -> None:
        """Eight images take longer than one."""
        spec = replace(self.spec, batch=8)
        path = tmp_path / f"many{spec.runtime.suffix}"
        write_model(Repeated(WORKLOAD, 13), spec, path)
        eight = self.events(tmp_path, replace(self.job(["many"] * 5), batch=8))[1:-1]
        one = self.events(folder, self.job(["many"] * 5))[1:-1]
        assert min(v["min_ms"] for v in eight) > 2 * min(v["min_ms"] for v in one)
