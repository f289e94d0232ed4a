#!/usr/bin/env python3
"""Time ONNX models with OpenVINO on the CPU. Runs on the device; needs Python, openvino, and runner.py in its folder.

    python openvino_cpu.py job.json > times.jsonl

Times are OpenVINO's own, taken around the inference alone: returning a dictionary of arrays to Python takes some
microseconds an output, which matters for small models with several. Compiled models are kept in a folder beside the
models: each process loads all of them again, which takes a quarter of the time of compiling them.
"""

import os

import numpy
import openvino
import runner

CORE = openvino.Core()
# The process is pinned to its processors already, and the other runtimes compute in single precision too.
OPTIONS = {
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": 1,
    "ENABLE_CPU_PINNING": False,
    "INFERENCE_PRECISION_HINT": "f32",
}


def start(job):
    options = {"precision": "f32", "hint": "latency", "streams": 1, "pinning": False}
    version = openvino.__version__.split("-")[0]
    return {"runtime": "openvino", "version": version, "provider": "CPU", "options": options}


def load(path, job):
    """Return a function that runs the model once, on fixed inputs, and returns the milliseconds."""
    options = dict(
        OPTIONS, INFERENCE_NUM_THREADS=job["threads"], CACHE_DIR=os.path.join(os.path.dirname(path), "compiled")
    )
    compiled = CORE.compile_model(path, "CPU", options)
    if any(port.get_partial_shape()[0] != job["batch"] for port in compiled.inputs):
        model = CORE.read_model(path)
        model.reshape({port: [job["batch"], *list(port.get_partial_shape())[1:]] for port in model.inputs})
        compiled = CORE.compile_model(model, "CPU", options)
    request = compiled.create_infer_request()
    random = numpy.random.default_rng(0)
    for tensor in request.input_tensors:
        if tensor.shape[1:]:
            tensor.data[:] = random.standard_normal(tensor.shape, dtype=numpy.float32)
        else:  # numbers of words
            tensor.data[:] = 0

    def infer():
        request.infer(share_outputs=True)
        return request.latency

    return infer


def values(infer, job, warmup_ms):
    runner.warm_up(infer, warmup_ms)
    times = []
    while len(times) < job["min_blocks"] or (sum(times) < job["visit_ms"] and len(times) < job["max_blocks"]):
        times.append(infer())
    return times


if __name__ == "__main__":
    runner.serve(start, load, values)
