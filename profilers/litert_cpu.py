#!/usr/bin/env python3
"""Time LiteRT models on the CPU, with XNNPACK. Runs on the device; needs Python, ai-edge-litert, and runner.py in its
folder.

    python litert_cpu.py job.json > times.jsonl
"""

from importlib.metadata import version

import numpy
import runner
from ai_edge_litert.interpreter import Interpreter


def start(job):
    return {"runtime": "litert", "version": version("ai-edge-litert"), "provider": "XNNPACK", "options": {}}


def load(path, job):
    interpreter = Interpreter(path, num_threads=job["threads"])
    for given in interpreter.get_input_details():
        if given["shape"][0] != job["batch"]:
            interpreter.resize_tensor_input(given["index"], [job["batch"], *given["shape"][1:]])
    interpreter.allocate_tensors()
    random = numpy.random.default_rng(0)
    for given in interpreter.get_input_details():
        values = random.standard_normal(given["shape"], dtype=numpy.float32)
        if given["dtype"] is numpy.int8:
            values = random.integers(-128, 128, given["shape"], dtype=numpy.int8)
        interpreter.set_tensor(given["index"], values)
    return interpreter.invoke


if __name__ == "__main__":
    runner.serve(start, load)
