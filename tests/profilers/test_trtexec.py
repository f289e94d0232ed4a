"""The profiler of TensorRT, with a stand-in for trtexec: no GPU is at hand.

The lines are in the format of trtexec 8.6 and 10.2, as public bug reports have it; the numbers are made up.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from hwnas.errors import HwnasError
from hwnas.export.network import export_network
from hwnas.files import shipped
from hwnas.networks.child import ChildNetwork
from hwnas.profiling.connections.connect import connect
from hwnas.profiling.models import Repeated, write_model
from hwnas.profiling.protocol import new_job
from hwnas.profiling.session import ask, run_job
from hwnas.runtimes.device_spec import parse_device
from hwnas.runtimes.onnx_batch import fix_batch
from hwnas.spaces import SPACES, Setting, SizedSpace, Workload

AT = "[11/30/2026-10:00:01] [I] "
MORE = "percentile(90%) = 2 ms, percentile(95%) = 2 ms, percentile(99%) = 2 ms"
SUMMARY = f"""\
{AT}=== Performance summary ===
{AT}Throughput: 900.1 qps
{AT}Latency: min = 1.5 ms, max = 2.5 ms, mean = 1.75 ms, median = 1.625 ms, {MORE}
{AT}Enqueue Time: min = 0.25 ms, max = 0.5 ms, mean = 0.375 ms, median = 0.375 ms, {MORE}
{AT}GPU Compute Time: min = 0.0625 ms, max = 0.125 ms, mean = 0.08 ms, median = 0.075 ms, {MORE}
{AT}Total Host Walltime: 3.0 s
"""
STAND_IN = """\
#!/bin/sh
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v8601] # trtexec $*"
echo "$*" >> "$(dirname "$0")/calls"
for word in "$@"; do case "$word" in
  --saveEngine=*) echo engine > "${word#--saveEngine=}" ;;
  --loadEngine=*) test -s "${word#--loadEngine=}" || exit 3; cat "$(dirname "$0")/summary" ;;
  --onnx=*broken*) echo "[11/30/2026-10:00:01] [E] Failed to parse onnx file"; echo "&&&& FAILED"; exit 1 ;;
esac; done
"""


@pytest.fixture
def profiler(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(shipped("profilers")))
    return import_module("tensorrt_trtexec")


@pytest.fixture
def trtexec(tmp_path: Path) -> Path:
    program = tmp_path / "bin" / "trtexec"
    program.parent.mkdir()
    program.write_text(STAND_IN)
    program.chmod(0o755)
    (program.parent / "summary").write_text(SUMMARY)
    return program


@pytest.mark.parametrize(
    ("header", "version"),
    [
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8601] # trtexec --help", "8.6.1"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v100200] # trtexec --help", "10.2.0"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v101303] [b9] # trtexec --help", "10.13.3"),
        ("usage: something else", ""),
    ],
)
def test_versions_are_read(profiler: Any, header: str, version: str) -> None:
    assert profiler.version_in(header) == version


def test_the_gpus_own_times_are_read(profiler: Any) -> None:
    assert profiler.times_in(SUMMARY) == [0.0625, 0.075, 0.125]
    with pytest.raises(SystemExit, match="TensorRT 8 or newer"):
        profiler.times_in("[I] GPU Compute\n[I] min: 1.25 ms\n")  # version 7


def test_models_are_built_once_and_timed_from_their_engines(trtexec: Path, tmp_path: Path) -> None:
    spec, folder = parse_device(f"cuda:2+tensorrt?precision=fp16&binary={trtexec}"), tmp_path / "job"
    folder.mkdir()
    write_model(Repeated(Workload("nor_conv_1x1", 4, 4, 8, 8), 2), spec, folder / "m.onnx")
    kinds = {tensor.data_type for tensor in onnx.load(folder / "m.onnx").graph.initializer if len(tensor.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT}  # trtexec converts it
    with connect(spec, folder) as connection:
        values = run_job(connection, new_job(spec, {"a": "m.onnx"}, ["a", "a"]), folder, "pass0")
    assert [(run.min_ms, run.median_ms) for run in values.runs] == [(0.0625, 0.075)] * 2
    start = values.start
    assert start
    assert (start.runtime, start.version, start.provider, start.device.kind) == ("tensorrt", "8.6.1", "cuda", "gpu")
    calls = (trtexec.parent / "calls").read_text().splitlines()
    assert sum("--saveEngine=" in call for call in calls) == 1
    assert ["--fp16" in call for call in calls if "--onnx=" in call] == [True]
    assert all("--device=2" in call for call in calls if "--help" not in call)
    assert all("--noDataTransfers" in call for call in calls if "--loadEngine" in call)
    engine = next(word for word in calls[1].split() if word.startswith("--saveEngine="))
    assert not Path(engine.partition("=")[2]).exists()


def test_failures_of_trtexec_are_one_clear_error(trtexec: Path, tmp_path: Path) -> None:
    spec = parse_device(f"cuda:0+tensorrt?binary={trtexec}")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with connect(spec, tmp_path) as connection, pytest.raises(HwnasError, match="trtexec failed: Failed to parse onnx"):
        run_job(connection, new_job(spec, {"a": "broken.onnx"}, ["a"]), tmp_path, "pass0")
    with pytest.raises(HwnasError, match="does not say which version") as caught:
        ask(parse_device("cuda:0+tensorrt?binary=/bin/echo"))
    assert "?binary=PATH" in caught.value.fix
    with pytest.raises(HwnasError, match="cannot run /no/trtexec: No such file"):
        ask(parse_device("cuda:0+tensorrt?binary=/no/trtexec"))


def test_a_board_is_named_as_others_are() -> None:
    spec = parse_device("ssh://me@jetson+tensorrt?precision=fp16")
    assert (spec.host, spec.hardware, spec.precision, spec.file_precision) == (
        "me@jetson",
        "cuda:0",
        "float16",
        "float32",
    )
    with pytest.raises(HwnasError, match="precision 'int8'"):
        parse_device("ssh://me@jetson+tensorrt?precision=int8")


def test_an_exported_network_gets_the_batch_size_of_the_device(tmp_path: Path) -> None:
    sized = SizedSpace(SPACES["nasbench201"], Setting(channels=4, depth=1, height=8, width=8))
    mixed = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|"
    export_network(ChildNetwork(sized, sized.space.parse(mixed), prune=True), tmp_path / "n.onnx", {})
    fix_batch(tmp_path / "n.onnx", tmp_path / "fixed.onnx", 3)
    model = onnx.load(tmp_path / "fixed.onnx")
    onnx.checker.check_model(model, full_check=True)
    shapes = [
        [axis.dim_value for axis in v.type.tensor_type.shape.dim] for v in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [[3, 3, 8, 8], [3, 10]]
    from onnxruntime import InferenceSession

    images = np.random.default_rng(0).standard_normal((3, 3, 8, 8), dtype=np.float32)
    one, other = (
        InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"]).run(None, {"image": images})[0]
        for name in ("n.onnx", "fixed.onnx")
    )
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
