"""The wheel without extras: profile, search and verify in an environment that has only what the wheel requires."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from support.bare_environment import build_wheel, make_environment
from support.noise import until_quiet

EXTRAS = (
    "matplotlib",
    "pyarrow",
    "vl_convert",
    "cryptography",
    "aiohttp",
    "openvino",
    "ncnn",
    "ai_edge_litert",
    "pytest",
)
FOUND = "from importlib.util import find_spec; print([name for name in {} if find_spec(name)])"
# Reads the arguments of a command from a line, does it in a fork and prints the exit code: torch is imported once.
SERVER = """
import json, os, sys
import hwnas.profiling.profile, hwnas.runs.search, torch._dynamo
from hwnas.cli import main
for line in sys.stdin:
    if os.fork() == 0:
        with open("printed.txt", "w") as file:
            os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
        sys.argv = ["hwnas", *json.loads(line)]
        main()
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.mark.alone
@pytest.mark.end_to_end
def test_the_bare_wheel_profiles_searches_and_verifies(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path / "dist")
    names = zipfile.ZipFile(wheel).namelist()
    for folder in ("profilers", "latency_tables", "configs"):
        assert any(name.startswith(f"hwnas/_shipped/{folder}/") for name in names), folder
    python = make_environment(tmp_path / "environment", wheel)
    work = tmp_path / "work"
    work.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        line = [str(python), *map(str, arguments)]
        return subprocess.run(line, cwd=work, env=environment, capture_output=True, text=True, check=False)

    assert run("-c", FOUND.format(("torch", *EXTRAS))).stdout == "['torch']\n"
    assert str(tmp_path / "environment") in run("-c", "import hwnas; print(hwnas.__file__)").stdout
    shown = run("-m", "hwnas", "space", "show", "--space", "darts")
    assert "darts" in shown.stdout, shown.stderr
    with subprocess.Popen(
        [python, "-c", SERVER], cwd=work, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        use_everything(work, server)


def use_everything(work: Path, server: subprocess.Popen[str]) -> None:
    """Run one command of each kind in the folder ``work``."""
    assert server.stdin
    assert server.stdout

    def hwnas(*arguments: object, codes: tuple[int, ...] = (0,)) -> str:
        print(json.dumps([str(argument) for argument in arguments]), file=server.stdin, flush=True)
        code, printed = int(server.stdout.readline()), (work / "printed.txt").read_text()
        assert code in codes, printed
        return printed

    sizes = ("--channels", 4, "--cells", 1)
    few = ("--rounds", 4, "--fit-networks", 3, "--report-networks", 3)
    profiled = ("profile", "--accept-noise", *sizes, "--input", "3x16x16", *few, "--out", "t.json")
    until_quiet(lambda: hwnas(*profiled, codes=(0, 2)), str)
    short = ("--data", "digits?size=16", "--epochs", 1, "--child-epochs", 1)
    output = hwnas("search", "--table", "t.json", *sizes, *short, "--out", "run")
    assert output.count("pip install 'hwnas[report]'") == 1, output
    assert (work / "run/moderate/network.onnx").exists()
    # 1: over the budget on this machine; 2: the machine is noisy
    assert "measured" in until_quiet(lambda: hwnas("verify", "run", codes=(0, 1, 2)), str)
    hwnas("table", "push", "t.json", "shelf")
    assert "t: pushed" in hwnas("table", "push", "t.json", "shelf2")
    assert "hwnas[report]" in hwnas("report", "run", codes=(2,))
    assert "hwnas[share]" in hwnas("table", "keygen", "key.pem", codes=(2,))
