"""ONNX Runtime's execution providers.

The wheel of onnxruntime has no accelerator. Its AzureExecutionProvider is real, starts, and runs no node of a
network, so it falls back to the CPU silently, as others do for what they lack; the CPU's own provider, named as if it
were another, falls back for nothing. What other providers report is recorded below.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import onnx
import onnxruntime
import pytest
import torch

from hwnas.errors import HwnasError
from hwnas.export.timing import spec_of
from hwnas.files import shipped
from hwnas.profiling.connections.connection import profiler_failed
from hwnas.profiling.models import Repeated, Whole, torch_model, write_model
from hwnas.profiling.plan import ProfilePlan, existing
from hwnas.profiling.protocol import Job, new_job
from hwnas.profiling.session import ask
from hwnas.profiling.testing import ProfilerCase
from hwnas.runtimes.device_spec import DeviceSpec, parse_device
from hwnas.spaces import SPACES, Setting, SizedSpace, Workload
from hwnas.tables.io import write_table
from support.command import Run, assert_one_clear_line
from support.spaces import SMALL
from support.tables import make_table, of_this_machine

SIZED = SizedSpace(SPACES["nasbench201"], SMALL["nasbench201"])
TINY = SizedSpace(SPACES["nasbench201"], Setting(channels=4, depth=1, height=9, width=9))
MIXED = "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|"


def node(name: str, op: str, provider: str) -> dict[str, Any]:
    """An event of a session's profile, as ONNX Runtime 1.24 writes it."""
    return {"cat": "Node", "name": f"{name}_kernel_time", "args": {"op_name": op, "provider": provider}}


# From sessions with onnxruntime-openvino 1.24.1: a whole network, and one with an operator that OpenVINO lacks.
SESSION = {"cat": "Session", "name": "model_run", "args": {}}
WHOLE_ON_OPENVINO = [
    SESSION,
    node("OpenVINOExecutionProvider_OpenVINO-EP-subgraph_1_0", "OpenVINO-EP-subgraph_1", "OpenVINOExecutionProvider"),
]
MIX = [
    SESSION,
    node("Det", "Det", "CPUExecutionProvider"),
    node("Relu", "Relu", "CPUExecutionProvider"),
    *WHOLE_ON_OPENVINO,
]


@pytest.fixture
def profiler(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(shipped("profilers")))
    return import_module("onnxruntime_provider")


def with_its_provider(spec: DeviceSpec, full_name: str, fallback: bool = False) -> Job:
    options = {"provider": full_name, "provider_options": {}, "threads_option": "", "fallback": fallback}
    return replace(new_job(spec, {}, []), options=options)


class TestProvider(ProfilerCase):
    """The profiler's own case, with the CPU as the provider."""

    device = "cpu?provider=xnnpack"
    packages: ClassVar[set[str]] = {"numpy", "onnxruntime"}
    full_name = "CPUExecutionProvider"
    fallback = False

    def job(self, runs: list[str]) -> Job:
        return replace(super().job(runs), options=with_its_provider(self.spec, self.full_name, self.fallback).options)

    def test_a_silent_fallback_is_refused_unless_allowed(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A provider that is there, starts, and leaves every node to the CPU; allowed, it is timed as what it is."""
        monkeypatch.setattr(type(self), "full_name", "AzureExecutionProvider")
        result = self.call(folder, self.job(["one"]))
        assert (result.returncode, len(result.stderr.splitlines())) == (1, 1), result.stderr
        assert '"visit"' not in result.stdout
        assert "AzureExecutionProvider does not run all of one.onnx" in result.stderr
        assert "Conv (1) on CPUExecutionProvider" in result.stderr
        assert "fallback=cpu" in result.stderr
        monkeypatch.setattr(type(self), "fallback", True)
        start, run, _ = self.events(folder, self.job(["one"]))
        assert (start["provider"], run["model"]) == ("AzureExecutionProvider", "one")


def test_the_profile_of_a_session_says_where_nodes_ran(profiler: Any) -> None:
    openvino = {"provider": "OpenVINOExecutionProvider", "fallback": False}
    profiler.refuse_elsewhere("whole.onnx", WHOLE_ON_OPENVINO, openvino)
    with pytest.raises(SystemExit, match=r"Det \(1\) on CPUExecutionProvider, Relu \(1\) on CPUExecutionProvider"):
        profiler.refuse_elsewhere("mix.onnx", MIX, openvino)
    profiler.refuse_elsewhere("mix.onnx", MIX, {**openvino, "fallback": True})
    with pytest.raises(SystemExit, match="not known where"):
        profiler.refuse_elsewhere("old.onnx", [SESSION], openvino)


def test_reasons_of_onnxruntime_are_shortened(profiler: Any) -> None:
    """Two messages of onnxruntime-openvino 1.24.1, which then went on with the CPU."""
    place = "/onnxruntime/core/providers/openvino/openvino_provider_factory.cc:141 std::string ParseDeviceType"
    assert profiler.reason(
        f"[E:onnxruntime:Default, x.cc:2 Create] {place}(int) [ERROR] [OpenVINO] Device GPU is not available"
    ) == ("[OpenVINO] Device GPU is not available")
    made = "/onnxruntime/python/onnxruntime_pybind_state.cc:1053 Factory Create(const O&) Invalid OpenVINO EP option: x"
    assert profiler.reason(made) == "Invalid OpenVINO EP option: x"


def test_a_provider_that_is_not_there_is_one_clear_error(run: Run, tmp_path: Path) -> None:
    asked = ("profile", "--space", "nasbench201", "--channels", 4, "--cells", 1, "--out", tmp_path / "t.json")
    names = onnxruntime.get_available_providers()
    result = run(*asked, "--device", "cpu?provider=dml")
    assert_one_clear_line(result, "DmlExecutionProvider is not in onnxruntime", *names, "install onnxruntime-directml")
    result = run(*asked, "--device", "cpu?provider=dml&python=/no/python")
    assert_one_clear_line(result, "cannot run /no/python", r"\?python=PATH")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cpu?provider=abacus", "use one of cpu, cuda, tensorrt, openvino"),
        ("cpu+torch?provider=cuda", "runtime torch has no execution providers"),
        ("cpu?openvino.device_type=GPU", "add provider=openvino"),
        ("cpu?provider=openvino&openvino.device_type=$(x)", "not a value of letters"),
        ("cpu?provider=xnnpack&precision=fp16", "with provider xnnpack is not profiled with precision 'float16'"),
        ("cpu?provider=openvino&fallback=gpu", "unknown option 'fallback'"),
        ("cpu?fallback=cpu", "unknown option 'fallback'"),
        ("cpu?cpu.threads=4", "unknown option 'cpu.threads'"),
        ("cuda:0+onnxruntime", "use cuda:0+torch"),
    ],
)
def test_providers_that_cannot_be_used_are_refused(text: str, words: str) -> None:
    with pytest.raises(HwnasError) as caught:
        parse_device(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "cpu?provider=openvino&openvino.device_type=GPU.1&openvino.cache_dir=/tmp/c&fallback=cpu&opset=13",
        "cpu?provider=coreml&precision=fp16",
        "cuda:1+onnxruntime?provider=tensorrt&tensorrt.trt_engine_cache_enable=1",
        "cpu?provider=qnn&precision=int8",
    ],
)
def test_the_provider_and_its_options_are_part_of_a_table(text: str, tmp_path: Path) -> None:
    spec, table = parse_device(text), make_table(SIZED)
    assert parse_device(spec.text) == spec
    runtime = table.runtime.model_copy(
        update={"provider": PROVIDER_NAMES[spec.provider], "precision": spec.precision, "options": spec.table_options}
    )
    kind = "gpu" if spec.hardware.startswith("cuda") else "cpu"
    table = table.model_copy(update={"runtime": runtime, "device": table.device.model_copy(update={"kind": kind})})
    found = spec_of(table)
    assert replace(found, hardware=spec.hardware) == spec  # the number of a GPU is in its state
    assert spec.rewrites is None


PROVIDER_NAMES = {
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "qnn": "QNNExecutionProvider",
}


def test_a_table_of_a_provider_is_not_continued_with_another(tmp_path: Path) -> None:
    table = of_this_machine(SIZED)
    options = {**table.runtime.options, "openvino.device_type": "GPU"}
    runtime = table.runtime.model_copy(update={"provider": "OpenVINOExecutionProvider", "options": options})
    write_table(tmp_path / "t.json", table.model_copy(update={"runtime": runtime}))
    start = replace(ask(parse_device("cpu")), provider="OpenVINOExecutionProvider")
    on_gpu = parse_device("cpu?provider=openvino&openvino.device_type=GPU")
    assert existing(ProfilePlan(on_gpu, SIZED), tmp_path / "t.json", start)
    with pytest.raises(HwnasError, match=r'"openvino.device_type":"GPU"'):
        existing(ProfilePlan(parse_device("cpu?provider=openvino"), SIZED), tmp_path / "t.json", start)


def test_a_table_of_a_provider_without_a_profiler_is_refused() -> None:
    table = make_table(SIZED)
    runtime = table.runtime.model_copy(update={"provider": "ROCMExecutionProvider"})
    with pytest.raises(HwnasError, match="no profiler for the table's provider ROCMExecutionProvider"):
        spec_of(table.model_copy(update={"runtime": runtime}))


def test_a_profilers_advice_is_the_fix_of_its_error() -> None:
    error = profiler_failed(parse_device("cpu"), 1, "some warning\nit broke; fix: mend it\n")
    assert error.problem.endswith("it broke")
    assert error.fix == "mend it"


@pytest.mark.parametrize(("workload", "copies"), [("nor_conv_3x3", 2), ("norm_relu_pool_linear", 2)])
def test_float16_copies_have_float16_inputs(workload: str, copies: int, tmp_path: Path) -> None:
    """Casts of inputs of their own would be part of the slope over copies."""
    write_model(
        Repeated(Workload(workload, 8, 8, 9, 9), copies),
        parse_device("cpu?provider=cuda&precision=fp16"),
        tmp_path / "m.onnx",
    )
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert {value.type.tensor_type.elem_type for value in graph.input} == {onnx.TensorProto.FLOAT16}
    assert not [node for node in graph.node if node.op_type == "Cast"]


def test_float16_networks_compute_nearly_the_same_as_torch(tmp_path: Path) -> None:
    """Weights and activations are rounded to 11 bits; inputs and outputs stay float32."""
    spec, model = parse_device("cpu?provider=cuda&precision=fp16"), Whole(TINY, TINY.space.parse(MIXED))
    write_model(model, spec, tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    kinds = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16}
    write_model(model, parse_device("cpu"), tmp_path / "full.onnx")
    image = torch_model(model, 1)[1][0].normal_(generator=torch.Generator().manual_seed(0)).numpy()
    half, full = (
        onnxruntime.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"]).run(None, {"input0": image})[
            0
        ]
        for name in ("m.onnx", "full.onnx")
    )
    assert half.dtype == full.dtype
    assert 0 < abs(half - full).max() < 1e-2 * abs(full).max()


def test_a_gpu_is_described_by_nvidia_smi(profiler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi = import_module("nvidia_smi")
    monkeypatch.setattr(nvidia_smi, "query", lambda command: "NVIDIA GeForce RTX 3090, 24576\n")
    name = "NVIDIA GeForce RTX 3090"
    assert nvidia_smi.describe(1) == {"name": name, "model": name, "cores": 0, "memory_bytes": 24 << 30}
    monkeypatch.setattr(nvidia_smi, "query", lambda command: "")
    assert nvidia_smi.describe(1) == {}


def test_standard_output_of_a_provider_does_not_reach_the_host(tmp_path: Path) -> None:
    """Old versions announce a session on the CPU there, which would break the protocol."""
    program = (
        f"import os, sys; sys.path[:0] = [{str(shipped('profilers'))!r}]; from onnxruntime_provider import captured\n"
        "said = []\nwith captured(said): print('EP Error'); os.write(2, b'why\\n')\nprint(sorted(said[0].split()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == ["EP", "Error", "why"]
    assert done.stderr == ""
