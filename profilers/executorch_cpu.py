#!/usr/bin/env python3
"""Time ExecuTorch programs on the CPU, with XNNPACK. Runs on the device; needs Python, executorch with torch, and
runner.py in its folder.

    python executorch_cpu.py job.json > times.jsonl
"""

import sys
from importlib.metadata import version

import runner
import torch
from executorch.extension.pybindings import portable_lib
from executorch.runtime import Runtime


def start(job):
    threads = getattr(portable_lib, "_unsafe_reset_threadpool", None)
    if not threads:
        sys.exit("this executorch cannot set its number of threads; fix: pip install --upgrade executorch")
    threads(job["threads"])
    return {"runtime": "executorch", "version": version("executorch"), "provider": "XNNPACK", "options": {}}


def load(path, job):
    program = Runtime.get().load_program(path)
    method = program.load_method("forward")
    torch.manual_seed(0)
    sizes = [method.metadata.input_tensor_meta(n).sizes() for n in range(method.metadata.num_inputs())]
    inputs = [torch.randn(tuple(size)) for size in sizes]

    def infer():
        method.execute(inputs)

    infer.program = program  # the method reads it
    return infer


if __name__ == "__main__":
    runner.serve(start, load)
