"""Read the state of an NVIDIA GPU from nvidia-smi: driver, clocks, temperature, power, reasons for a lower clock.

Standard library only; works with Python 3.8.
"""

import os
import subprocess

# Names in the result, and those of nvidia-smi. Drivers before 535 know the last field by another name.
FIELDS = {
    "driver": "driver_version",
    "sm_clock_mhz": "clocks.sm",
    "max_sm_clock_mhz": "clocks.max.sm",
    "memory_clock_mhz": "clocks.mem",
    "temperature_c": "temperature.gpu",
    "power_w": "power.draw",
    "power_limit_w": "power.limit",
}
REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
# The bits of the reasons (nvml.h, nvmlClocksEventReason*). That of an idle GPU is left out.
SLOWED_BY = {
    0x2: "applications clocks setting",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clock setting",
}
TIMEOUT_S = 20


def identity_of(number):
    """Return what nvidia-smi calls the GPU that CUDA gives a number where CUDA_DEVICE_ORDER is PCI_BUS_ID.

    CUDA counts the devices of CUDA_VISIBLE_DEVICES alone.
    """
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return visible[number] if number < len(visible) and visible[number] else str(number)


def describe(identity):
    """Return the name and memory of the GPU with a UUID or index, as a device is described; empty where it is unknown.

    The number of its cores is not reported: 0 means unknown.
    """
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits", "-i", str(identity)]
    fields = query(command).split(",")
    if len(fields) != 2 or number(fields[1]) is None:
        return {}
    name = fields[0].strip()
    return {"name": name, "model": name, "cores": 0, "memory_bytes": int(number(fields[1])) << 20}


def read(identity):
    """Return the state of the GPU with a UUID (``GPU-…``) or index; values that it does not report are None.

    Empty where nvidia-smi is missing or fails.
    """
    for reasons in REASONS:
        asked = "--query-gpu=" + ",".join([*FIELDS.values(), reasons])
        text = query(["nvidia-smi", asked, "--format=csv,noheader,nounits", "-i", str(identity)])
        if text:
            return parse(text)
    return {}


def query(command):
    """Return what nvidia-smi prints; empty where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def parse(text):
    """Return the state in one line of nvidia-smi's output."""
    lines = text.strip().splitlines()
    values = [value.strip() for value in lines[0].split(",")] if lines else []
    if len(values) != len(FIELDS) + 1:
        return {}
    state = {name: number(values[index]) for index, name in enumerate(FIELDS)}
    state["driver"] = values[0]
    state["slowed_by"] = slowed_by(values[-1])
    return state


def number(text):
    """Return a number, None for texts such as ``[N/A]``."""
    try:
        return float(text)
    except ValueError:
        return None


def slowed_by(mask):
    """Return the names of the bits of a hexadecimal mask; empty for ``[N/A]``."""
    try:
        bits = int(mask, 16)
    except ValueError:
        return []
    return [name for bit, name in SLOWED_BY.items() if bits & bit]
