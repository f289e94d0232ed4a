#!/usr/bin/env python3
"""Times exported torch programs (.pt2) op by op, on the CPU or a CUDA device. Needs torch and visits.py beside it.

    python torch_eager.py job.json > times.jsonl

On CUDA the times come from events around each run, so they are the device's own; the host waits for them once a visit.
"""

import sys

import torch
import visits


def start(job):
    torch.set_grad_enabled(False)
    torch.set_num_threads(job["threads"])
    said = {"runtime": "torch", "version": torch.__version__, "provider": "cpu"}
    if not job["hardware"].startswith("cuda"):
        return said
    number = int(job["hardware"].split(":")[1])
    if not torch.cuda.is_available() or number >= torch.cuda.device_count():
        sys.exit(f"there is no CUDA device {number} for torch {torch.__version__} here")
    torch.cuda.set_device(number)
    properties = torch.cuda.get_device_properties(number)
    device = {"name": properties.name, "model": properties.name, "kind": "gpu"}
    device.update({"cores": properties.multi_processor_count, "memory_bytes": properties.total_memory})
    return dict(said, provider=f"cuda {torch.version.cuda}", device=device)


def load(path, job):
    """A function that runs the model once, on inputs it keeps."""
    program = torch.export.load(path)
    device = torch.device(job["hardware"])
    module = program.module().to(device)
    generator = torch.Generator().manual_seed(0)
    names = set(program.graph_signature.user_inputs)
    inputs = [
        torch.randn([job["batch"], *node.meta["val"].shape[1:]], generator=generator).to(device)
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names
    ]
    return lambda: module(*inputs)


def visit(run, job, warmup_ms):
    if not job["hardware"].startswith("cuda"):
        return visits.timed_visit(run, job, warmup_ms)

    def run_and_wait():
        run()
        torch.cuda.synchronize()

    estimate_ms = visits.warm_up(run_and_wait, warmup_ms)
    blocks = int(job["visit_ms"] / max(estimate_ms, 1e-3)) + 1
    blocks = max(job["min_blocks"], min(job["max_blocks"], blocks))
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(blocks)]
    for before, after in events:
        before.record()
        run()
        after.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in events]


if __name__ == "__main__":
    visits.serve(start, load, visit)
