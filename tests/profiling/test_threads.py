"""More threads than the processors that a device lets a process use are refused before anything is measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import pytest

from hwnas.errors import HwnasError
from hwnas.files import shipped
from hwnas.profiling.protocol import Job, JobValues
from hwnas.tables.io import read_table, write_table
from support.command import Run, assert_one_clear_line

SMALL = ("--space", "nasbench201", "--channels", 4, "--cells", 1, "--input", "3x16x16")
TOO_MANY = r"9999 threads are more than the \d+ processors? that may be used on .*; .*threads=\d+ or fewer"


@pytest.mark.parametrize("plan", [(), ("--plan",)])
def test_a_profile_with_too_many_threads_is_refused(run: Run, tmp_path: Path, plan: tuple[str, ...]) -> None:
    refused = run("profile", *SMALL, "--device", "cpu?threads=9999", "--out", tmp_path / "t.json", *plan)
    assert_one_clear_line(refused, TOO_MANY)
    assert not list(tmp_path.iterdir())


def test_a_check_with_too_many_threads_is_refused(run: Run, table_file: Path) -> None:
    table = read_table(table_file)
    quality = table.quality.model_copy(update={"sentinel_ms": 1.0})
    write_table(table_file, table.model_copy(update={"quality": quality, "provenance": "measured"}))
    refused = run("table", "check", table_file, "--device", "cpu?threads=9999", "--entries", 1)
    assert_one_clear_line(refused, TOO_MANY)


def start_line(folder: Path, threads: int, processors: set[int]) -> str:
    """Return the first line of a profiler that may use some processors only."""
    (folder / "job.json").write_text(json.dumps({**asdict(Job("cpu", threads, 1, {}, [])), "first_visit": 0}))
    command = [sys.executable, str(shipped("profilers") / "onnxruntime_cpu.py"), str(folder / "job.json")]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, processors),
    )
    return result.stdout.splitlines()[0]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_the_device_counts_the_processors_that_it_may_use(tmp_path: Path) -> None:
    """The profiler counts where it runs: over ssh these are the device's processors."""
    line = start_line(tmp_path, 2, {min(os.sched_getaffinity(0))})
    assert json.loads(line)["available"] == 1
    values = JobValues(Job("cpu", 2, 1, {}, []))
    with pytest.raises(HwnasError, match=r"2 threads are more than the 1 processor that may be used on .*threads=1 or"):
        values.add(line)
    JobValues(Job("cpu", 1, 1, {}, [])).add(line)


@pytest.mark.parametrize("known", [{}, {"available": None}, {"available": 4}])
def test_a_profiler_that_does_not_know_is_believed(tmp_path: Path, known: dict[str, int | None]) -> None:
    event = json.loads(start_line(tmp_path, 1, os.sched_getaffinity(0)))
    del event["available"]
    values = JobValues(Job("cpu", 4, 1, {}, []))
    values.add(json.dumps({**event, **known}))
    assert values.start


@pytest.mark.parametrize(
    ("files", "processors"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, None),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "50000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
            },
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_the_quota_of_a_control_group(
    files: dict[str, str], processors: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(shipped("profilers")))
    assert import_module("runner").quota(f"{tmp_path}/") == processors
