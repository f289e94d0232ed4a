"""``python serve.py SOCKET``: hwnas, already imported; it forks for every command that the scripts here hand over.

Importing torch and the rest takes five seconds, and the documentation has more than a hundred commands.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import runpy
import socket
import sys
import traceback
from pathlib import Path

import pytest
import torch

import hwnas
from hwnas.jobs import choose
from hwnas.jobs.in_process import InProcess

PYTHON = str(Path(__file__).with_name("python"))
sys.path.append(str(Path(__file__).parents[3]))
from support.no_finalists import train_none_by_default  # noqa: E402
from support.short_timings import shorten_timings  # noqa: E402

del sys.path[-1]  # pages do not see the tests' modules


def import_all() -> None:
    """Import all modules of hwnas, and those of other packages that they import in functions."""
    for module in pkgutil.walk_packages(hwnas.__path__, "hwnas."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("matplotlib.pyplot", "onnxruntime", "scipy.optimize", "sklearn.datasets", "torch._dynamo", "yaml"):
        importlib.import_module(name)


def start(program: str, arguments: list[str]) -> None:
    """Do what the command ``program``, which is hwnas, torchrun or python, does with these arguments."""
    sys.argv = [program, *arguments]
    if program == "hwnas":
        runpy.run_module("hwnas", run_name="__main__")
    elif program == "torchrun":
        os.environ["PYTHON_EXEC"] = PYTHON  # what torchrun starts for each rank
        runpy.run_module("torch.distributed.run", run_name="__main__")
    else:
        start_python([argument for argument in arguments if argument != "-u"])


def start_python(arguments: list[str]) -> None:
    """Run a module (-m), code (-c), standard input (-) or a file, with the arguments that follow."""
    first, *others = arguments
    sys.path[0] = os.getcwd() if first in ("-m", "-c", "-") else str(Path(first).absolute().parent)
    sys.argv = others if first == "-m" else arguments
    if first == "-m":
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
    elif first in ("-c", "-"):
        code = others[0] if first == "-c" else sys.stdin.read()
        exec(compile(code, "<stdin>", "exec"), {"__name__": "__main__"})
    else:
        runpy.run_path(first, run_name="__main__")


def run(connection: socket.socket) -> None:
    """Do one command, in the folder, with the variables and on the files of who asks; answer with its exit code."""
    gc.freeze()  # a collection of what was imported would copy its memory
    message, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    asked = json.loads(message)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["variables"])
    if "OMP_NUM_THREADS" in os.environ:  # which torch read when it was imported
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if pieces := os.environ.get("SHORT_TIMINGS"):
        shorten_timings(pytest.MonkeyPatch(), Path(pieces))
    for number, file in enumerate(files):
        os.dup2(file, number)
    code = 1
    try:
        start(asked["program"], asked["arguments"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(bytes([code]))
        os._exit(code)


if __name__ == "__main__":
    import_all()
    train_none_by_default(pytest.MonkeyPatch())
    choose.LocalExecutor = lambda workers, threads: InProcess(threads)  # type: ignore[assignment,misc,return-value]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(sys.argv[1])
        listener.listen()
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                run(connection)
            connection.close()
            while True:  # those that have ended
                try:
                    if os.waitpid(-1, os.WNOHANG)[0] == 0:
                        break
                except ChildProcessError:
                    break
