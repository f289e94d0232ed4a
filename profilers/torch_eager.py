#!/usr/bin/env python3
"""Time models layer by layer with torch, on the CPU or a CUDA device.

Needs torch, and runner.py and nvidia_smi.py in the same folder.

    python torch_eager.py job.json > times.jsonl

On CUDA the times are the device's own, from events around each inference; the host waits for them once a run. Float32
is multiplied exactly, not as tf32, which is torch's default for convolutions.
"""

import operator
import pickle
import sys

import nvidia_smi
import runner
import torch

INPUTS = {}  # on CUDA, by shapes: models of equal inputs share them, since a device holds all models at once


def start(job):
    torch.set_grad_enabled(False)
    torch.set_num_threads(job["threads"])
    described = {"runtime": "torch", "version": torch.__version__, "provider": "cpu"}
    if not job["hardware"].startswith("cuda"):
        return described
    number = int(job["hardware"].split(":")[1])
    if not torch.cuda.is_available() or number >= torch.cuda.device_count():
        sys.exit(f"there is no CUDA device {number} for torch {torch.__version__} here")
    torch.cuda.set_device(number)
    multiply_exactly()
    properties = torch.cuda.get_device_properties(number)
    device = {"name": properties.name, "model": properties.name, "kind": "gpu"}
    device.update({"cores": properties.multi_processor_count, "memory_bytes": properties.total_memory})
    options = {"float32": "ieee"}
    return dict(described, provider=f"cuda {torch.version.cuda}", device=device, options=options)


def multiply_exactly():
    """Multiply float32 in full precision. All versions of torch know these settings; some warn of newer ones."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def finish(job):
    """Return the state of a CUDA device right after the runs, when its clocks are still those of the work."""
    if not job["hardware"].startswith("cuda"):
        return {}
    number = int(job["hardware"].split(":")[1])
    # nvidia-smi numbers all devices of the machine, torch those that it may use.
    uuid = getattr(torch.cuda.get_device_properties(number), "uuid", None)
    return {"gpu": dict(nvidia_smi.read(number if uuid is None else f"GPU-{uuid}"), number=number)}


def load(path, job):
    """Return a function that runs the model once, on fixed inputs."""
    device = torch.device(job["hardware"])
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        sys.exit(f"{path} is not a model for this profiler: " + " ".join(str(error).split())[:200])
    module = as_layers(content, device).eval()
    inputs = inputs_of([[job["batch"], *shape[1:]] for shape in content["inputs"].values()], device)
    return lambda: module(*inputs)


def inputs_of(shapes, device):
    """Return fixed random inputs of these shapes; zeros for a batch of numbers of words, which has no other axis."""
    key = str(shapes)
    if device.type == "cuda" and key in INPUTS:
        return INPUTS[key]
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(shape, generator=generator).to(device)
        if shape[1:]
        else torch.zeros(shape, dtype=torch.int64, device=device)
        for shape in shapes
    ]
    if device.type == "cuda":
        INPUTS[key] = inputs
    return inputs


def as_layers(content, device):
    """Return the model as a module that calls torch's layers, as a module written by hand does.

    The layers are flat, so that the Python code of containers is not timed.
    """
    root, graph, tensors = torch.nn.Module(), torch.fx.Graph(), content["tensors"]
    made = {name: graph.placeholder(name) for name in content["inputs"]}

    def value(argument):
        if isinstance(argument, dict) and "node" in argument:
            return made[argument["node"]]
        if isinstance(argument, dict):
            name = "tensor_" + argument["tensor"]
            root.register_buffer(name, tensors[argument["tensor"]])
            return graph.get_attr(name)
        if isinstance(argument, torch.device):
            return device
        return [value(item) for item in argument] if isinstance(argument, list) else argument

    for name, target, arguments, options in content["nodes"]:
        if target in LAYERS:
            first, *others = arguments
            others = [tensors[x["tensor"]] if isinstance(x, dict) else x for x in others]
            root.add_module(name, LAYERS[target](*others, **options))
            made[name] = graph.call_module(name, (value(first),))
        else:
            function = FUNCTIONS.get(target) or operation(target)
            made[name] = graph.call_function(
                function, tuple(map(value, arguments)), {key: value(x) for key, x in options.items()}
            )
    outputs = [made[name] for name in content["outputs"]]
    graph.output(outputs[0] if len(outputs) == 1 else tuple(outputs))
    return torch.fx.GraphModule(root, graph)


def operation(target):
    """Return a function of ``torch.ops`` by its name, such as ``aten.mean.dim``."""
    found = torch.ops
    for name in target.split("."):
        found = getattr(found, name)
    return found


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


LAYERS = {
    "aten.conv2d.default": conv,
    "aten.batch_norm.default": batch_norm,
    "aten.linear.default": linear,
    "aten.relu.default": torch.nn.ReLU,
    "aten.relu_.default": torch.nn.ReLU,
    "aten.avg_pool2d.default": torch.nn.AvgPool2d,
    "aten.max_pool2d.default": torch.nn.MaxPool2d,
}
FUNCTIONS = {"aten.add.Tensor": operator.add, "aten.cat.default": torch.cat}


def values(infer, job, warmup_ms):
    if not job["hardware"].startswith("cuda"):
        return runner.timed_values(infer, job, warmup_ms)

    def infer_and_wait():
        infer()
        torch.cuda.synchronize()

    estimate_ms = runner.warm_up(infer_and_wait, warmup_ms)
    blocks = int(job["visit_ms"] / max(estimate_ms, 1e-3)) + 1
    blocks = max(job["min_blocks"], min(job["max_blocks"], blocks))
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(blocks)]
    for before, after in events:
        before.record()
        infer()
        after.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in events]


def guarded(function):
    """Return a function that ends with one line where a CUDA device has too little memory."""

    def call(first, job, *rest):
        try:
            return function(first, job, *rest)
        except torch.cuda.OutOfMemoryError:
            sys.exit("out of memory: {} has too little for batch={}".format(job["hardware"], job["batch"]))

    return call


if __name__ == "__main__":
    runner.serve(start, guarded(load), guarded(values), finish=finish)
