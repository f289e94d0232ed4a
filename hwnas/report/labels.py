"""Texts about the targets of a run that several sections share."""

from __future__ import annotations

from hwnas.budgets.budget import Budget
from hwnas.budgets.text import names_devices
from hwnas.report.run_content import RunContent, Target
from hwnas.runs.schema import DeviceTiming


def target_labels(run: RunContent) -> list[str]:
    """Return a label for each target: its budget, preceded by its device if the budget alone is ambiguous."""
    many = len({target.row.device for target in run.targets}) > 1
    return [
        f"{target.row.device}: {target.row.budget}"
        if many and not names_devices(target.row.budget)
        else target.row.budget
        for target in run.targets
    ]


def limits_text(target: Target) -> str:
    return Budget(target.row.budget, target.row.limits).describe().replace("<=", "≤")


def latency_text(timing: DeviceTiming) -> str:
    """Return the measured latency or, before a measurement, the predicted one."""
    if timing.measured_ms is None:
        return f"{timing.predicted_ms:.4g} ms (predicted)"
    error = f" ± {timing.measured_error_ms:.2g}" if timing.measured_error_ms is not None else ""
    return f"{timing.measured_ms:.4g}{error} ms (measured)"


def latencies_text(target: Target) -> str:
    """Return the latencies on all devices of a target."""
    joint = len(target.timings) > 1
    return " and ".join(latency_text(timing) + f" on {timing.device}" * joint for timing in target.timings)
