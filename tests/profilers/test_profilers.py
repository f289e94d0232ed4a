import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import ClassVar

import pytest

from hwnas.files import shipped
from hwnas.profiling.models import Repeated, write_model
from hwnas.profiling.protocol import Job
from hwnas.profiling.testing import WORKLOAD, ProfilerCase
from support.packages import needs_executorch, needs_litert


class TestOnnxRuntime(ProfilerCase):
    device = "cpu"
    packages: ClassVar[set[str]] = {"numpy", "onnxruntime"}


class TestOpenvino(ProfilerCase):
    device = "cpu+openvino"
    packages: ClassVar[set[str]] = {"numpy", "openvino"}

    @pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor compiles models as it loads them")
    def test_many_models_are_compiled_before_the_first_visit(self, folder: Path) -> None:
        models = {f"copies {number}": f"copies{number}.onnx" for number in range(20, 40)}
        for number, file in enumerate(models.values(), 20):
            write_model(Repeated(WORKLOAD, number), self.spec, folder / file)
        job = replace(self.job([]), models=models)
        assert [event["event"] for event in self.events(folder, job)] == ["start", "end"]
        compiled = set((folder / "compiled").iterdir())
        assert len(compiled) >= len(models)
        self.events(folder, replace(job, visits=list(models)))
        assert set((folder / "compiled").iterdir()) == compiled


class TestNcnn(ProfilerCase):
    device = "cpu+ncnn"
    packages: ClassVar[set[str]] = {"numpy", "ncnn"}


@needs_litert
class TestLitert(ProfilerCase):
    device = "cpu+litert"
    packages: ClassVar[set[str]] = {"numpy", "ai_edge_litert"}


@needs_litert
class TestLitertInt8(TestLitert):
    device = "cpu+litert?precision=int8"


@needs_executorch
@pytest.mark.slow
class TestExecutorch(ProfilerCase):
    device = "cpu+executorch"
    packages: ClassVar[set[str]] = {"torch", "executorch"}


@pytest.mark.slow
class TestTorch(ProfilerCase):
    device = "cpu+torch"
    packages: ClassVar[set[str]] = {"torch"}


@pytest.fixture(scope="module")
def needs_a_browser(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Chromium and onnxruntime-web: ``make browser`` installs them."""
    case = TestBrowser()
    result = case.call(tmp_path_factory.mktemp("nothing"), case.job([]))
    if result.returncode and result.stderr.startswith("there is no "):
        pytest.skip(result.stderr.strip())


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder with a short name, because a browser creates sockets in it."""
    with tempfile.TemporaryDirectory(prefix="hwnas-", dir="/tmp") as name:
        yield Path(name)


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.usefixtures("needs_a_browser")
class TestBrowser(ProfilerCase):
    device = "browser"
    packages: ClassVar[set[str]] = {"web_runtime"}

    def start(self, folder: Path, temporary: Path) -> subprocess.Popen[str]:
        """The profiler, after its first visit of very many."""
        job = replace(self.job(["one"]), visits=["one"] * 100_000)
        (folder / "job.json").write_text(json.dumps({**asdict(job), "first_visit": 0}))
        process = subprocess.Popen(
            [sys.executable, str(self.spec.runtime.program), str(folder / "job.json")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        assert process.stdout
        while '"event": "visit"' not in process.stdout.readline():
            assert process.poll() is None, process.communicate()
        assert browsers(temporary)
        return process

    def test_the_page_has_a_fine_clock_and_reports_its_version(self, folder: Path) -> None:
        start = self.events(folder, self.job([]))[0]
        assert 0 < start["clock_ms"] <= 0.02
        assert start["device"]["kind"] == "browser"
        assert ", Chromium " in start["device"]["model"]

    @pytest.mark.parametrize("end", ["terminated", "killed", "unheard"])
    def test_the_browser_ends_with_the_profiler(self, folder: Path, temporary: Path, end: str) -> None:
        process = self.start(folder, temporary)
        assert process.stdout
        assert process.stderr
        if end == "unheard":
            process.stdout.close()
        else:
            process.send_signal(signal.SIGTERM if end == "terminated" else signal.SIGKILL)
        assert process.wait(timeout=30) != 0
        give_up = time.monotonic() + 30
        while browsers(temporary) or list(temporary.iterdir()):
            assert time.monotonic() < give_up, "something is left"
            time.sleep(0.1)
        process.stdout.close()
        process.stderr.close()

    def test_a_page_that_dies_is_one_line(self, folder: Path, temporary: Path) -> None:
        process = self.start(folder, temporary)
        for number in pages(browsers(temporary)):
            os.kill(number, signal.SIGKILL)
        complaint = process.communicate(timeout=30)[1]
        assert (process.returncode, complaint) == (1, "the page in the browser died\n")
        assert not list(temporary.iterdir())


@pytest.mark.parametrize("name", ["HWNAS_ONNXRUNTIME_WEB", "HWNAS_CHROMIUM"])
def test_a_missing_requirement_of_the_browser_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    case = TestBrowser()
    (tmp_path / "ort.min.js").touch()
    monkeypatch.setenv("HWNAS_ONNXRUNTIME_WEB", str(tmp_path))
    monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    result = case.call(tmp_path, case.job([]))
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert ("npm install" if "ONNX" in name else "apt-get install chromium") in result.stderr


def browsers(temporary: Path) -> list[int]:
    """Return the processes that name a folder: a browser with its profile there."""
    return [number for number, command in commands() if str(temporary) in command]


def pages(browser: list[int]) -> list[int]:
    sessions = {os.getsid(number) for number in browser}
    return [n for n, command in commands() if "--type=renderer" in command and os.getsid(n) in sessions]


def commands() -> list[tuple[int, str]]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            found.append((int(place.name), (place / "cmdline").read_text(errors="replace")))
        except OSError:  # it has ended
            continue
    return found


# Computes for half a second on a processor that three other programs want, then prints how long it waited.
SHARED_PROCESSOR = """
import os, runner, subprocess, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
try:
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        pass
    ((ran_ns, waited_ns),) = runner.thread_times(runner.thread_files()).values()
    print(ran_ns / 1e6, waited_ns / 1e6)
finally:
    for other in others:
        other.kill()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this system does not report what waited")
def test_a_program_that_shares_its_processor_knows_that_it_waits() -> None:
    environment = {**os.environ, "PYTHONPATH": str(shipped("profilers"))}
    command = [sys.executable, "-c", SHARED_PROCESSOR]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    ran_ms, waited_ms = map(float, printed.split())
    assert 10 < ran_ms < 10_000
    assert 20 < waited_ms < 10_000


# Times two models, each run by a thread of its own, beside fifty threads that wait for nothing. Prints how many threads
# were looked at before and after each visit.
MANY_THREADS = """
import concurrent.futures, json, runner, sys, threading
def load(path, job):
    thread = concurrent.futures.ThreadPoolExecutor(1)
    for _ in range(25):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return lambda: thread.submit(sum, range(10_000)).result()
looked, read = [], runner.thread_times
def thread_times(files):
    looked.append(len(files))
    return read(files)
runner.thread_times = thread_times
runner.serve(lambda job: dict(runtime="none", version="0", provider="none"), load)
print(json.dumps(looked))
"""


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this system does not report what waited")
def test_only_the_threads_that_run_a_model_are_looked_at_after_its_first_visit(tmp_path: Path) -> None:
    job = Job("cpu", 1, 1, {"a": "a", "b": "b"}, ["a", "b", "a", "b"])
    (tmp_path / "job.json").write_text(json.dumps({**asdict(job), "first_visit": 0}))
    environment = {**os.environ, "PYTHONPATH": str(shipped("profilers"))}
    command = [sys.executable, "-c", MANY_THREADS, str(tmp_path / "job.json")]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
    *events, looked = map(json.loads, printed.splitlines())
    visits = [event for event in events if event["event"] == "visit"]
    assert [visit["model"] for visit in visits] == job.visits
    assert all(visit["waited_ms"] >= 0 for visit in visits)
    assert looked[0] > 25
    assert looked[2] > 50
    # The thread that asks and the one that computes, and any other that was still starting.
    assert all(2 <= number < 10 for number in looked[4:])
