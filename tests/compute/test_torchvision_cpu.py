"""torchvision is importable with every build of torch."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("load", [True, False])
def test_schemas_are_declared_only_where_torchvisions_operators_do_not_load(load: bool) -> None:
    """Declaring the schemas first ends the process, if the operators load."""
    script = f"""
import torch
from hwnas.compute import torchvision_cpu

def load_library(path):
    if not {load}:
        raise OSError(path)

torch.ops.load_library = load_library
torchvision_cpu.import_module = lambda module: module  # the real import would load them
assert torchvision_cpu.torchvision_datasets() == "torchvision.datasets"
print(hasattr(torch.ops.torchvision, "nms"), hasattr(torch.ops.torchvision, "qnms"))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == [str(not load)] * 2, done.stderr
