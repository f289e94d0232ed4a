"""The seconds, memory and steps that a search costs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from hwnas.benchmark.cost_meter import Cost, CostMeter, cost_until
from hwnas.errors import HwnasError


def write_costs(file: Path, meter: CostMeter, *steps: int) -> None:
    with file.open("a") as lines:
        lines.writelines(json.dumps({"step": step, **asdict(meter.total())}) + "\n" for step in steps)


def test_a_step_counts_once_however_often_a_search_is_killed(tmp_path: Path) -> None:
    """Two processes: the first is killed after step 5, with a line half written, the second begins at step 3."""
    file = tmp_path / "costs.jsonl"
    write_costs(file, CostMeter(Cost()), 1, 2, 3, 3, 4, 5)  # older benchmarks have two lines at the end of an epoch
    written = [json.loads(line) for line in file.read_text().splitlines()]
    with file.open("a") as torn:
        torn.write('{"step": 6, "wal')
    before = cost_until(file, 3)
    assert {"step": 3, **asdict(before)} == written[3]
    write_costs(file, CostMeter(before), 4)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 3, 4]
    assert rows[:4] == written[:4]
    for name in ("wall_s", "processor_s", "peak_memory_mb"):
        assert rows[4][name] >= rows[3][name]
    ended = CostMeter(cost_until(file, 4)).total()  # killed after its last step
    assert ended.wall_s > rows[4]["wall_s"]
    assert cost_until(tmp_path / "new.jsonl", 0) == Cost()
    with pytest.raises(HwnasError, match="has no line for step 9"):
        cost_until(file, 9)


def test_seconds_are_those_of_the_work() -> None:
    """Sleeping takes time by the clock, and no processor."""
    meter = CostMeter(Cost())
    time.sleep(0.2)
    slept = meter.total()
    began = time.process_time()
    while time.process_time() - began < 0.22:  # over 0.2: the kernel may count in ticks of 0.01 s
        pass
    worked = meter.total()
    assert slept.wall_s >= 0.2 > slept.processor_s
    assert worked.processor_s - slept.processor_s >= 0.2


def test_memory_is_that_of_the_process_not_of_its_parent() -> None:
    child = (
        "from hwnas.benchmark.cost_meter import peak_memory_mb as p; "
        "own = p(); held = bytearray(50 << 20); print(own, p())"
    )
    parent = f"""
import subprocess, sys
held = bytearray(400 << 20)
print(subprocess.run([sys.executable, "-c", {child!r}], check=True, capture_output=True, text=True).stdout)
"""
    said = subprocess.run([sys.executable, "-c", parent], check=True, capture_output=True, text=True)
    before, after = map(float, said.stdout.split())
    assert 1 < before < 400
    assert after - before >= 45  # of 52.4 MB, some may have been free
