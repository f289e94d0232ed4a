#!/usr/bin/env python3
"""Times ONNX models with ONNX Runtime. Runs on the device; needs Python and onnxruntime, nothing else.

    python onnxruntime_cpu.py job.json > times.jsonl

The job (JSON) lists model files and the order in which to visit them; a line of JSON comes back for every visit, so
that a killed run goes on from where it stopped. Times are what they are: which visits count and what
they mean is the host's affair. README.md beside this file describes the protocol.
"""

import json
import os
import sys
import time

import numpy
import onnxruntime


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
        given.name: random.standard_normal([job["batch"], *given.shape[1:]], dtype=numpy.float32)
        for given in session.get_inputs()
    }
    return lambda: session.run(None, feeds)


def visit(run, job):
    for _ in range(job["warmup_runs"]):
        run()
    times = []
    spent = 0
    while len(times) < job["min_runs"] or (spent < job["visit_ms"] and len(times) < job["max_runs"]):
        start = time.perf_counter_ns()
        run()
        times.append((time.perf_counter_ns() - start) / 1e6)
        spent += times[-1]
    return times


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    if job["protocol"] != 1:
        sys.exit("this profiler speaks protocol 1, the job protocol {}".format(job["protocol"]))
    if job.get("affinity") and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job["affinity"])
    emit(
        {
            "event": "start",
            "runtime": "onnxruntime",
            "version": onnxruntime.__version__,
            "provider": "CPUExecutionProvider",
        }
    )
    runs = {}
    for number in range(job["first_visit"], job["stop_visit"]):
        name = job["visits"][number]
        if name not in runs:
            runs[name] = load(os.path.join(os.path.dirname(sys.argv[1]), job["models"][name]), job)
        times = sorted(visit(runs[name], job))
        emit(
            {
                "event": "visit",
                "visit": number,
                "model": name,
                "runs": len(times),
                "min_ms": times[0],
                "median_ms": times[len(times) // 2],
            }
        )
    emit({"event": "end"})


def emit(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
