"""Devices over ssh: a real sshd on 127.0.0.1, and connections cut in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from hwnas.errors import HwnasError
from hwnas.profiling import session
from hwnas.profiling.connections import ssh
from hwnas.profiling.connections.connect import connect
from hwnas.profiling.protocol import Job
from hwnas.profiling.session import ask, run_job
from hwnas.runtimes.device_spec import DeviceSpec, parse_device
from hwnas.tables.io import read_table
from support.command import Run
from support.noise import until_quiet

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin")
USER = pwd.getpwuid(os.getuid()).pw_name
needs_sshd = pytest.mark.skipif(
    not (SSHD and shutil.which("ssh-keygen") and Path("/proc/self/cwd").exists()),
    reason="no sshd is installed here (apt-get install openssh-server)",
)


@dataclass
class Host:
    """A machine reached by ssh: this one, with another home folder. ``HWNAS_SSH_CONFIG`` names its configuration."""

    folder: Path
    port: int
    sshd: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def text(self) -> str:
        return f"ssh://{USER}@127.0.0.1:{self.port}+onnxruntime?python={sys.executable}"

    @property
    def spec(self) -> DeviceSpec:
        return parse_device(self.text)

    def start(self) -> None:
        assert SSHD
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        log = (self.folder / "log").open("ab")
        command = [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        self.sshd = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        log.close()
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def signal_sessions(self, number: signal.Signals) -> int:
        """Send a signal to every process that serves a connection, not to the sshd that waits; return their number."""
        assert self.sshd
        reached = 0
        for process in [process for process, parent in parents().items() if parent == self.sshd.pid]:
            with contextlib.suppress(ProcessLookupError):  # one may end between the look and the signal
                os.kill(process, number)
                reached += 1
        return reached

    def stop(self) -> None:
        assert self.sshd
        self.signal_sessions(signal.SIGKILL)  # first, while their parent identifies them
        self.sshd.kill()
        self.sshd.wait()

    def processes(self) -> list[int]:
        """Return the processes that work in this host's home."""
        return [pid for pid in parents() if working_folder(pid).startswith(str(self.home))]

    def profilers(self) -> list[int]:
        """Return the running profilers of this host, not those of other tests."""
        return [pid for pid in self.processes() if b"onnxruntime_cpu.py" in command_of(pid)]

    def leftovers(self) -> list[str]:
        """Files in the home's cache, and processes that work in it."""
        for _ in range(40):  # what was killed a moment ago may still be there
            found = [*map(str, self.home.glob(".cache/hwnas/**/*")), *map(str, self.processes())]
            if not found:
                break
            time.sleep(0.05)
        return found


def parents() -> dict[int, int]:
    """Return process -> parent for all processes."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state not in "ZX":
            found[int(file.parent.name)] = int(parent)
    return found


def working_folder(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Host:
    """Create keys, configurations and a home folder, once for all tests."""
    folder = tmp_path_factory.mktemp("ssh")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = Host(folder, probe.getsockname()[1])
    host.home.mkdir()
    (host.home / ".bashrc").write_text("echo Welcome, stranger\necho 'you have mail' >&2\n")
    for key in ("host_key", "key", "other_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    shutil.copy(folder / "key.pub", folder / "authorized_keys")
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{host.port} {(folder / 'host_key.pub').read_text()}")
    (folder / "sshd_config").write_text(f"""
        Port {host.port}
        ListenAddress 127.0.0.1
        HostKey {folder}/host_key
        AuthorizedKeysFile {folder}/authorized_keys
        SetEnv HOME={host.home}
        PidFile none
        StrictModes no
        UsePAM no
        PasswordAuthentication no
        KbdInteractiveAuthentication no
        PermitRootLogin yes
        """)
    config(host, "ssh_config")
    return host


def config(host: Host, name: str, key: str = "key", known_hosts: str = "known_hosts") -> Path:
    file = host.folder / name
    file.write_text(f"""
        IdentityFile {host.folder}/{key}
        IdentitiesOnly yes
        IdentityAgent none
        UserKnownHostsFile {host.folder}/{known_hosts}
        GlobalKnownHostsFile none
        """)
    return file


@pytest.fixture
def host(made: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("HWNAS_SSH_CONFIG", str(made.folder / "ssh_config"))
    made.start()
    yield made
    made.stop()
    shutil.rmtree(made.home / ".cache", ignore_errors=True)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write = parse_device("cpu").runtime.write
    for size in (1, 3):
        write(torch.nn.Conv2d(4, 4, size), [torch.zeros(1, 4, 8, 8)], folder / f"m{size}.onnx")
    return folder


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    return shutil.copytree(models, tmp_path / "job")


def job_of(runs: int, **changes: float) -> Job:
    names = [("m1", "m3")[number % 2] for number in range(runs)]
    job = Job("cpu", 1, 1, {"m1": "m1.onnx", "m3": "m3.onnx"}, names, pin=False, visit_ms=1)
    return replace(job, **changes)  # type: ignore[arg-type]


def at(run: int, do: Callable[[], None]) -> Callable[[int], None]:
    """Return an ``on_run`` that does something once ``run`` runs are done."""
    still = [True]

    def on_run(done: int) -> None:
        if done >= run and still:
            still.clear()
            do()

    return on_run


def assert_whole(folder: Path, job: Job) -> None:
    """Assert that the journal has every run once, in order."""
    events = [json.loads(line) for line in (folder / "job.jsonl").read_text().splitlines()]
    visits = [(event["visit"], event["model"]) for event in events if event["event"] == "visit"]
    assert visits == list(enumerate(job.visits))


@pytest.mark.slow
@needs_sshd
def test_a_device_describes_itself(host: Host) -> None:
    there, here = ask(host.spec), ask(parse_device("cpu"))
    assert (there.runtime, there.version, there.device) == (here.runtime, here.version, here.device)
    assert not host.leftovers()


@pytest.mark.slow
@needs_sshd
def test_runs_come_back_in_order_and_no_file_stays(host: Host, folder: Path) -> None:
    job, seen, mode = job_of(200), [], 0
    with connect(host.spec, folder) as connection:

        def on_run(done: int) -> None:
            nonlocal mode
            seen.append(done)
            mode = next(host.home.glob(".cache/hwnas/*")).stat().st_mode if done == 100 else mode

        values = run_job(connection, job, folder, "job", on_run)
    assert [run.model for run in values.runs] == job.visits
    assert mode & 0o777 == 0o700
    assert seen[-1] == 200
    assert_whole(folder, job)
    assert not host.leftovers()
    assert sorted(file.name for file in folder.iterdir()) == ["job.json", "job.jsonl", "m1.onnx", "m3.onnx"]


@pytest.mark.slow
@needs_sshd
def test_only_missing_or_different_files_are_sent(host: Host, folder: Path) -> None:
    (folder / "m3.bin").write_bytes(b"a file that belongs to m3.onnx")
    states = []
    with connect(host.spec, folder) as connection:
        for name in ("first", "second"):
            run_job(connection, job_of(2), folder, name)
            files = sorted(file for file in host.home.glob(".cache/hwnas/*/job/*"))
            states.append({file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files})
            (folder / "m3.bin").write_bytes(b"another of the same size: m3.o")
    assert set(states[0]) == {"m1.onnx", "m3.onnx", "m3.bin", "first.json"}
    assert {name for name in states[0] if states[1][name] == states[0][name]} == {"m1.onnx", "m3.onnx", "first.json"}


@pytest.mark.slow
@needs_sshd
@pytest.mark.parametrize("end", ["session", "client"])
def test_a_job_resumes_after_a_cut_connection(
    host: Host, folder: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(session, "RECONNECT_AFTER_S", (0.1, 0.1))
    job = job_of(200)

    def cut() -> None:
        if end == "session":
            host.signal_sessions(signal.SIGKILL)
        else:
            for process, parent in parents().items():
                if parent == os.getpid() and b"BatchMode" in command_of(process):
                    os.kill(process, signal.SIGKILL)

    with connect(host.spec, folder) as connection:
        run_job(connection, job, folder, "job", at(70, cut))
    assert json.loads((folder / "job.json").read_text())["first_visit"] >= 70
    assert_whole(folder, job)
    assert not host.leftovers()


@pytest.mark.alone
@needs_sshd
def test_a_job_resumes_after_a_silent_connection(host: Host, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remote side is stopped, not ended: the old profiler runs on until the new connection ends it."""
    monkeypatch.setattr(session, "RECONNECT_AFTER_S", (0.1, 0.1))
    monkeypatch.setattr(ssh, "ALIVE_S", 1)
    job, stop = job_of(800), at(70, lambda: host.signal_sessions(signal.SIGSTOP))
    old, new = set(), set()

    def on_run(done: int) -> None:
        if done in (60, 700):
            (new if done == 700 else old).update(host.profilers())
        stop(done)

    with connect(host.spec, folder) as connection:
        run_job(connection, job, folder, "job", on_run)
    assert json.loads((folder / "job.json").read_text())["first_visit"] >= 70
    assert (len(old), len(new), len(old & new)) == (1, 1, 0)
    assert_whole(folder, job)
    assert not host.leftovers()


@pytest.mark.slow
@needs_sshd
def test_a_device_that_is_gone_for_good(host: Host, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "RECONNECT_AFTER_S", (0.1, 0.1))
    job = job_of(200)
    with pytest.raises(HwnasError, match=r"Connection refused.*run the same command again to resume") as caught:  # noqa: SIM117
        with connect(host.spec, folder) as connection:
            run_job(connection, job, folder, "job", at(70, host.stop))
    (left,) = host.home.glob(".cache/hwnas/*")
    assert f"~/.cache/hwnas/{left.name} is left on {USER}@127.0.0.1" in str(caught.value)
    kept = (folder / "job.jsonl").read_text()
    assert kept.count('"event": "visit"') >= 70
    host.start()
    with connect(host.spec, folder) as connection:
        run_job(connection, job, folder, "job")
    assert (folder / "job.jsonl").read_text().startswith(kept)
    assert_whole(folder, job)
    assert not host.leftovers()


@needs_sshd
def test_a_folder_that_cannot_be_removed_is_named(
    host: Host, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The device disappears after the last run: the values count, and a line names the folder that is left there."""
    monkeypatch.setattr(session, "RECONNECT_AFTER_S", (0.1, 0.1))
    with connect(host.spec, folder) as connection:
        run_job(connection, job_of(20), folder, "job", at(20, host.stop))
    assert_whole(folder, job_of(20))
    (left,) = host.home.glob(".cache/hwnas/*")
    assert f"hwnas: ~/.cache/hwnas/{left.name} is left on {USER}@127.0.0.1" in capsys.readouterr().err


@needs_sshd
def test_ctrl_c_leaves_no_files_behind(host: Host, folder: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), connect(host.spec, folder) as connection:
        run_job(connection, job_of(2000), folder, "job", at(70, interrupt))
    assert not host.leftovers()


@needs_sshd
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("port", "Connection refused"),
        ("key", "Permission denied"),
        ("unknown host", "Host key verification failed"),
        ("changed host key", "Host key verification failed"),
        ("configuration", "no_such_file"),
        ("no ssh", "ssh is not installed here; install OpenSSH's client"),
    ],
)
def test_a_device_that_cannot_be_reached_is_one_clear_error(
    host: Host, monkeypatch: pytest.MonkeyPatch, fault: str, words: str
) -> None:
    other_key = (host.folder / "other_key.pub").read_text()
    (host.folder / "changed_hosts").write_text(f"[127.0.0.1]:{host.port} {other_key}")
    files = {
        "key": config(host, "wrong_key_config", key="other_key"),
        "unknown host": config(host, "unknown_host_config", known_hosts="no_such_file"),
        "changed host key": config(host, "changed_host_config", known_hosts="changed_hosts"),
        "configuration": host.folder / "no_such_file",
    }
    if fault in files:
        monkeypatch.setenv("HWNAS_SSH_CONFIG", str(files[fault]))
    if fault == "port":
        host.stop()
    if fault == "no ssh":
        monkeypatch.setenv("PATH", "")
    began = time.monotonic()
    with pytest.raises(HwnasError, match=re.escape(words)) as caught:
        ask(host.spec)
    assert time.monotonic() - began < 5
    assert "\n" not in str(caught.value)
    if fault != "no ssh":
        assert f"cannot connect to {USER}@127.0.0.1:{host.port}" in caught.value.problem
        assert f"-p {host.port} {USER}@127.0.0.1 true`" in caught.value.fix
    if fault == "port":
        host.start()


@needs_sshd
@pytest.mark.parametrize("fault", ["corrupt", "missing", "no runtime", "no python"])
def test_a_failure_on_the_device_is_one_clear_error(host: Host, folder: Path, tmp_path: Path, fault: str) -> None:
    spec = host.spec
    words = r"profiler onnxruntime_cpu.py failed on ssh://.*m1.onnx"
    if fault == "corrupt":
        (folder / "m1.onnx").write_bytes(b"this is no model")
    elif fault == "missing":
        (folder / "m1.onnx").unlink()
    elif fault == "no runtime":
        venv.create(tmp_path / "bare")
        spec = replace(spec, python=str(tmp_path / "bare/bin/python"))
        words = r"No module named 'numpy'; install it on .*python -m pip install numpy"
    else:
        spec = replace(spec, python="no/such/python")
        words = r"cannot run no/such/python on .*; name an interpreter that is there with \?python=PATH"
    starts = []
    with pytest.raises(HwnasError, match=words) as caught, connect(spec, folder) as connection:
        run_job(lambda file: starts.append(file) or connection(file), job_of(2), folder, "job")
    assert "\n" not in str(caught.value)
    assert len(starts) <= 1
    assert not host.leftovers()


@pytest.mark.alone
@needs_sshd
@pytest.mark.end_to_end
def test_profile_over_ssh(host: Host, run: Run, tmp_path: Path) -> None:
    """Profile a remote device while the connection is cut once."""
    out = tmp_path / "t.json"

    def cut() -> None:
        visits, reached = 0, 0
        while not (visits >= 150 and reached):
            with contextlib.suppress(FileNotFoundError):  # journals go when the table is there
                files = tmp_path.glob("t.json.partial/*/*.jsonl")
                visits = sum(file.read_text().count('"event": "visit"') for file in files)
            if visits >= 150:
                reached = host.signal_sessions(signal.SIGKILL)
            time.sleep(0.02)

    small = ("--space", "nasbench201", "--channels", 4, "--cells", 1, "--input", "3x16x16")
    quick = ("--rounds", 6, "--fit-networks", 3, "--report-networks", 3)
    command = ("profile", "--accept-noise", *small, *quick, "--out", out, "--device", host.text)

    def run_and_cut() -> Result:
        shutil.rmtree(tmp_path / "t.json.partial", ignore_errors=True)  # as if it were the first attempt
        threading.Thread(target=cut, daemon=True).start()
        return run(*command)

    result = until_quiet(run_and_cut, lambda result: result.output)
    assert re.search("the connection to .* dropped; trying again in 1 s", result.output)
    assert result.exit_code == 0, result.output
    assert {entry.op for entry in read_table(out).entries} >= {"nor_conv_3x3", "avg_pool_3x3", "norm_relu_pool_linear"}
    assert list(tmp_path.iterdir()) == [out]
    assert not host.leftovers()
