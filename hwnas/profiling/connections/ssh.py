"""Connections by ssh: the profiler and the models are sent to the device, its lines come back as they are printed.

OpenSSH's client makes the connection, with the user's configuration (or the file that HWNAS_SSH_CONFIG names), and
shares it among all jobs. The command that it runs there is the interpreter's name and a constant; the request and
all file names are data on the standard input of ``profilers/over_ssh.py``.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from hwnas.errors import HwnasError
from hwnas.files import sha256_of, sha256_of_file, shipped
from hwnas.profiling.connections.connection import Connection, ConnectionDroppedError, profiler_failed
from hwnas.runtimes.device_spec import HOST, PYTHON, DeviceSpec

ALIVE_S = 5  # the interval at which a silent device is probed; it is given up after three probes without an answer
ANSWER = b"hwnas over ssh: "  # the prefix of the one line that is not the profiler's
ANSWER_S = 60  # the time limit for creating or removing a folder
# Execute the first line of the input as a program. Quoted so that no shell changes it.
BOOT = '-I -c "import sys; exec(eval(sys.stdin.buffer.readline()))"'


@contextmanager
def ssh_connection(spec: DeviceSpec, folder: Path) -> Iterator[Connection]:
    """Connect to ``spec.host`` for the jobs in ``folder``, and remove all files there when the block ends.

    Raises HwnasError when the device cannot be reached. If it cannot be reached any more at the end, the error, or a
    line on standard error, names the folder that is left there.
    """
    if not re.fullmatch(HOST, spec.host) or not re.fullmatch(PYTHON, spec.python):
        raise HwnasError(f"{spec.text!r} is not a device that can be reached over ssh")
    with tempfile.TemporaryDirectory(prefix="hwnas-", dir=_short_folder()) as private:
        remote = SshDevice(spec, folder, Path(private))
        failure = None
        try:
            remote.reach()
            yield remote.lines
        except HwnasError as error:
            failure = error
            raise
        finally:
            left = remote.leave()
            if left and failure:
                raise HwnasError(f"{failure.problem} ({left})", failure.fix) from failure
            if left:
                print(f"hwnas: {left}", file=sys.stderr)


def _short_folder() -> str:
    """Return a folder where a socket's path stays below 104 bytes (ssh adds 17) and ssh expands nothing in it."""
    usual = tempfile.gettempdir()
    return usual if re.fullmatch(r"[\w/.-]{1,60}", usual, re.ASCII) else "/tmp"


@dataclass
class SshDevice:
    """One device and the folder ``~/.cache/hwnas/ID`` there; ``private`` holds the connection's socket here."""

    spec: DeviceSpec
    folder: Path
    private: Path
    reached: bool = field(default=False, init=False)

    @property
    def id(self) -> str:
        """The name of the folder there, the same when an interrupted job resumes, another for other jobs."""
        return sha256_of([self.spec.text, str(self.folder.resolve()), platform.node()])[:16]

    @property
    def destination(self) -> list[str]:
        """The arguments of ssh that name the host; none of them can be taken for an option."""
        found = re.fullmatch(r"(.*@)?(\[.*\]|[^:]*)(?::(\d+))?", self.spec.host)
        assert found
        user, name, port = found.groups()
        config = os.environ.get("HWNAS_SSH_CONFIG")
        return [
            *(["-F", config] if config else []),
            *(["-p", port] if port else []),
            "--",
            f"{user or ''}{name.strip('[]')}",
        ]

    @property
    def ssh(self) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "10",
            "ServerAliveInterval": str(ALIVE_S),
            "ServerAliveCountMax": "3",
            "ControlMaster": "auto",
            "ControlPath": str(self.private / "ssh"),
            "ControlPersist": "60",
            "LogLevel": "ERROR",
            # Settings that a configuration may have and that would interfere.
            "ClearAllForwardings": "yes",
            "RemoteCommand": "none",
        }
        return ["ssh", "-T", "-a", "-x", *(f"-o{name}={value}" for name, value in options.items())]

    def reach(self) -> None:
        """Connect for the first time and create the folder there."""
        list(self._talk({}))
        self.reached = True

    def lines(self, job_file: Path) -> Iterator[str]:
        """Send the files that the device lacks, run the profiler there, yield its lines.

        Raises ConnectionDroppedError when the connection broke, HwnasError when the profiler failed.
        """
        program = self.spec.runtime.profiler
        return self._talk(files_of(self.spec, job_file), run=[f"profilers/{program}", f"job/{job_file.name}"])

    def leave(self) -> str:
        """Remove the folder there and close the connection. Return a sentence about files that are left, or ''."""
        try:
            if self.reached:
                list(self._talk({}, remove=True))
        except HwnasError:
            return f"~/.cache/hwnas/{self.id} is left on {self.spec.host}"
        finally:
            with suppress(FileNotFoundError):  # ssh is not installed
                subprocess.run([*self.ssh, "-Oexit", *self.destination], capture_output=True, check=False)
        return ""

    def _talk(self, files: Mapping[str, Path], run: Sequence[str] = (), remove: bool = False) -> Iterator[str]:
        """Let over_ssh.py receive files, run a program or remove its folder; yield the lines of the program."""
        sizes = {name: [path.stat().st_size, sha256_of_file(path)] for name, path in files.items()}
        request = {"id": self.id, "files": sizes, "run": run, "remove": remove}
        with tempfile.TemporaryFile() as stderr:
            process = _start([*self.ssh, *self.destination, f"{self.spec.python} {BOOT}"], stderr)
            assert process.stdin
            assert process.stdout
            timeout = threading.Timer(ANSWER_S, process.kill)
            try:
                if not run:
                    timeout.start()
                answered = _send(process.stdin, process.stdout, request, files)
                for line in process.stdout:
                    if line.endswith(b"\n"):  # not a line that a broken connection cut off
                        yield line.decode("utf-8", "replace").rstrip("\r\n")
                process.wait()
            finally:
                timeout.cancel()
                process.kill()
                process.wait()
                process.stdout.close()
                with suppress(BrokenPipeError):
                    process.stdin.close()
            stderr.seek(0)
            self._check_exit(process.returncode, stderr.read().decode("utf-8", "replace"), answered, bool(run))

    def _check_exit(self, code: int, stderr: str, answered: bool, running: bool) -> None:
        """Raise the error of an exit code: 255 is a failure of ssh itself, any other is that of the program there."""
        if code == 0 and answered:
            return
        host = self.spec.host
        last = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "")
        if code == 255 or code < 0:
            if self.reached:
                why = f": {last}" if last and not answered else ""  # after the answer stderr is the profiler's
                raise ConnectionDroppedError(
                    f"the connection to {host} dropped{why}", "run the same command again to resume"
                )
            by_hand = shlex.join(["ssh", *(word for word in self.destination if word != "--"), "true"])
            fix = f"`{by_hand}` must work without a question (a known host, a key of yours there)"
            raise HwnasError(f"cannot connect to {host}: {last or 'no answer'}", fix)
        if answered and running:
            raise profiler_failed(self.spec, code, stderr)
        fix = "name an interpreter that is there with ?python=PATH" if code in (126, 127) else ""
        raise HwnasError(f"cannot run {self.spec.python} on {host}: {last or f'no answer, exit code {code}'}", fix)


def _start(command: list[str], stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start ssh in a session of its own: a Ctrl-C here must not end it before the folder there is removed."""
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True
        )
    except FileNotFoundError:
        raise HwnasError("ssh is not installed here", "install OpenSSH's client") from None


def _send(stdin: IO[bytes], stdout: IO[bytes], request: Mapping[str, object], files: Mapping[str, Path]) -> bool:
    """Send the program, the request and the files that are missing there. Return whether it answered."""
    program = (shipped("profilers") / "over_ssh.py").read_text(encoding="utf-8")
    with suppress(BrokenPipeError):  # ssh has ended; its exit code gives the reason
        stdin.write(f"{program!a}\n{json.dumps(request)}\n".encode())
        stdin.flush()
        for line in stdout:
            if line.startswith(ANSWER) and line.endswith(b"\n"):
                missing = json.loads(line[len(ANSWER) :])
                for name in sorted(files):
                    if name in missing:
                        stdin.write(files[name].read_bytes())
                stdin.flush()
                return True
    return False


def files_of(spec: DeviceSpec, job_file: Path) -> dict[str, Path]:
    """Return the files that a job needs on the device: path there -> file here. A model is all files of its stem."""
    there = {
        f"profilers/{file.name}": file
        for file in spec.runtime.program.parent.iterdir()
        if file.is_file() and file.suffix != ".md"
    }
    job = json.loads(job_file.read_text(encoding="utf-8"))
    stems = {Path(name).stem for name in job["models"].values()}
    for file in job_file.parent.iterdir():
        if file == job_file or (file.stem in stems and file.suffix not in (".json", ".jsonl") and file.is_file()):
            there[f"job/{file.name}"] = file
    return there
