"""Run a module with torch's GPU replaced by the simulated device of the tests, to rehearse what runs on a GPU.

python -m benchmarks.gpu.pretended hwnas search …
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
    from support.simulated import simulated_gpu

    module, sys.argv = sys.argv[1], sys.argv[1:]
    with simulated_gpu():
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
