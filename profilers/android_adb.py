#!/usr/bin/env python3
"""Time models on an Android phone with a runtime's own benchmark program, over adb.

Runs on the machine to which the phone is connected; needs Python, adb, and runner.py in its folder.

    python android_adb.py job.json > times.jsonl

The program that the job names, the libraries (``*.so``) in its folder and the models are pushed to a folder of their
own on the phone, which is removed at the end. The program runs on the phone's fastest processors.
"""

import atexit
import hashlib
import os
import re
import subprocess
import sys

import runner

FOLDER = "/data/local/tmp/hwnas"
EXIT = "hwnas exit code "
LIMIT_S = 600
SECONDS = r"([\d.]+(?:e[+-]?\d+)?)"


def start(job):
    options = job["options"]
    options["serial"] = phone_of(devices(), options["serial"])
    program = os.path.expanduser(options["binary"])
    if not os.path.isfile(program):
        sys.exit(f"there is no program {program} on this machine; fix: name the one to push with ?binary=PATH")
    atexit.register(clean_up, job)
    shell(job, f"rm -rf {FOLDER} && mkdir -p {FOLDER}")
    folder = os.path.dirname(os.path.abspath(program))
    libraries = [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(".so")]
    push(job, program, f"{FOLDER}/benchmark")
    for library in libraries:
        push(job, library, f"{FOLDER}/{os.path.basename(library)}")
    shell(job, f"chmod 755 {FOLDER}/benchmark")
    check_program(job)
    processors = fastest(job, job["threads"])
    options["mask"] = format(sum(1 << number for number in processors), "x")
    with open(program, "rb") as file:
        version = "binary " + hashlib.sha256(file.read()).hexdigest()[:12]
    return {
        "runtime": options["runtime"],
        "version": version,
        "provider": "CPU",
        "options": {"benchmark": os.path.basename(program)},
        "device": describe(job),
        "processors": processors,
        "available": number_in(shell(job, "nproc")) or None,
        "governor": shell(job, f"cat {CPU}/cpu{processors[0]}/cpufreq/scaling_governor 2>/dev/null").strip() or None,
        "load": None,
        "clock_ms": CLOCKS_MS[options["runtime"]],
    }


def devices():
    """Return the state of each phone that adb lists, by serial number."""
    lines = adb(["devices"]).splitlines()
    return dict(re.split(r"\s+", line.strip(), maxsplit=1) for line in lines[1:] if len(line.split()) > 1)


def phone_of(states, serial):
    """Return the serial number of the phone to use. Ends the program with advice if it cannot be used."""
    if not states:
        sys.exit("no phone is connected; fix: connect one with USB debugging on: `adb devices` must list it")
    if not serial and len(states) > 1:
        names = ", ".join(states)
        sys.exit(f"several phones are connected ({names}); fix: name one, as in android://{next(iter(states))}+…")
    serial = serial or next(iter(states))
    if serial not in states:
        sys.exit(f"phone {serial} is not connected; fix: use one of {', '.join(states)}, or connect it")
    state = states[serial]
    if state.startswith("unauthorized"):
        sys.exit(f"phone {serial} does not trust this machine; fix: accept the question on its screen")
    if state != "device":
        sys.exit(f"phone {serial} cannot be used, adb says {state!r}; fix: connect it again, or `adb kill-server`")
    return serial


def check_program(job):
    """End the program if the phone cannot run what the job names."""
    text, code = attempt(job, "./benchmark --help")
    if code in (126, 127):
        abi = shell(job, "getprop ro.product.cpu.abi").strip()
        last = text.strip().splitlines()[-1:] or ["no output"]
        sys.exit(f"{job['options']['binary']} does not run on the phone: {last[0]}; fix: build it for {abi}")


CPU = "/sys/devices/system/cpu"
CLOCKS_MS = {"onnxruntime": None, "ncnn": 0.01, "litert": 0.001}  # the last digits that the programs print


def fastest(job, count):
    """Return the numbers of the phone's processors of the greatest frequency, the last of equal ones."""
    text = shell(
        job, f'for c in {CPU}/cpu[0-9]*; do echo "${{c##*cpu}} $(cat $c/cpufreq/cpuinfo_max_freq 2>/dev/null)"; done'
    )
    known = [(int([*line.split(), "0"][1]), int(line.split()[0])) for line in text.splitlines() if line.strip()]
    return sorted(number for _, number in sorted(known)[-count:])


def describe(job):
    """Return the description of the phone."""
    names = ("ro.product.manufacturer", "ro.product.model", "ro.soc.model", "ro.build.version.release")
    maker, model, chip, version = (shell(job, f"getprop {name}").strip() for name in names)
    name = f"{maker} {model}".strip() or job["options"]["serial"]
    memory = re.search(r"MemTotal:\s+(\d+) kB", shell(job, "cat /proc/meminfo"))
    return {
        "name": name,
        "kind": "mobile",
        "model": f"{name} ({chip})" if chip else name,
        "cores": number_in(shell(job, "nproc --all 2>/dev/null || nproc")),
        "memory_bytes": int(memory[1]) << 10 if memory else 0,
        "os": f"Android {version}".strip(),
    }


def number_in(text):
    return int(text.strip()) if text.strip().isdigit() else 0


def load(path, job):
    """Push a model; return its name on the phone and, of ncnn, its graph. Weights are zeros to benchncnn."""
    name = os.path.basename(path)
    push(job, path, f"{FOLDER}/{name}")
    if not name.endswith(".param"):
        return name, ""
    with open(path, encoding="utf-8", errors="replace") as file:
        return name, file.read()


def values(model, job, warmup_ms):
    """Return the milliseconds of inferences: the least, the median and the greatest, or each."""
    return PROGRAMS[job["options"]["runtime"]](model, job, warmup_ms)


def onnxruntime_perf_test(model, job, warmup_ms):
    runs = job["max_blocks"]
    text = benchmark(job, f"-m times -r {runs} -x {job['threads']} -y 1 -e cpu -I -s {model[0]}")
    return [1e3 * find(rf"{name} Latency(?: is|:) {SECONDS} s", text) for name in ("Min", "P50", "Max")]


def benchncnn(model, job, warmup_ms):
    """One inference a call, after eight to warm up: the program states no median."""
    shapes = ",".join("[{},{},{}]".format(*shape) for shape in ncnn_inputs(model[1]))
    arguments = f"1 {job['threads']} 2 -1 0 param={model[0]} 'shape={shapes}'"
    texts = [benchmark(job, arguments) for _ in range(job["min_blocks"])]
    return longer_than_the_clock([find(rf"min =\s+{SECONDS}\s", text) for text in texts])


def longer_than_the_clock(times):
    """Return the times. Ends the program where one is printed as 0."""
    if min(times) <= 0:
        sys.exit("the phone runs a model in less time than its benchmark can print; fix: profile larger sizes")
    return times


def ncnn_inputs(graph):
    """Return width, height and channels of every input."""
    sizes = [
        dict(field.split("=") for field in line.split()[5:]) for line in graph.splitlines() if line.startswith("Input ")
    ]
    return [[int(size[axis]) for axis in "012"] for size in sizes]


def benchmark_model(model, job, warmup_ms):
    """One inference a call, after one or more to warm up: most versions state no median."""
    arguments = (
        f"--graph={model[0]} --num_threads={job['threads']} --warmup_runs=1 --warmup_min_secs={warmup_ms / 1e3:g}"
    )
    arguments += " --num_runs=1 --min_secs=0"
    texts = [benchmark(job, arguments).rpartition("Running benchmark")[2] for _ in range(job["min_blocks"])]
    return longer_than_the_clock([find(rf"count=1 curr={SECONDS}", text) / 1e3 for text in texts])


PROGRAMS = {"onnxruntime": onnxruntime_perf_test, "ncnn": benchncnn, "litert": benchmark_model}


def benchmark(job, arguments):
    """Return what the program prints on the phone. Ends this program if it fails."""
    text, code = attempt(job, f"taskset {job['options']['mask']} ./benchmark {arguments}")
    if code:
        last = text.strip().splitlines()[-1:] or ["no output"]
        sys.exit(
            f"{os.path.basename(job['options']['binary'])} ended with exit code {code} on the phone: {last[0][:300]}"
        )
    return text


def find(pattern, text):
    found = re.search(pattern, text)
    if not found:
        last = (text.strip().splitlines() or [""])[-1][:200]
        sys.exit(f"the benchmark printed no time ({last!r}); fix: name the runtime's own benchmark with ?binary=PATH")
    return float(found[1])


def attempt(job, command):
    """Return what a command prints in the folder on the phone, and its exit code, which old phones do not report."""
    text = shell(job, f"cd {FOLDER} && (export LD_LIBRARY_PATH=.; {command}) 2>&1; code=$?; echo; echo {EXIT}$code")
    said, marker, code = text.rpartition(EXIT)
    if not marker:
        sys.exit("the phone's answer broke off; fix: check `adb devices`, and run the same command again to resume")
    return said, int(code)


def shell(job, command):
    return adb(["-s", job["options"]["serial"], "shell", command])


def push(job, path, there):
    adb(["-s", job["options"]["serial"], "push", path, there])


def clean_up(job):
    subprocess.run(
        ["adb", "-s", job["options"]["serial"], "shell", f"rm -rf {FOLDER}"],
        capture_output=True,
        check=False,
        timeout=60,
    )


def adb(arguments):
    """Return what adb prints on standard output. Ends the program if adb itself fails."""
    try:
        done = subprocess.run(
            ["adb", *arguments], capture_output=True, stdin=subprocess.DEVNULL, timeout=LIMIT_S, check=False
        )
    except FileNotFoundError:
        sys.exit(
            "adb is not installed on this machine; fix: install it (apt-get install adb, or Android's platform tools)"
        )
    except subprocess.TimeoutExpired:
        sys.exit(f"adb {arguments[-1][:80]} did not end within {LIMIT_S} s; fix: run the same command again to resume")
    error = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode and ("error:" in error or "adb:" in error or "cannot connect" in error):
        sys.exit(
            f"adb failed: {error.splitlines()[-1]}; fix: check `adb devices`, and run the same command again to resume"
        )
    return done.stdout.decode("utf-8", "replace")


if __name__ == "__main__":
    runner.serve(start, load, values, threads=list, finish=lambda job: {"stolen": None, "load": None})
