#!/usr/bin/env python3
"""Time ncnn models on the CPU. Runs on the device; needs Python, ncnn, numpy, and runner.py in its folder.

    python ncnn_cpu.py job.json > times.jsonl

A model is two files, NAME.ncnn.param, which has the sizes of its inputs, and NAME.ncnn.bin.
"""

import os
import sys

import ncnn
import numpy
import runner

HALF_PRECISION = ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage")


def start(job):
    options = {"precision": "f32", "winograd": True, "packing": True}
    return {"runtime": "ncnn", "version": ncnn.__version__, "provider": "CPU", "options": options}


def load(path, job):
    net = ncnn.Net()
    net.opt.num_threads = job["threads"]
    net.opt.use_winograd_convolution = True
    net.opt.use_packing_layout = True
    for name in HALF_PRECISION:
        if hasattr(net.opt, "use_" + name):  # older versions of ncnn have fewer
            setattr(net.opt, "use_" + name, False)
    if net.load_param(path) != 0 or net.load_model(os.path.splitext(path)[0] + ".bin") != 0:
        sys.exit(f"ncnn {ncnn.__version__} cannot read the model {path}")
    random = numpy.random.default_rng(0)
    feeds = {}
    for name, shape in input_shapes(path).items():
        array = random.standard_normal([job["batch"], *shape], dtype=numpy.float32)
        # A clone is in ncnn's own memory: ncnn crashes if a first layer works in place on any other.
        # Batches are new in 1.0.20261020; older versions work without them.
        feeds[name] = (ncnn.Mat(array, 0) if job["batch"] > 1 else ncnn.Mat(array[0])).clone()
    outputs = [name for name in net.output_names() if name.startswith("out")]  # others are leftovers of pnnx

    def infer():
        extractor = net.create_extractor()
        for name, mat in feeds.items():
            extractor.input(name, mat)
        for name in outputs:
            extractor.extract(name, 1)  # in the layout that a next layer would get, not rearranged

    return infer


def input_shapes(path):
    """Return channels, height and width of every input."""
    shapes = {}
    with open(path, encoding="utf-8") as file:
        for fields in map(str.split, file):
            if fields[0] == "Input":
                sizes = dict(field.split("=") for field in fields[5:])
                shapes[fields[4]] = [int(sizes[axis]) for axis in "210"]
    return shapes


if __name__ == "__main__":
    runner.serve(start, load)
