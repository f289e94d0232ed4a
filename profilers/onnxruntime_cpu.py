#!/usr/bin/env python3
"""Time ONNX models with ONNX Runtime. Runs on the device; needs Python, onnxruntime, and runner.py in its folder.

python onnxruntime_cpu.py job.json > times.jsonl
"""

import numpy
import onnxruntime
import runner


def start(job):
    return {
        "runtime": "onnxruntime",
        "version": onnxruntime.__version__,
        "provider": "CPUExecutionProvider",
        "options": {"spinning": False},
    }


def load(path, job):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    random = numpy.random.default_rng(0)
    feeds = {
        given.name: numpy.zeros([job["batch"], *given.shape[1:]], dtype=numpy.int64)
        if given.type == "tensor(int64)"  # numbers of words
        else random.standard_normal([job["batch"], *given.shape[1:]], dtype=numpy.float32)
        for given in session.get_inputs()
    }
    if len(feeds) == len(session.get_outputs()) == 1:
        return lambda: session.run(None, feeds)
    # Passing a tensor takes Python several microseconds, which the slope over copies would include.
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_cpu_input(name, value)
    for given in session.get_outputs():
        shape = [job["batch"], *given.shape[1:]]
        binding.bind_ortvalue_output(
            given.name, onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, numpy.float32, "cpu")
        )
    return lambda: session.run_with_iobinding(binding)


if __name__ == "__main__":
    runner.serve(start, load)
