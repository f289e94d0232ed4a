"""What all profilers in this folder share: read a job, make its visits, print a line of JSON for each.

Standard library alone; README.md beside this file describes the protocol. A profiler is a program that calls ``serve``.
"""

import glob
import json
import os
import platform
import sys
import time

PROTOCOL = 2


def serve(start, load, visit=None, threads=None):
    """Do the job named on the command line.

    ``start(job)`` readies the runtime and says what it is: ``runtime``, ``version``, ``provider`` and, where they
    apply, ``options`` and ``device`` (fields that replace what this file reads of the machine).
    ``load(path, job)`` gives a model ready to run: a function of no arguments.
    ``visit(run, job, warmup_ms)`` gives the milliseconds of a few runs; the default times them with the processor's
    clock.
    ``threads()`` gives the system's numbers of the threads that run the models if they are another program's, which
    is then left to run on all processors: its other threads would be in the way of these.
    """
    if len(sys.argv) != 2:
        sys.exit(f"usage: {os.path.basename(sys.argv[0])} job.json > times.jsonl")
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    if job.get("protocol") != PROTOCOL:
        sys.exit("this profiler speaks protocol {}, the job protocol {}".format(PROTOCOL, job.get("protocol")))
    visit = visit or timed_visit
    processors = pin(job["threads"]) if job["pin"] and not threads else allowed()
    said = start(job)
    device = dict(machine(), **said.pop("device", {}))
    state = {"processors": processors, "governor": governor(), "load": load_average(), "clock_ms": clock_ms()}
    emit(dict({"event": "start", "protocol": PROTOCOL, "device": device, "options": {}}, **dict(state, **said)))
    folder = os.path.dirname(os.path.abspath(sys.argv[1]))
    runners = threads() if threads else None
    stolen = stolen_ticks()
    runs = {}
    for number in range(job["first_visit"], len(job["visits"])):
        name = job["visits"][number]
        warmup_ms, load_ms = job["warmup_ms"], None
        if name not in runs:
            began = time.perf_counter_ns()
            runs[name] = load(os.path.join(folder, job["models"][name]), job)
            load_ms = (time.perf_counter_ns() - began) / 1e6
            warmup_ms = job["first_warmup_ms"]
        waited, began = waited_ms(runners), time.perf_counter_ns()
        times = sorted(visit(runs[name], job, warmup_ms))
        wall_ms = (time.perf_counter_ns() - began) / 1e6
        line = {"event": "visit", "visit": number, "model": name, "blocks": len(times)}
        line.update({"min_ms": times[0], "median_ms": times[len(times) // 2], "wall_ms": wall_ms})
        if load_ms is not None:
            line["load_ms"] = load_ms
        if waited is not None:
            line["waited_ms"] = waited_ms(runners) - waited
        emit(line)
    after = stolen_ticks()
    share = (after[0] - stolen[0]) / max(after[1] - stolen[1], 1) if stolen and after else None
    emit({"event": "end", "load": load_average(), "stolen": share})


def timed_visit(run, job, warmup_ms):
    """Warm up for a while, then time blocks of runs, each block long enough for the clock; milliseconds of one run."""
    run_ms = warm_up(run, warmup_ms)
    shortest_ms = max(job["block_ms"], 100 * clock_ms())
    runs = max(1, int(shortest_ms / max(run_ms, 1e-6) + 0.999))
    times, spent_ms = [], 0.0
    while len(times) < job["min_blocks"] or (spent_ms < job["visit_ms"] and len(times) < job["max_blocks"]):
        began = time.perf_counter_ns()
        for _ in range(runs):
            run()
        block_ms = (time.perf_counter_ns() - began) / 1e6
        times.append(block_ms / runs)
        spent_ms += block_ms
    return times


def warm_up(run, warmup_ms):
    """Run at least once, for that long; the milliseconds of the fastest run."""
    fastest_ms, spent_ms = float("inf"), 0.0
    while True:
        began = time.perf_counter_ns()
        run()
        run_ms = (time.perf_counter_ns() - began) / 1e6
        fastest_ms, spent_ms = min(fastest_ms, run_ms), spent_ms + run_ms
        if spent_ms >= warmup_ms:
            return fastest_ms


def clock_ms():
    return time.get_clock_info("perf_counter").resolution * 1e3


def allowed():
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def pin(threads):
    """Keep to as many processors as there are threads: the last ones, for the first serve interrupts."""
    processors = allowed()
    if processors:
        os.sched_setaffinity(0, processors[-threads:])
    return allowed()


def machine():
    """What the machine says of itself."""
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
    """How the processor's frequency is ruled (``performance``, ``powersave``, …), if the system says."""
    return read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None


def load_average():
    """Programs that ran or waited for a processor over the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def waited_ms(threads=None):
    """How long those threads, or this process's, have been ready to run and had no processor.

    None where the system won't say.
    """
    own = glob.glob("/proc/self/task/*/schedstat")
    texts = [read_text(path) for path in (own if threads is None else map("/proc/{}/schedstat".format, threads))]
    waits = [int(text.split()[1]) for text in texts if text]
    return sum(waits) / 1e6 if waits else None


def stolen_ticks():
    """Clock ticks that a virtual machine's host gave to others, and all ticks, since the start of the system."""
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
