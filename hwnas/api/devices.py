"""Measure devices: the latency table of a space."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.api.inputs import sized_space
from hwnas.progress import Progress

if TYPE_CHECKING:
    from hwnas.api.inputs import InputShape, Space
    from hwnas.profiling.forecast import Forecast
    from hwnas.tables.schema import LatencyTable


def profile(
    out: Path | str,
    device: str = "cpu",
    space: Space = "nasbench201",
    *,
    setting: str | None = None,
    channels: int | None = None,
    layers: int | None = None,
    input_shape: InputShape | None = None,
    classes: int | None = None,
    rounds: int = 30,
    fit_networks: int = 30,
    report_networks: int = 40,
    minutes: float | None = None,
    remeasure: bool = False,
    accept_noise: bool = False,
    licence: str = "",
    progress: Progress | None = None,
) -> LatencyTable:
    """Measure every workload of a space on a device, write the latency table ``out``, and return it.

    ``device`` is a device spec such as ``cpu``, ``cpu+openvino``, ``ssh://me@board+onnxruntime`` or ``page``, any
    browser that opens the address printed on standard error.
    Everything is timed in ``rounds`` interleaved rounds. ``fit_networks`` random networks fit the table's correction,
    ``report_networks`` others measure its accuracy. ``minutes`` limits the timing. What ``out`` already holds is kept;
    ``remeasure`` times its unstable entries again. An interrupted call resumes when it is repeated.

    Raises HwnasError when ``out`` is a table of another device or runtime, when the profiler fails, and when the
    machine is too noisy, unless ``accept_noise`` allows a table that is marked as such.
    """
    from hwnas.profiling.plan import ProfilePlan
    from hwnas.profiling.profile import profile as measure
    from hwnas.runtimes.device_spec import parse_device

    plan = ProfilePlan(
        parse_device(device),
        sized_space(space, setting, channels, layers, input_shape, classes),
        rounds,
        fit_networks,
        report_networks,
        math.inf if minutes is None else minutes,
        remeasure,
        accept_noise,
        licence,
    )
    return measure(plan, Path(out), progress or Progress(quiet=True))


def forecast_profile(
    out: Path | str,
    device: str = "cpu",
    space: Space = "nasbench201",
    *,
    setting: str | None = None,
    channels: int | None = None,
    layers: int | None = None,
    input_shape: InputShape | None = None,
    classes: int | None = None,
    rounds: int = 30,
    fit_networks: int = 30,
    report_networks: int = 40,
    minutes: float | None = None,
    remeasure: bool = False,
    accept_noise: bool = False,
    progress: Progress | None = None,
) -> Forecast:
    """Forecast how long ``profile`` takes with the same arguments, by timing a small sample; write nothing.

    The result has the number of workloads and networks to time, the ``seconds`` of writing models and of timing them,
    and ``describe()``.

    Raises HwnasError as ``profile`` does.
    """
    from hwnas.profiling.forecast import forecast_profile as forecast
    from hwnas.profiling.plan import ProfilePlan
    from hwnas.runtimes.device_spec import parse_device

    plan = ProfilePlan(
        parse_device(device),
        sized_space(space, setting, channels, layers, input_shape, classes),
        rounds,
        fit_networks,
        report_networks,
        math.inf if minutes is None else minutes,
        remeasure,
        accept_noise,
    )
    return forecast(plan, Path(out), progress or Progress(quiet=True))
