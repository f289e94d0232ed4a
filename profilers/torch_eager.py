#!/usr/bin/env python3
"""Times exported torch programs (.pt2) op by op, on the CPU or a CUDA device. Runs on the device; needs torch alone.

    python torch_eager.py job.json > times.jsonl

Speaks the same protocol as onnxruntime_cpu.py (README.md beside this file). On CUDA the times come from events around
each run, so they are the device's own; the host waits for them once a visit.
"""

import json
import os
import sys
import time

import torch


def load(path, job):
    """A function that runs the model once, on inputs it keeps."""
    program = torch.export.load(path)
    device = torch.device(job["device"])
    module = program.module().to(device)
    generator = torch.Generator().manual_seed(0)
    names = set(program.graph_signature.user_inputs)
    inputs = [
        torch.randn([job["batch"], *node.meta["val"].shape[1:]], generator=generator).to(device)
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names
    ]
    return lambda: module(*inputs)


def cpu_visit(run, job):
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


def cuda_visit(run, job):
    for _ in range(job["warmup_runs"]):
        run()
    torch.cuda.synchronize()
    start = time.perf_counter_ns()
    run()
    torch.cuda.synchronize()
    estimate = max((time.perf_counter_ns() - start) / 1e6, 1e-3)
    runs = max(job["min_runs"], min(job["max_runs"], int(job["visit_ms"] / estimate) + 1))
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(runs)]
    for before, after in events:
        before.record()
        run()
        after.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in events]


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    if job["protocol"] != 1:
        sys.exit("this profiler speaks protocol 1, the job protocol {}".format(job["protocol"]))
    on_cuda = job["device"].startswith("cuda")
    if on_cuda and not torch.cuda.is_available():
        sys.exit(f"no CUDA device is available to torch {torch.__version__} here")
    if job.get("affinity") and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job["affinity"])
    torch.set_num_threads(job["threads"])
    visit = cuda_visit if on_cuda else cpu_visit
    if on_cuda:
        torch.cuda.set_device(job["device"])
    emit(
        {
            "event": "start",
            "runtime": "torch",
            "version": torch.__version__,
            "provider": torch.cuda.get_device_name() if on_cuda else "cpu",
        }
    )
    runs = {}
    with torch.inference_mode():
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
