#!/usr/bin/env python3
"""Times ONNX models with OpenVINO on the CPU. Runs on the device; needs Python, openvino and visits.py beside it.

    python openvino_cpu.py job.json > times.jsonl

Times are OpenVINO's own, taken around the inference alone: Python is handed a dictionary of arrays after each run, at
some microseconds an output, which would weigh on small models that have several.
"""

import numpy
import openvino
import visits

CORE = openvino.Core()
# The process is kept to its processors already, and single precision is what the other runtimes compute in.
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
    """A function that runs the model once, on inputs it keeps, and gives the milliseconds."""
    model = CORE.read_model(path)
    model.reshape({port: [job["batch"], *list(port.get_partial_shape())[1:]] for port in model.inputs})
    compiled = CORE.compile_model(model, "CPU", dict(OPTIONS, INFERENCE_NUM_THREADS=job["threads"]))
    request = compiled.create_infer_request()
    random = numpy.random.default_rng(0)
    for tensor in request.input_tensors:
        tensor.data[:] = random.standard_normal(tensor.shape, dtype=numpy.float32)

    def run():
        request.infer(share_outputs=True)
        return request.latency

    return run


def visit(run, job, warmup_ms):
    visits.warm_up(run, warmup_ms)
    times = []
    while len(times) < job["min_blocks"] or (sum(times) < job["visit_ms"] and len(times) < job["max_blocks"]):
        times.append(run())
    return times


if __name__ == "__main__":
    visits.serve(start, load, visit)
