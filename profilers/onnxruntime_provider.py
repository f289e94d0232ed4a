#!/usr/bin/env python3
"""Time ONNX models with an execution provider of ONNX Runtime other than its CPU kernels.

Runs on the device; needs Python, an onnxruntime with the provider, and runner.py and nvidia_smi.py in its folder.

    python onnxruntime_provider.py job.json > times.jsonl

ONNX Runtime computes what a provider cannot on the CPU, or everything if the provider does not start, and says little
about it. So the first inference of every model is profiled: a model with a node elsewhere ends the job, unless the job
allows it.
"""

import collections
import contextlib
import json
import os
import re
import sys
import tempfile

import numpy
import nvidia_smi
import onnxruntime
import runner

# The packages with a provider. Those that are not in this list, such as XNNPACK's and NNAPI's, are in builds of one's
# own, and in ONNX Runtime's libraries for Android.
PACKAGES = {
    "CUDAExecutionProvider": "onnxruntime-gpu",
    "TensorrtExecutionProvider": "onnxruntime-gpu",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
    "QNNExecutionProvider": "onnxruntime-qnn",
    "DmlExecutionProvider": "onnxruntime-directml",
    "CoreMLExecutionProvider": "onnxruntime (on macOS)",
}
os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi numbers GPUs
TYPES = {"tensor(float)": numpy.float32, "tensor(float16)": numpy.float16, "tensor(int64)": numpy.int64}


def start(job):
    provider, there = job["options"]["provider"], onnxruntime.get_available_providers()
    if provider not in there:
        package = PACKAGES.get(provider, "a build of ONNX Runtime with it")
        sys.exit(
            f"{provider} is not in onnxruntime {onnxruntime.__version__} of {sys.executable}, "
            f"which has {', '.join(there)}; fix: install {package} in an environment of its own, and name its python="
        )
    described = {"runtime": "onnxruntime", "version": onnxruntime.__version__, "provider": provider}
    if not job["hardware"].startswith("cuda"):
        return dict(described, options={"spinning": False})
    device = dict({"kind": "gpu"}, **nvidia_smi.describe(nvidia_smi.identity_of(gpu_number(job))))
    return dict(described, options={"spinning": False}, device=device)


def finish(job):
    """Return the state of an NVIDIA GPU right after the runs."""
    if not job["hardware"].startswith("cuda"):
        return {}
    return {"gpu": dict(nvidia_smi.read(nvidia_smi.identity_of(gpu_number(job))), number=gpu_number(job))}


def gpu_number(job):
    return int(job["hardware"].split(":")[1])


def load(path, job):
    """Return a function that runs the model once. Ends the program if a part of it runs on another provider."""
    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        session = open_session(path, job, os.path.join(folder, "session"))
        infer = bind(session, job)
        infer()
        with open(session.end_profiling(), encoding="utf-8") as file:
            events = json.load(file)
    refuse_elsewhere(os.path.basename(path), events, job["options"])
    return infer


def open_session(path, job, profile):
    wanted, options = job["options"], onnxruntime.SessionOptions()
    provider = wanted["provider"]
    options.intra_op_num_threads = job["threads"]
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = profile
    given = dict(wanted["provider_options"])
    if wanted["threads_option"]:
        given.setdefault(wanted["threads_option"], str(job["threads"]))
    if job["hardware"].startswith("cuda"):
        given.setdefault("device_id", str(gpu_number(job)))
    said = []
    try:
        with captured(said):
            # Without the fallback of old versions to a session on the CPU, which they announce on standard output.
            session = onnxruntime.InferenceSession(
                path, options, providers=[provider], provider_options=[given], enable_fallback=0
            )
    except Exception as error:  # onnxruntime's own exception classes share no public base
        sys.exit(f"{provider} cannot load {os.path.basename(path)}: {reason(str(error))}")
    if provider not in session.get_providers():
        reasons = [line for line in "".join(said).splitlines() if "[E:" in line or "Error" in line]
        why = reason(reasons[-1]) if reasons else "ONNX Runtime does not say why"
        sys.exit(f"{provider} does not start with the options {json.dumps(given)}: {why}")
    return session


def bind(session, job):
    """Return a function that runs the session once on fixed random inputs, which lie in the GPU's memory if it has one.

    The time of copying them there is not that of a network, and copies of a workload have inputs of their own.
    """
    random = numpy.random.default_rng(0)
    place = ("cuda", gpu_number(job)) if job["hardware"].startswith("cuda") else ("cpu", 0)
    binding = session.io_binding()
    for given in session.get_inputs():
        array = random.standard_normal([job["batch"], *given.shape[1:]], dtype=numpy.float32)
        if given.type == "tensor(int64)":  # numbers of words
            array *= 0
        array = array.astype(TYPES[given.type])
        binding.bind_ortvalue_input(given.name, onnxruntime.OrtValue.ortvalue_from_numpy(array, *place))
    for given in session.get_outputs():
        value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            [job["batch"], *given.shape[1:]], TYPES[given.type], *place
        )
        binding.bind_ortvalue_output(given.name, value)
    return lambda: session.run_with_iobinding(binding)


def refuse_elsewhere(model, events, wanted):
    """End the program if the profile of a session has nodes on another provider than the job's."""
    elsewhere = nodes_elsewhere(events, wanted["provider"])
    if not elsewhere or wanted["fallback"]:
        return
    listed = ", ".join(f"{name} ({count}) on {where}" for (name, where), count in elsewhere.most_common(4))
    more = " and others" if len(elsewhere) > 4 else ""
    sys.exit(
        f"{wanted['provider']} does not run all of {model}, ONNX Runtime runs {listed}{more}; "
        "fix: use another provider, precision or opset, or time the mix as it is with fallback=cpu"
    )


def nodes_elsewhere(events, provider):
    """Return how often nodes ran on other providers, by operator and provider, from the profile of a session."""
    ran = [e["args"] for e in events if e.get("cat") == "Node" and str(e.get("name")).endswith("_kernel_time")]
    if not ran:
        sys.exit("the profile of ONNX Runtime's session has no nodes, so that it is not known where they run")
    return collections.Counter(
        (args.get("op_name"), args.get("provider")) for args in ran if args.get("provider") != provider
    )


@contextlib.contextmanager
def captured(said):
    """Add to the list what libraries print on standard output and standard error, which stay for this program."""
    with tempfile.TemporaryFile("w+", errors="replace") as file:
        copies = [os.dup(1), os.dup(2)]
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in enumerate(copies, 1):
                os.dup2(copy, number)
                os.close(copy)
            file.seek(0)
            said.append(file.read())


def reason(text):
    """Return a message of ONNX Runtime on one line, without the places in its source."""
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())
    return re.sub(r"^.*?\.(cc|h):\d+ .*?\)( const)? ", "", text).rpartition("[ERROR] ")[2][:300]


if __name__ == "__main__":
    runner.serve(start, load, finish=finish)
