"""Android phones over adb: the real adb client, a stand-in for its server and the phone behind it.

The benchmark programs are stand-ins that print what the real ones print (onnxruntime_perf_test of 1.1x and older,
benchmark_model of 2024, benchncnn of 2023), as public reports have it. No phone has been timed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from hwnas.errors import HwnasError
from hwnas.files import shipped
from hwnas.profiling.connections.connect import connect
from hwnas.profiling.models import Repeated, write_model
from hwnas.profiling.protocol import JobValues, new_job
from hwnas.profiling.session import ask, run_job
from hwnas.runtimes.device_spec import DeviceSpec, parse_device
from hwnas.spaces import Workload
from support.adb_server import AdbServer, adb_server

needs_adb = pytest.mark.skipif(shutil.which("adb") is None, reason="adb is not installed (apt-get install adb)")
PERF_TEST = """\
#!/bin/sh
test "$1" = --help && exit 1
for model; do :; done
test -s "$model" || { echo "Load model from $model failed"; exit 255; }
echo "Session creation time cost: 0.00319 s"
echo "Average inference time cost: 0.35 ms"
echo "Min Latency: 0.00025 s"
echo "Max Latency: 0.0005 s"
echo "P50 Latency: 0.00034375 s"
"""
BENCHNCNN = """\
#!/bin/sh
test "$1" = --help && exit 0
echo "$*" >> "$PHONE/arguments"
printf 'loop_count = 1\\nnum_threads = %s\\npowersave = 2\\ngpu_device = -1\\ncooling_down = 0\\n' "$2"
echo "   model.ncnn.param  min =    0.75  max =    0.75  avg =    0.75"
"""

BENCHMARK_MODEL = """\
#!/bin/sh
test "$1" = --help && exit 0
echo "$*" >> "$PHONE/arguments"
echo "INFO: Loaded model"
echo "INFO: Running benchmark for at least 1 iterations and at least 0.01 seconds."
echo "INFO: count=37 first=300 curr=150 min=125 max=300 avg=140.5 std=9"
echo "INFO: Running benchmark for at least 1 iterations and at least 0 seconds."
echo "INFO: count=1 curr=125"
echo "INFO: Inference timings in us: Init: 1275, First inference: 300, Warmup (avg): 140.5, Inference (avg): 125"
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdbServer]:
    with adb_server(tmp_path / "phone", {"SERIAL1": "device"}) as running:
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{running.server_address[1]}")
        yield running


def program(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / "build" / name
    path.parent.mkdir()
    path.write_text(text)
    (path.parent / "libonnxruntime.so").write_bytes(b"a library")
    return path


def timed(spec: DeviceSpec, folder: Path, file: str, runs: int = 2) -> JobValues:
    folder.mkdir()
    write_model(Repeated(Workload("sum", 4, 4, 8, 8), 1), spec, folder / file)
    with connect(spec, folder) as connection:
        return run_job(connection, new_job(spec, {"a": file}, ["a"] * runs), folder, "pass0")


@needs_adb
def test_onnxruntime_is_timed_by_its_benchmark_on_the_fastest_processors(server: AdbServer, tmp_path: Path) -> None:
    binary = program(tmp_path, "onnxruntime_perf_test", PERF_TEST)
    spec = parse_device(f"android://SERIAL1+onnxruntime?threads=2&binary={binary}")
    values = timed(spec, tmp_path / "job", "0.onnx")
    assert [(run.min_ms, run.median_ms) for run in values.runs] == [(0.25, 0.34375)] * 2
    start = values.start
    assert start
    assert (start.device.name, start.device.kind, start.device.cores) == ("Maker Phone 1", "mobile", 8)
    assert (start.device.model, start.device.os) == ("Maker Phone 1 (SoC 2)", "Android 14")
    assert (start.processors, start.governor, start.provider) == ([6, 7], "schedutil", "CPU")
    assert start.options == {"benchmark": "onnxruntime_perf_test"}
    assert start.version.startswith("binary ")
    ran = [command for _, command in server.commands if "taskset c0 ./benchmark -m times" in command]
    assert len(ran) == 2
    assert all("-x 2 -y 1 -e cpu -I -s 0.onnx" in command and "LD_LIBRARY_PATH=." in command for command in ran)
    assert (server.folder / "masks").read_text().split() == ["c0", "c0"]
    assert not (server.folder / "tmp" / "hwnas").exists()  # everything is removed at the end


@needs_adb
def test_ncnn_is_timed_inference_by_inference(server: AdbServer, tmp_path: Path) -> None:
    """The only phone needs no name. The model is written by hand: pnnx is not what is tested."""
    binary = program(tmp_path, "benchncnn", BENCHNCNN)
    spec = parse_device(f"android://+ncnn?precision=fp16&threads=4&binary={binary}")
    folder = tmp_path / "job"
    folder.mkdir()
    lines = ["7767517", "3 3", "Input in0 0 1 in0 0=9 1=8 2=4", "Input in1 0 1 in1 0=9 1=8 2=4"]
    (folder / "0.ncnn.param").write_text("\n".join([*lines, "BinaryOp sum 2 1 in0 in1 out0 0=0"]) + "\n")
    with connect(spec, folder) as connection:
        values = run_job(connection, new_job(spec, {"a": "0.ncnn.param"}, ["a"]), folder, "pass0")
    assert [(run.min_ms, run.median_ms) for run in values.runs] == [(0.75, 0.75)]
    assert values.start
    assert values.start.processors == [4, 5, 6, 7]
    calls = (server.folder / "arguments").read_text().splitlines()
    assert calls == ["1 4 2 -1 0 param=0.ncnn.param shape=[9,8,4],[9,8,4]"] * 3


@needs_adb
def test_litert_is_timed_inference_by_inference(server: AdbServer, tmp_path: Path) -> None:
    binary = program(tmp_path, "benchmark_model", BENCHMARK_MODEL)
    spec = parse_device(f"android://SERIAL1+litert?threads=2&binary={binary}")
    values = timed(spec, tmp_path / "job", "0.tflite", runs=1)
    assert [(run.min_ms, run.median_ms) for run in values.runs] == [(0.125, 0.125)]
    assert values.start
    assert values.start.runtime == "litert"
    calls = (server.folder / "arguments").read_text().splitlines()
    warm = {call.partition("--warmup_min_secs=")[2].split()[0] for call in calls}
    assert warm == {"0.01"}  # of a model's first run
    assert calls[0].startswith("--graph=0.tflite --num_threads=2 --warmup_runs=1")
    assert [call.endswith("--num_runs=1 --min_secs=0") for call in calls] == [True] * 3


@needs_adb
@pytest.mark.parametrize(
    ("phones", "named", "words", "fix"),
    [
        ({}, "", "no phone is connected", "USB debugging"),
        ({"A": "device", "B": "device"}, "", r"several phones are connected \(A, B\)", "android://A"),
        ({"A": "device"}, "B", "phone B is not connected", "use one of A"),
        ({"A": "unauthorized"}, "A", "does not trust this machine", "on its screen"),
        ({"A": "offline"}, "", "adb says 'offline'", "connect it again"),
    ],
)
def test_phones_that_cannot_be_used_are_clear_errors(
    server: AdbServer, tmp_path: Path, phones: dict[str, str], named: str, words: str, fix: str
) -> None:
    server.phones = phones
    binary = program(tmp_path, "onnxruntime_perf_test", PERF_TEST)
    with pytest.raises(HwnasError, match=words) as caught:
        ask(parse_device(f"android://{named}+onnxruntime?binary={binary}"))
    assert fix in caught.value.fix


@needs_adb
@pytest.mark.parametrize(
    ("text", "words", "fix"),
    [
        ("#!/no/such/interpreter\n", "does not run on the phone", "build it for arm64-v8a"),
        ("#!/bin/sh\ntest $1 = --help || echo hello\n", r"printed no time \('hello'\)", "own benchmark"),
        ("#!/bin/sh\ntest $1 = --help || { echo no memory; exit 9; }\n", "ended with exit code 9 .*: no memory", ""),
    ],
)
def test_programs_that_cannot_be_used_are_clear_errors(
    server: AdbServer, tmp_path: Path, text: str, words: str, fix: str
) -> None:
    spec = parse_device(f"android://+onnxruntime?binary={program(tmp_path, 'perf', text)}")
    with pytest.raises(HwnasError, match=words) as caught:
        timed(spec, tmp_path / "job", "0.onnx")
    assert fix in caught.value.fix
    assert not (server.folder / "tmp" / "hwnas").exists()


@needs_adb
def test_a_program_that_is_not_here_is_a_clear_error(server: AdbServer) -> None:
    with pytest.raises(HwnasError, match="there is no program /no/perf_test on this machine") as caught:
        ask(parse_device("android://+onnxruntime?binary=/no/perf_test"))
    assert "?binary=PATH" in caught.value.fix


def test_without_adb_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HwnasError, match="adb is not installed on this machine") as caught:
        ask(parse_device("android://+onnxruntime?binary=/no/perf_test"))
    assert "apt-get install adb" in caught.value.fix


@pytest.fixture
def profiler(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(shipped("profilers")))
    return import_module("android_adb")


def test_times_of_older_programs_are_read(profiler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    older = "Min Latency is 0.0559 sec\nMax Latency is 0.0625 sec\nP50 Latency is 0.0587 sec\n"
    monkeypatch.setattr(profiler, "benchmark", lambda job, arguments: older)
    times = profiler.onnxruntime_perf_test(("m.onnx", ""), {"max_blocks": 40, "threads": 1}, 0.5)
    assert times == pytest.approx([55.9, 58.7, 62.5])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("android://A+onnxruntime", "android://SERIAL"),
        ("android://A+torch?binary=x", "use one of onnxruntime, litert, ncnn"),
        ("android://A+ncnn?binary=x", "use float16"),
        ("android://A+ncnn?binary=x&precision=fp16&batch=2", "takes single images"),
        ("android://A+onnxruntime?binary=x&provider=nnapi", "unknown option 'provider'"),
        ("android://-x+onnxruntime?binary=x", "unknown device"),
        ("android://A+onnxruntime?binary=$(x)", "not the path of a program"),
    ],
)
def test_specs_of_phones_that_cannot_be_used_are_refused(text: str, words: str) -> None:
    with pytest.raises(HwnasError) as caught:
        parse_device(text)
    assert words in str(caught.value)


def test_specs_of_phones_are_read() -> None:
    spec = parse_device("android://192.168.1.5:5555+onnxruntime?threads=4&binary=build/onnxruntime_perf_test")
    assert (spec.serial, spec.threads, spec.runtime.profiler) == ("192.168.1.5:5555", 4, "android_adb.py")
    assert parse_device(spec.text) == spec
    assert parse_device("android://+onnxruntime?binary=x").serial == "any"
