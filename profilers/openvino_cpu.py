#!/usr/bin/env python3
"""Time ONNX models with OpenVINO on the CPU. Runs on the device; needs Python, openvino, and runner.py in its folder.

    python openvino_cpu.py job.json > times.jsonl

Times are OpenVINO's own, taken around the inference alone: returning a dictionary of arrays to Python takes some
microseconds an output, which matters for small models with several. Compiled models are kept in a folder beside the
models: each process loads all of them again, which takes a quarter of the time of compiling them. The first process
compiles them on all processors before it times any.
"""

import concurrent.futures
import functools
import multiprocessing
import os
import sys

import numpy
import openvino
import runner

CORE = openvino.Core()
PROCESSORS = runner.allowed()  # before this process is pinned to some of them
WORTH_A_PROCESS = 8  # models that take about as long to compile as another process to start
# The process is pinned to its processors already, and the other runtimes compute in single precision too.
OPTIONS = {
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": 1,
    "ENABLE_CPU_PINNING": False,
    "INFERENCE_PRECISION_HINT": "f32",
}


def start(job):
    compile_together(os.path.dirname(os.path.abspath(sys.argv[1])), job)
    options = {"precision": "f32", "hint": "latency", "streams": 1, "pinning": False}
    version = openvino.__version__.split("-")[0]
    return {"runtime": "openvino", "version": version, "provider": "CPU", "options": options}


def compile_together(folder, job):
    """Compile the models of a job in as many processes as there are processors, unless an earlier job has."""
    paths = [os.path.join(folder, file) for file in job["models"].values()]
    kept = os.path.join(folder, "compiled")
    known = len(os.listdir(kept)) if os.path.isdir(kept) else 0
    processes = min(len(PROCESSORS or ()), (len(paths) - known) // WORTH_A_PROCESS)
    if processes > 1:
        spawn = multiprocessing.get_context("spawn")  # a forked process would lack OpenVINO's threads
        with concurrent.futures.ProcessPoolExecutor(processes, spawn, os.sched_setaffinity, (0, PROCESSORS)) as pool:
            list(pool.map(functools.partial(compile_only, job=job), paths))


def compile_only(path, job):
    """Compile a model into the folder of compiled models: a compiled model cannot be returned to another process."""
    compile_model(path, job)


def compile_model(path, job):
    """Return the model for the job's threads and batch, from the folder of compiled models if it is there."""
    folder = os.path.join(os.path.dirname(path), "compiled")
    options = dict(OPTIONS, INFERENCE_NUM_THREADS=job["threads"], CACHE_DIR=folder)
    compiled = CORE.compile_model(path, "CPU", options)
    if any(port.get_partial_shape()[0] != job["batch"] for port in compiled.inputs):
        model = CORE.read_model(path)
        model.reshape({port: [job["batch"], *list(port.get_partial_shape())[1:]] for port in model.inputs})
        compiled = CORE.compile_model(model, "CPU", options)
    return compiled


def load(path, job):
    """Return a function that runs the model once, on fixed inputs, and returns the milliseconds."""
    request = compile_model(path, job).create_infer_request()
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
