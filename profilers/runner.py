"""The part that all profilers in this folder share: read a job, make its runs, print a line of JSON for each.

Standard library only; README.md in this folder describes the protocol. A profiler is a program that calls ``serve``.
"""

import glob
import json
import os
import platform
import sys
import time

PROTOCOL = 2


def serve(start, load, values=None, threads=None, finish=None):
    """Do the job named on the command line.

    ``start(job)`` prepares the runtime and describes it: ``runtime``, ``version``, ``provider`` and, where they apply,
    ``options`` and ``device`` (fields that replace those that this file reads from the machine).
    ``load(path, job)`` returns a model ready to run: a function of no arguments, one inference a call.
    ``values(infer, job, warmup_ms)`` returns the milliseconds of a few inferences of such a model; the default times
    them with the processor's clock.
    ``threads()`` returns the system's numbers of the threads that run the models if these belong to another program.
    That program may then use all processors: its other threads would slow these down.
    ``finish(job)`` returns further fields of the last line, such as the device's state after the runs.
    """
    if len(sys.argv) != 2:
        sys.exit(f"usage: {os.path.basename(sys.argv[0])} job.json > times.jsonl")
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    if job.get("protocol") != PROTOCOL:
        sys.exit("this profiler has protocol {}, the job protocol {}".format(PROTOCOL, job.get("protocol")))
    values = values or timed_values
    usable = available()
    processors = pin(job["threads"]) if job["pin"] and not threads else allowed()
    described = start(job)
    device = dict(machine(), **described.pop("device", {}))
    state = {"processors": processors, "available": usable, "governor": governor()}
    state.update({"load": load_average(), "clock_ms": clock_ms()})
    emit(dict({"event": "start", "protocol": PROTOCOL, "device": device, "options": {}}, **dict(state, **described)))
    folder = os.path.dirname(os.path.abspath(sys.argv[1]))
    runners = threads() if threads else None
    stolen = stolen_ticks()
    models, running = {}, {}
    for number in range(job["first_visit"], len(job["visits"])):
        name = job["visits"][number]
        warmup_ms, load_ms = job["warmup_ms"], None
        if name not in models:
            began = time.perf_counter_ns()
            models[name] = load(os.path.join(folder, job["models"][name]), job)
            load_ms = (time.perf_counter_ns() - began) / 1e6
            warmup_ms = job["first_warmup_ms"]
        # A runtime may have two threads for each of hundreds of models, and reading them all takes longer than a visit:
        # after the first visit of a model, only those that ran it then.
        files = running.get(name) or thread_files(runners)
        before, began = thread_times(files), time.perf_counter_ns()
        times = sorted(values(models[name], job, warmup_ms))
        wall_ms = (time.perf_counter_ns() - began) / 1e6
        after = thread_times(running.get(name) or thread_files(runners))
        if name not in running:
            running[name] = [file for file, (ran_ns, _) in after.items() if ran_ns > before.get(file, (0, 0))[0]]
        line = {"event": "visit", "visit": number, "model": name, "blocks": len(times)}
        line.update({"min_ms": times[0], "median_ms": times[len(times) // 2], "wall_ms": wall_ms})
        if load_ms is not None:
            line["load_ms"] = load_ms
        if after:
            line["waited_ms"] = sum(wait_ns - before.get(file, (0, 0))[1] for file, (_, wait_ns) in after.items()) / 1e6
        emit(line)
    ended = stolen_ticks()
    share = (ended[0] - stolen[0]) / max(ended[1] - stolen[1], 1) if stolen and ended else None
    emit(dict({"event": "end", "load": load_average(), "stolen": share}, **(finish(job) if finish else {})))


def timed_values(infer, job, warmup_ms):
    """Warm up, then time blocks of inferences, each long enough for the clock; return milliseconds of one inference."""
    infer_ms = warm_up(infer, warmup_ms)
    shortest_ms = max(job["block_ms"], 100 * clock_ms())
    loops = max(1, int(shortest_ms / max(infer_ms, 1e-6) + 0.999))
    times, spent_ms = [], 0.0
    while len(times) < job["min_blocks"] or (spent_ms < job["visit_ms"] and len(times) < job["max_blocks"]):
        began = time.perf_counter_ns()
        for _ in range(loops):
            infer()
        block_ms = (time.perf_counter_ns() - began) / 1e6
        times.append(block_ms / loops)
        spent_ms += block_ms
    return times


def warm_up(infer, warmup_ms):
    """Infer for that long, at least once; return the milliseconds of the fastest inference."""
    fastest_ms, spent_ms = float("inf"), 0.0
    while True:
        began = time.perf_counter_ns()
        infer()
        infer_ms = (time.perf_counter_ns() - began) / 1e6
        fastest_ms, spent_ms = min(fastest_ms, infer_ms), spent_ms + infer_ms
        if spent_ms >= warmup_ms:
            return fastest_ms


def clock_ms():
    return time.get_clock_info("perf_counter").resolution * 1e3


def allowed():
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def available():
    """Return the number of processors that this process may use at once, None if unknown."""
    numbers = [len(allowed() or ()) or os.cpu_count(), quota()]
    return min((max(1, int(number)) for number in numbers if number), default=None)


def quota(root="/"):
    """Return the processors' time that the control groups of this process allow in a unit of time, None if unlimited.

    Version 2 has one file of both numbers, ``cpu.max``; version 1 a file for each in the folder of its controller.
    """
    limits = []
    for line in read_text(root + "proc/self/cgroup").splitlines():
        controllers, path = line.split(":", 2)[1:]
        if controllers and "cpu" not in controllers.split(","):
            continue
        parts = [root + "sys/fs/cgroup" + ("/cpu" if controllers else ""), *path.strip("/").split("/")]
        for depth in range(1, len(parts) + 1):
            group = "/".join(parts[:depth])
            old = [read_text(group + "/cpu.cfs_quota_us"), read_text(group + "/cpu.cfs_period_us")]
            numbers = (read_text(group + "/cpu.max") or " ".join(old)).split()
            if len(numbers) == 2 and all(number.isdigit() for number in numbers):  # neither "max" nor -1: no limit
                limits.append(int(numbers[0]) / int(numbers[1]))
    return min(limits, default=None)


def pin(threads):
    """Pin this process to as many processors as there are threads: the last ones, as the first handle interrupts."""
    processors = allowed()
    if processors:
        os.sched_setaffinity(0, processors[-threads:])
    return allowed()


def machine():
    """Return the description of this machine."""
    model = processor_model()
    system = f"{platform.system()} {platform.machine()}"
    kind = "mobile" if hasattr(sys, "getandroidapilevel") else "cpu"
    return {
        "name": model,
        "kind": kind,
        "model": model,
        "cores": os.cpu_count() or 0,
        "memory_bytes": memory_bytes(),
        "os": system,
    }


def processor_model():
    fields = {}
    for line in read_text("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        fields[key.strip()] = value.strip()
    board = read_text("/proc/device-tree/model").rstrip("\0")
    name = fields.get("model name") or board or platform.processor() or platform.machine()
    if "cpu family" in fields and "model" in fields:
        name += " (family {}, model {})".format(fields["cpu family"], fields["model"])
    return name


def memory_bytes():
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def governor():
    """Return the governor of the processor's frequency (``performance``, ``powersave``, …), None if unknown."""
    return read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None


def load_average():
    """Return the mean number of programs that ran or waited for a processor over the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def thread_files(threads=None):
    """Return the files that tell how long each of those threads, or of this process's, has run and waited to run."""
    own = glob.glob("/proc/self/task/*/schedstat")
    return own if threads is None else list(map("/proc/{}/schedstat".format, threads))


def thread_times(files):
    """Return the nanoseconds that threads have run, and been ready to run without a processor, by their file.

    Empty if the system does not report it.
    """
    texts = {file: read_text(file).split() for file in files}
    return {file: (int(text[0]), int(text[1])) for file, text in texts.items() if text}


def stolen_ticks():
    """Return the clock ticks that a virtual machine's host gave to others, and all ticks, since the system started."""
    lines = read_text("/proc/stat").splitlines()
    ticks = [int(number) for number in lines[0].split()[1:9]] if lines else []
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else None


def read_text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def emit(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
