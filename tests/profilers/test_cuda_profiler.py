"""The torch profiler on a GPU, with a stand-in for torch's CUDA and for nvidia-smi, and what a table keeps of it."""

from __future__ import annotations

import json
import os
import types
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from hwnas.errors import HwnasError
from hwnas.export.timing import spec_of
from hwnas.files import shipped
from hwnas.profiling.connections.connection import profiler_failed
from hwnas.profiling.gpu_state import over_processes, throttling
from hwnas.profiling.plan import ProfilePlan, existing
from hwnas.profiling.protocol import PROTOCOL, Job, JobValues
from hwnas.runtimes.device_spec import parse_device
from hwnas.spaces import SPACES, SizedSpace
from hwnas.tables.io import read_table, write_table
from hwnas.tables.schema import Gpu, LatencyTable
from support.spaces import SMALL
from support.table_samples import V1

# Recorded lines of nvidia-smi: a card at work in its power limit, a laptop's, a virtual GPU.
AT_WORK = "580.159.03, 1755, 1980, 3201, 54, 699.12, 700.00, 0x0000000000000004\n"
LAPTOP = "535.183.01, 300, 2100, 405, 83, [N/A], [N/A], 0x0000000000000061\n"
VIRTUAL = "550.90.07, [N/A], [N/A], [N/A], [N/A], [N/A], [N/A], [N/A]\n"
UUID = "d2c1a6f0-7a4e-4a1c-9a3b-1f2e3d4c5b6a"


@pytest.fixture
def nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(shipped("profilers")))
    return import_module("nvidia_smi")


@pytest.fixture
def torch_eager(nvidia_smi: Any) -> Iterator[Any]:
    """The profiler, whose start turns gradients off: they are turned on again."""
    with torch.enable_grad():
        yield import_module("torch_eager")


def program(folder: Path, lines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program called nvidia-smi first on the PATH."""
    file = folder / "nvidia-smi"
    file.write_text(f"#!/bin/sh\n{lines}")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_lines_of_nvidia_smi_are_read(nvidia_smi: Any) -> None:
    state = nvidia_smi.parse(AT_WORK)
    assert (state["driver"], state["sm_clock_mhz"], state["power_w"]) == ("580.159.03", 1755.0, 699.12)
    assert state["slowed_by"] == ["software power cap"]
    assert nvidia_smi.parse(LAPTOP)["slowed_by"] == ["software thermal slowdown", "hardware thermal slowdown"]
    assert nvidia_smi.parse(LAPTOP)["power_limit_w"] is None
    unknown = nvidia_smi.parse(VIRTUAL)
    assert {unknown[name] for name in nvidia_smi.FIELDS if name != "driver"} == {None}
    assert nvidia_smi.parse("") == nvidia_smi.parse("No devices were found\n") == {}
    for text in (AT_WORK, LAPTOP, VIRTUAL):
        assert Gpu(number=1, **nvidia_smi.parse(text)).describe().startswith("cuda:1; driver 5")


def test_an_older_driver_has_another_name_for_the_reasons(
    nvidia_smi: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = 'case "$1" in *event_reasons*) echo "Field is not a valid field to query." >&2; exit 2;; esac\n'
    program(tmp_path, f'{fails}test "$4" = GPU-7 && printf "{LAPTOP.strip()}\\n"\n', monkeypatch)
    assert nvidia_smi.read("GPU-7")["temperature_c"] == 83
    assert nvidia_smi.read("GPU-8") == {}
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert nvidia_smi.read("GPU-7") == {}


@pytest.mark.parametrize(("visible", "names"), [(None, "01"), ("", "01"), ("3, 1", "31"), ("GPU-a", ["GPU-a", "1"])])
def test_gpus_have_the_numbers_that_cuda_gives_them(
    nvidia_smi: Any, monkeypatch: pytest.MonkeyPatch, visible: str | None, names: str | list[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [nvidia_smi.identity_of(number) for number in (0, 1)] == list(names)


class Event:
    """A stand-in for torch.cuda.Event; the device's clock is a count of inferences, in halves of a millisecond."""

    inferences = 0

    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = Event.inferences

    def elapsed_time(self, end: Event) -> float:
        return (end.at - self.at) / 2


def test_inferences_are_timed_by_events_and_waited_for_once(torch_eager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    monkeypatch.setattr(Event, "inferences", 0)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(Event.inferences))

    def infer() -> None:
        Event.inferences += 1

    job = {"hardware": "cuda:1", "visit_ms": 3.0, "min_blocks": 3, "max_blocks": 40}
    times = torch_eager.values(infer, job, 0.0)
    assert times == [0.5] * len(times)
    assert 3 <= len(times) <= 40
    assert waits == [1, 1 + len(times)]  # after the warm-up's inference, and after all others


def test_the_described_device_is_the_one_that_is_timed(
    torch_eager: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two, whose state nvidia-smi is asked for by its UUID."""
    program(tmp_path, f'test "$4" = GPU-{UUID} && printf "{AT_WORK.strip()}\\n"\n', monkeypatch)
    chosen: list[int] = []
    properties = types.SimpleNamespace(
        name="NVIDIA H200", multi_processor_count=132, total_memory=150_754_820_096, uuid=UUID
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: properties if number == 1 else None)
    monkeypatch.setattr(torch_eager, "multiply_exactly", lambda: None)
    job = {"threads": torch.get_num_threads(), "hardware": "cuda:1"}
    started = torch_eager.start(job)
    assert chosen == [1]
    assert started["device"]["kind"] == "gpu"
    assert started["options"] == {"float32": "ieee"}
    gpu = torch_eager.finish(job)["gpu"]
    assert (gpu["number"], gpu["driver"]) == (1, "580.159.03")
    assert torch_eager.finish({"hardware": "cpu"}) == {}
    with pytest.raises(SystemExit, match="no CUDA device 2"):
        torch_eager.start({**job, "hardware": "cuda:2"})


def test_too_little_memory_is_one_line_that_names_the_batch(torch_eager: Any) -> None:
    def fails(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    with pytest.raises(SystemExit, match="out of memory: cuda:0 has too little for batch=256") as caught:
        torch_eager.guarded(fails)("model.pt", {"hardware": "cuda:0", "batch": 256})
    error = profiler_failed(parse_device("cuda:0+torch?batch=256"), 1, f"{caught.value}\n")
    assert "batch=256" in error.problem
    assert "--device 'cuda:0+torch?threads=1&batch=128'" in error.fix


def values_of(line: str, nvidia_smi: Any, number: int = 1) -> JobValues:
    values = JobValues(Job("cuda:1", 1, 1, {}, []))
    end = {"event": "end", "load": 0.1, "stolen": 0.0, "gpu": {"number": number, **nvidia_smi.parse(line)}}
    values.add(json.dumps(end))
    return values


def test_states_of_several_processes_are_one(nvidia_smi: Any) -> None:
    both = [values_of(line, nvidia_smi) for line in (AT_WORK, LAPTOP)]
    state = over_processes(both)
    assert state
    assert (state.sm_clock_mhz, state.max_sm_clock_mhz, state.temperature_c, state.power_w) == (300, 1980, 83, 699.12)
    assert state.slowed_by == ["software power cap", "software thermal slowdown", "hardware thermal slowdown"]
    assert "hardware thermal slowdown" in throttling(both)
    assert throttling(both[:1]) == ""
    assert over_processes([JobValues(Job("cpu", 1, 1, {}, []))]) is None
    with pytest.raises(HwnasError, match="not of protocol"):
        values_of(AT_WORK, nvidia_smi, number=-1)


def gpu_table(number: int | None) -> LatencyTable:
    """Return a table of a GPU; ``None``: of an older hwnas, which did not keep the device's number."""
    gpu = None if number is None else Gpu(number=number, driver="580.159.03")
    return V1.model_copy(
        update={
            "device": V1.device.model_copy(update={"kind": "gpu", "name": "NVIDIA H200"}),
            "runtime": V1.runtime.model_copy(update={"name": "torch"}),
            "protocol": V1.protocol.model_copy(update={"gpu": gpu}),
        }
    )


def test_a_table_is_of_one_of_several_gpus(tmp_path: Path) -> None:
    for number in (None, 0, 3):
        table = gpu_table(number)
        write_table(tmp_path / "table.json", table)
        assert read_table(tmp_path / "table.json") == table
        assert ("gpu" in table.content()["protocol"]) == (number is not None)
        assert spec_of(table).hardware == f"cuda:{number or 0}"


def test_a_table_of_another_gpu_of_the_machine_is_not_extended(tmp_path: Path) -> None:
    old = gpu_table(3)
    table = old.model_copy(update={"protocol": old.protocol.model_copy(update={"version": PROTOCOL})})
    write_table(tmp_path / "table.json", table)
    sized = SizedSpace(SPACES["nasbench201"], SMALL["nasbench201"])
    runtime = table.runtime
    start: Any = types.SimpleNamespace(
        device=table.device,
        runtime=runtime.name,
        version=runtime.version,
        provider=runtime.provider,
        options=runtime.options,
    )
    options = f"threads={runtime.threads}&batch={runtime.batch}"
    with pytest.raises(HwnasError, match="another device"):
        existing(ProfilePlan(parse_device(f"cuda:0+torch?{options}"), sized), tmp_path / "table.json", start)
    same = ProfilePlan(parse_device(f"cuda:3+torch?{options}"), sized)
    assert existing(same, tmp_path / "table.json", start) == table
