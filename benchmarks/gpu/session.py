"""One session on a GPU: every step within its limit and the session's time, each recorded whatever becomes of it."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import records
from benchmarks.gpu.plan import RETURN_S, Places, Step
from benchmarks.gpu.process import run_for
from benchmarks.gpu.returned import keep
from profilers import nvidia_smi

LEAST_S = 3.0  # a step that has less is left out


def run_session(
    steps: Sequence[Step],
    places: Places,
    seconds: float,
    machine: Mapping[str, Any],
    done: Collection[str] = (),
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run the steps that are not ``done`` in order, within ``seconds`` in all.

    A resumable step gets its limit and all time that the limits of the later steps leave.
    """
    ends, finished = clock() + seconds - RETURN_S, set(done)
    left = [step for step in steps if step.name not in finished]
    for number, step in enumerate(left):
        later_s = sum(other.limit_s for other in left[number + 1 :])
        remaining_s = ends - clock()
        limit_s = min(remaining_s, max(step.limit_s, remaining_s - later_s) if step.resumable else step.limit_s)
        record = _recorded(step, limit_s, places)
        if record["state"] == "ok" and step.builds_on and step.builds_on not in finished:
            record["state"] = "provisional"
        print(f"{step.name}: {record['state']}", flush=True)
        if problem := _not_returned(places, record):
            record["not_returned"] = problem
        finished |= records.finished([record])
        records.write(places.out, {**record, "gpu_after": nvidia_smi.read(0), "machine": dict(machine)})


def _recorded(step: Step, limit_s: float, places: Places) -> dict[str, Any]:
    record: dict[str, Any] = {"step": step.name, "limit_s": round(limit_s, 1)}
    if limit_s < LEAST_S:
        return {**record, "state": "left out", "tail": "no time was left"}
    print(f"{step.name}: {step.what} (at most {limit_s:.0f} s)", flush=True)
    try:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        ended = run_for(step.command, limit_s, places.out / records.LOG, environment)
        state = "ok" if ended.code == 0 else "failed"
        if ended.code is None:
            state = "interrupted" if step.resumable else "overran"
        record.update(state=state, code=ended.code, seconds=round(ended.seconds, 1), tail=ended.tail)
        record["result"] = _result(places.result(step.name))
    except Exception:  # a step must not end the session
        record.update(state="failed", tail=traceback.format_exc())
    return record


def _not_returned(places: Places, record: Mapping[str, Any]) -> str:
    """Put what a step has left into ``places.out``; return the reason where that fails, empty where it does not."""
    try:
        room = keep(places, record["step"], record["state"] == "ok")
    except Exception:  # nor must this
        return traceback.format_exc()
    return "" if room else f"the folder of {record['step']} had no room"


def _result(file: Path) -> Any:
    """Return what a step has written so far; None without a file."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
