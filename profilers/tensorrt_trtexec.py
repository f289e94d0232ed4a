#!/usr/bin/env python3
"""Time ONNX models with TensorRT's trtexec. Runs on the device; needs Python, trtexec, runner.py and nvidia_smi.py.

    python tensorrt_trtexec.py job.json > times.jsonl

An engine is built when a model is first run, and loaded for every run of it. The times are those of the GPU alone, as
trtexec reports them ("GPU Compute Time", since TensorRT 8): copies to and from the device are not included.
"""

import atexit
import os
import re
import shutil
import subprocess
import sys
import tempfile

import nvidia_smi
import runner

os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi numbers GPUs
PLACES = ("/usr/src/tensorrt/bin/trtexec", "/usr/local/tensorrt/bin/trtexec")  # of NVIDIA's packages and containers
BUILD_S, RUN_S = 1800, 300
TIMES = re.compile(r"GPU Compute Time: min = ([\d.e+-]+) ms, max = ([\d.e+-]+) ms,.*? median = ([\d.e+-]+) ms")


def start(job):
    program = (
        os.path.expanduser(job["options"]["binary"])
        or shutil.which("trtexec")
        or next(filter(os.path.exists, PLACES), "")
    )
    if not program:
        sys.exit("there is no trtexec here; fix: install TensorRT, or name the program with ?binary=PATH")
    job["options"]["binary"] = program
    said = run([program, "--help"], 60)  # its first line has the version
    version = version_in(said)
    if not version:
        sys.exit(f"{program} does not say which version of TensorRT it is; fix: name TensorRT's own with ?binary=PATH")
    number = int(job["hardware"].split(":")[1])
    device = dict({"kind": "gpu"}, **nvidia_smi.describe(nvidia_smi.identity_of(number)))
    return {
        "runtime": "tensorrt",
        "version": version,
        "provider": "cuda",
        "options": {},
        "device": device,
        "clock_ms": None,
    }


def version_in(text):
    """Return the version in trtexec's output: "[TensorRT v8601]" is 8.6.1, "[TensorRT v100300]" is 10.3.0."""
    found = re.search(r"TensorRT[ .]v(\d+)\]", text)
    if not found:
        return ""
    number = int(found[1])
    # Up to version 9 the digits are major, minor and two of the patch; since then two each.
    minor, rest = (number // 100 % 10, number // 1000) if number < 10_000 else (number // 100 % 100, number // 10_000)
    return f"{rest}.{minor}.{number % 100}"


def load(path, job):
    """Build the model's engine; return what ``values`` needs to run it."""
    folder = tempfile.mkdtemp(prefix="hwnas-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    engine = os.path.join(folder, "model.engine")
    flags = ["--fp16"] if job["options"]["float16"] else []
    build = [f"--onnx={path}", f"--saveEngine={engine}", *flags, "--warmUp=0", "--duration=0", "--iterations=1"]
    trtexec(job, build, BUILD_S)
    return engine


def values(engine, job, warmup_ms):
    """Return the least, the median and the greatest milliseconds of the inferences of one call of trtexec."""
    arguments = [
        f"--loadEngine={engine}",
        f"--warmUp={max(1, round(warmup_ms))}",
        "--duration=0",
        f"--iterations={job['max_blocks']}",
        "--useSpinWait",
        "--noDataTransfers",
    ]
    return times_in(trtexec(job, arguments, RUN_S))


def times_in(text):
    """Return the least, the median and the greatest time in trtexec's output."""
    found = TIMES.search(text)
    if not found:
        sys.exit("trtexec printed no line 'GPU Compute Time'; fix: use TensorRT 8 or newer")
    least, greatest, median = (float(number) for number in found.groups())
    return [least, median, greatest]


def trtexec(job, arguments, limit_s):
    number = job["hardware"].split(":")[1]
    return run([job["options"]["binary"], f"--device={number}", *arguments], limit_s)


def run(command, limit_s):
    """Return what a command prints. Ends the program if it fails."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit_s, check=False)
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}; fix: name trtexec with ?binary=PATH")
    except subprocess.TimeoutExpired:
        sys.exit(f"{command[0]} did not end within {limit_s} s")
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        errors = [line.partition("[E] ")[2] for line in text.splitlines() if "[E] " in line]
        reason = errors[0] if errors else f"exit code {done.returncode}"
        sys.exit(f"trtexec failed: {reason} (`{' '.join(command)}`)")
    return text


def finish(job):
    number = int(job["hardware"].split(":")[1])
    return {"gpu": dict(nvidia_smi.read(nvidia_smi.identity_of(number)), number=number)}


if __name__ == "__main__":
    runner.serve(start, load, values, finish=finish)
