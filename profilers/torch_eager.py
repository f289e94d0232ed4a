#!/usr/bin/env python3
"""Times exported torch programs (.pt2) op by op, on the CPU or a CUDA device. Needs torch and visits.py beside it.

    python torch_eager.py job.json > times.jsonl

On CUDA the times come from events around each run, so they are the device's own; the host waits for them once a visit.
"""

import operator
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
    module = as_layers(program).eval().to(device)
    generator = torch.Generator().manual_seed(0)
    names = set(program.graph_signature.user_inputs)
    inputs = [
        torch.randn([job["batch"], *node.meta["val"].shape[1:]], generator=generator).to(device)
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names
    ]
    return lambda: module(*inputs)


def as_layers(program):
    """The program as a module that calls torch's layers, as one written by hand does.

    What ``program.module()`` gives fetches every parameter through all modules above it, which takes longer than some
    operations do. The layers are flat: the Python of containers around them is not timed.
    """
    signature = program.graph_signature
    held = {**program.state_dict, **program.constants}
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names.update(signature.inputs_to_lifted_tensor_constants)
    root, graph, made = torch.nn.Module(), torch.fx.Graph(), {}
    tensors = {}

    def value(node):
        if node in tensors and node not in made:
            root.register_buffer(node.name, tensors[node])
            made[node] = graph.get_attr(node.name)
        return made[node]

    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            tensors[node] = held[names[node.name]].detach()
        elif node.op == "call_function" and node.target in LAYERS:
            first, *others = (tensors.get(x, x) if isinstance(x, torch.fx.Node) else x for x in node.args)
            root.add_module(node.name, LAYERS[node.target](*others, **node.kwargs))
            made[node] = graph.call_module(node.name, (value(first),))
        else:
            made[node] = graph.node_copy(node, value)
            made[node].target = FUNCTIONS.get(node.target, node.target)
    return torch.fx.GraphModule(root, graph)


def conv(weight, bias=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    sizes = (weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]))
    return filled(
        torch.nn.Conv2d(*sizes, tuple(stride), tuple(padding), tuple(dilation), groups, bias is not None), weight, bias
    )


def batch_norm(weight, bias, mean, variance, training, momentum, eps, cudnn=True):
    layer = filled(torch.nn.BatchNorm2d(len(mean), eps, affine=weight is not None), weight, bias)
    layer.running_mean, layer.running_var = mean, variance
    return layer


def linear(weight, bias=None):
    return filled(torch.nn.Linear(weight.shape[1], weight.shape[0], bias is not None), weight, bias)


def filled(layer, weight, bias):
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None:
            setattr(layer, name, torch.nn.Parameter(tensor, requires_grad=False))
    return layer


ATEN = torch.ops.aten
LAYERS = {
    ATEN.conv2d.default: conv,
    ATEN.batch_norm.default: batch_norm,
    ATEN.linear.default: linear,
    ATEN.relu.default: torch.nn.ReLU,
    ATEN.relu_.default: torch.nn.ReLU,
    ATEN.avg_pool2d.default: torch.nn.AvgPool2d,
    ATEN.max_pool2d.default: torch.nn.MaxPool2d,
}
FUNCTIONS = {ATEN.add.Tensor: operator.add, ATEN.cat.default: torch.cat}


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
