"""Devices reached over ssh: the profiler and the models go there, what it prints comes back as it is printed.

OpenSSH's own client makes the connection, as the user's configuration says (or the file that HWNAS_SSH_CONFIG names),
and shares it among all jobs. The command it runs there is a constant behind the interpreter's name; what to do and
every file name travel as data, on the standard input of ``profilers/over_ssh.py``.
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
from hwnas.profiling.session import ConnectionDroppedError, Lines, profiler_failed
from hwnas.runtimes.device_spec import HOST, PYTHON, DeviceSpec

ALIVE_S = 5  # how often to ask a silent device whether it is there; three times without an answer it is not
ANSWER = b"hwnas over ssh: "  # begins the one line that is not the profiler's
ANSWER_S = 60  # how long a device may take to make or remove a folder
# Reads the program from the first line of its input. Quoted so that every shell passes it on as it is.
BOOT = '-I -c "import sys; exec(eval(sys.stdin.buffer.readline()))"'


@contextmanager
def remote_lines(spec: DeviceSpec, folder: Path) -> Iterator[Lines]:
    """The way to ``spec.host`` for the jobs in ``folder``; nothing is left there when the block ends.

    Raises HwnasError at once when the device cannot be reached, and names what is left there when it can't any more.
    """
    if not re.fullmatch(HOST, spec.host) or not re.fullmatch(PYTHON, spec.python):
        raise HwnasError(f"{spec.text!r} is not a device that can be reached over ssh")
    with tempfile.TemporaryDirectory(prefix="hwnas-", dir=_short_folder()) as private:
        remote = Remote(spec, folder, Path(private))
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
    """Where a socket's path stays below 104 bytes (ssh itself adds 17) and holds nothing that ssh would expand."""
    usual = tempfile.gettempdir()
    return usual if re.fullmatch(r"[\w/.-]{1,60}", usual, re.ASCII) else "/tmp"


@dataclass
class Remote:
    """One device and the folder ``~/.cache/hwnas/ID`` there; ``private`` holds the connection's socket here."""

    spec: DeviceSpec
    folder: Path
    private: Path
    reached: bool = field(default=False, init=False)

    @property
    def id(self) -> str:
        """The same when a killed run goes on, another for any other job: it finds its files and disturbs nobody's."""
        return sha256_of([self.spec.text, str(self.folder.resolve()), platform.node()])[:16]

    @property
    def destination(self) -> list[str]:
        """What ssh needs to find the host; nothing in it can be taken for an option."""
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
            # What a configuration may ask for, and would be in the way here.
            "ClearAllForwardings": "yes",
            "RemoteCommand": "none",
        }
        return ["ssh", "-T", "-a", "-x", *(f"-o{name}={value}" for name, value in options.items())]

    def reach(self) -> None:
        """Connect for the first time and make the folder there."""
        list(self._talk({}))
        self.reached = True

    def lines(self, job_file: Path) -> Iterator[str]:
        """Send what the device lacks, run the profiler there, yield its lines.

        Raises ConnectionDroppedError when the connection broke, HwnasError when the profiler failed.
        """
        program = self.spec.runtime.profiler
        return self._talk(files_of(self.spec, job_file), run=[f"profilers/{program}", f"job/{job_file.name}"])

    def leave(self) -> str:
        """Remove the folder there and close the connection. Returns what is left there, in words."""
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
        """Have over_ssh.py there take in files, run a program, or remove its folder; what the program prints."""
        sizes = {name: [path.stat().st_size, sha256_of_file(path)] for name, path in files.items()}
        asked = {"id": self.id, "files": sizes, "run": run, "remove": remove}
        with tempfile.TemporaryFile() as stderr:
            process = _start([*self.ssh, *self.destination, f"{self.spec.python} {BOOT}"], stderr)
            assert process.stdin
            assert process.stdout
            impatience = threading.Timer(ANSWER_S, process.kill)
            try:
                if not run:
                    impatience.start()
                answered = _send(process.stdin, process.stdout, asked, files)
                for line in process.stdout:
                    if line.endswith(b"\n"):  # not what a cut has torn
                        yield line.decode("utf-8", "replace").rstrip("\r\n")
                process.wait()
            finally:
                impatience.cancel()
                process.kill()
                process.wait()
                process.stdout.close()
                with suppress(BrokenPipeError):
                    process.stdin.close()
            stderr.seek(0)
            self._judge(process.returncode, stderr.read().decode("utf-8", "replace"), answered, bool(run))

    def _judge(self, code: int, complaints: str, answered: bool, running: bool) -> None:
        """Raise what the end of ssh means: it exits with 255 for a failure of its own, else as the program there."""
        if code == 0 and answered:
            return
        host = self.spec.host
        last = next((line.strip() for line in reversed(complaints.splitlines()) if line.strip()), "")
        if code == 255 or code < 0:
            if self.reached:
                why = f": {last}" if last and not answered else ""  # later on it is the profiler that complains
                raise ConnectionDroppedError(
                    f"the connection to {host} dropped{why}", "the same command goes on from here"
                )
            by_hand = shlex.join(["ssh", *(word for word in self.destination if word != "--"), "true"])
            fix = f"`{by_hand}` must work without a question (a known host, a key of yours there)"
            raise HwnasError(f"cannot connect to {host}: {last or 'no answer'}", fix)
        if answered and running:
            raise profiler_failed(self.spec, code, complaints)
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


def _send(stdin: IO[bytes], stdout: IO[bytes], asked: Mapping[str, object], files: Mapping[str, Path]) -> bool:
    """Hand over the program, what it is asked and the files it misses. Returns whether it answered."""
    program = (shipped("profilers") / "over_ssh.py").read_text(encoding="utf-8")
    with suppress(BrokenPipeError):  # ssh has ended, and will say why
        stdin.write(f"{program!a}\n{json.dumps(asked)}\n".encode())
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
    """What a job needs on the device: path there -> file here. A model is all files of its stem."""
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
