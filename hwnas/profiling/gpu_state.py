"""The state of a GPU over the processes of a profile."""

from __future__ import annotations

from collections.abc import Sequence

from hwnas.profiling.protocol import JobValues
from hwnas.tables.schema import Gpu

# Reasons for lower clocks that come and go with heat and supply, so that times are not those of a cool device.
THROTTLED = ("hardware slowdown", "software thermal slowdown", "hardware thermal slowdown", "hardware power brake")
LEAST = ("sm_clock_mhz", "max_sm_clock_mhz", "memory_clock_mhz", "power_limit_w")
MOST = ("temperature_c", "power_w")


def over_processes(job_values: Sequence[JobValues]) -> Gpu | None:
    """Return the least clocks, the most heat and power, and all reasons; None where no GPU was timed."""
    states = [values.gpu for values in job_values if values.gpu]
    if not states:
        return None
    found = {}
    for names, choose in ((LEAST, min), (MOST, max)):
        for name in names:
            known = [value for state in states if (value := getattr(state, name)) is not None]
            found[name] = choose(known) if known else None
    reasons = dict.fromkeys(reason for state in states for reason in state.slowed_by)
    return states[0].model_copy(update={**found, "slowed_by": list(reasons)})


def throttling(job_values: Sequence[JobValues]) -> str:
    """Return the problem that a GPU which slowed itself down makes for a table; empty without one."""
    state = over_processes(job_values)
    reasons = [reason for reason in state.slowed_by if reason in THROTTLED] if state else []
    return f"the GPU slowed itself down ({', '.join(reasons)})" if reasons else ""
