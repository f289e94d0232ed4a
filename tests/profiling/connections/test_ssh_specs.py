"""Devices over ssh: specs that try to smuggle something in, and the side on the device without a connection."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hwnas.errors import HwnasError
from hwnas.files import shipped
from hwnas.profiling.connections import ssh
from hwnas.profiling.connections.connect import connect
from hwnas.runtimes.device_spec import parse_device


@pytest.mark.parametrize(
    "text",
    [
        "ssh://",
        "ssh://-oProxyCommand=id",
        "ssh://me@-oProxyCommand=id",
        "ssh://-l@board",
        "ssh://me@bo ard",
        "ssh://me@board;id",
        "ssh://me@$(id)",
        "ssh://me@`id`",
        "ssh://'me'@board",
        'ssh://me"@board',
        "ssh://me@board\n",
        "ssh://me@board\nid",
        "ssh://me@board:22:33",
        "ssh://me@[::1",
        "ssh://m%65@board",
        "ssh://me@böard",
        "ssh://me@board+onnxruntime?python=-c",
        "ssh://me@board+onnxruntime?python=python3 -c id",
        "ssh://me@board+onnxruntime?python=python3%20-c",
        "ssh://me@board+onnxruntime?python=$(id)",
        "ssh://me@board+onnxruntime?python=python3;id",
        "ssh://me@board+onnxruntime?python=python3%3Bid",
        "ssh://me@board+onnxruntime?python=python3%0Aid",
        "ssh://me@board+onnxruntime?python=~/python",
        "ssh://me@board+onnxruntime?python=pythön",
        "ssh://me@board+onnxruntime?python=",
        "ssh://me@board+onnxruntime?threads=1;id",
    ],
)
def test_ambiguous_specs_are_refused(text: str) -> None:
    with pytest.raises(HwnasError):
        parse_device(text)


tricky = st.text("ab3.-_/@:[]% '\"$(){};`\n&|<>\\~*?=#!^,+é٣", max_size=8)


@given(tricky, tricky)
@example("me@board:22", "venv/bin/python3")
@example("[::1]:22", "python3.11")
def test_accepted_specs_are_plain(host: str, python: str) -> None:
    try:
        spec = parse_device(f"ssh://{host}+onnxruntime?python={python}")
    except HwnasError:
        return
    assert re.fullmatch(r"[A-Za-z0-9_\[][A-Za-z0-9_.@:\[\]-]*", spec.host)
    assert re.fullmatch(r"[A-Za-z0-9_/][A-Za-z0-9_./-]*", spec.python)
    if spec.host:
        *_, dashes, destination = ssh.SshDevice(spec, Path(), Path()).destination
        assert dashes == "--"
        assert re.fullmatch(r"[A-Za-z0-9_.@:-]+", destination)
        assert shlex.split(f"{spec.python} {ssh.BOOT}") == [spec.python, *shlex.split(ssh.BOOT)]


def test_a_spec_made_without_parsing_is_validated(tmp_path: Path) -> None:
    for wrong in ({"host": "-oProxyCommand=id"}, {"python": "$(id)"}):
        spec = replace(parse_device("ssh://me@board"), **wrong)
        with pytest.raises(HwnasError, match="not a device that can be reached"), connect(spec, tmp_path):
            pass


@pytest.mark.parametrize(
    ("host", "port", "destination"),
    [
        ("board", [], "board"),
        ("me@board.local:2222", ["-p", "2222"], "me@board.local"),
        ("me@[fe80::1]:22", ["-p", "22"], "me@fe80::1"),
        ("[::1]", [], "::1"),
    ],
)
def test_hosts_are_passed_to_ssh(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str, port: list[str], destination: str
) -> None:
    monkeypatch.delenv("HWNAS_SSH_CONFIG", raising=False)
    there = ssh.SshDevice(parse_device(f"ssh://{host}"), tmp_path, tmp_path)
    assert there.destination == [*port, "--", destination]
    assert re.fullmatch(r"[0-9a-f]{16}", there.id)
    assert there.id == ssh.SshDevice(there.spec, tmp_path, Path()).id
    assert there.id != ssh.SshDevice(there.spec, tmp_path / "other", Path()).id
    monkeypatch.setenv("HWNAS_SSH_CONFIG", "my_config")
    assert there.destination == ["-F", "my_config", *port, "--", destination]
    assert {"-oBatchMode=yes", "-oServerAliveInterval=5", "-oServerAliveCountMax=3"} < set(there.ssh)
    assert not any("StrictHostKeyChecking" in word for word in there.ssh)


@pytest.mark.parametrize(("usual", "short"), [("/tmp/a", True), ("/tmp/" + 60 * "a", False), ("/tmp/100%h", False)])
def test_the_path_of_the_socket_is_short_and_plain(monkeypatch: pytest.MonkeyPatch, usual: str, short: bool) -> None:
    monkeypatch.setattr("tempfile.tempdir", usual)
    assert ssh._short_folder() == (usual if short else "/tmp")


def remote_side(home: Path, sent: bytes, **asked: object) -> subprocess.Popen[bytes]:
    """Start over_ssh.py as on a device, without ssh, with a request and data on its input."""
    command = [sys.executable, *shlex.split(ssh.BOOT)]
    environment = {**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "7"}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert process.stdin
    program = (shipped("profilers") / "over_ssh.py").read_text(encoding="utf-8")
    whole = {"id": "abc", "files": {}, "run": [], "remove": False, **asked}
    process.stdin.write(f"{program!a}\n{json.dumps(whole)}\n".encode() + sent)
    process.stdin.flush()
    return process


def answer(process: subprocess.Popen[bytes]) -> list[str]:
    assert process.stdout
    while not (line := process.stdout.readline()).startswith(ssh.ANSWER):
        assert line
    return json.loads(line[len(ssh.ANSWER) :])


def test_an_interrupted_upload_resumes(tmp_path: Path) -> None:
    from hashlib import sha256

    content = {f"job/{name}": os.urandom(3000) for name in "abc"}
    files = {name: [len(value), sha256(value).hexdigest()] for name, value in content.items()}
    first = remote_side(tmp_path, content["job/a"] + content["job/b"][:1000], files=files)
    assert answer(first) == ["job/a", "job/b", "job/c"]
    first.communicate()
    assert first.returncode == 1
    second = remote_side(tmp_path, content["job/b"] + content["job/c"], files=files)
    assert answer(second) == ["job/b", "job/c"]
    second.communicate()
    assert second.returncode == 0
    for name, value in content.items():
        assert (tmp_path / ".cache/hwnas/abc" / name).read_bytes() == value
    remote_side(tmp_path, b"", remove=True).communicate()
    assert not list(tmp_path.glob(".cache/hwnas*"))


def test_the_profiler_of_an_earlier_connection_is_ended(tmp_path: Path) -> None:
    """Only the one in the same folder is ended, and only if it runs: the number in a stale file is ignored."""
    program = "import os, time; print(os.environ.get('OMP_NUM_THREADS')); print('runs', flush=True); time.sleep(60)"
    first, other = (remote_side(tmp_path, b"", run=["-c", program], id=name) for name in ("abc", "def"))
    for process in (first, other):
        answer(process)
        assert process.stdout
        assert process.stdout.readline() == b"None\n"
        assert process.stdout.readline() == b"runs\n"
    remote_side(tmp_path, b"").communicate()
    assert first.wait(10) == -signal.SIGKILL
    assert other.poll() is None
    (tmp_path / ".cache/hwnas/abc/lock").write_text(str(other.pid))
    assert remote_side(tmp_path, b"").wait(10) == 0
    assert other.poll() is None
    other.communicate()  # its connection ends, and so does it
    assert other.returncode == -signal.SIGKILL


def test_exit_codes_are_passed_on_and_differ_from_those_of_ssh(tmp_path: Path) -> None:
    for code, seen in ((0, 0), (3, 3), (255, 254)):
        process = remote_side(tmp_path, b"", run=["-c", f"import os; os._exit({code})"])
        answer(process)
        assert process.wait(10) == seen
    process = remote_side(tmp_path, b"", run=["-c", "import os; os.kill(os.getpid(), 15)"])
    answer(process)
    assert process.wait(10) == 128 + 15
