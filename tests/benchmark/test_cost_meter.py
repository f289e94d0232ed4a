"""The seconds, memory and steps that a search costs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hwnas.benchmark.cost_meter import CostMeter
from hwnas.errors import HwnasError


def test_a_step_counts_once_however_often_a_search_is_killed(tmp_path: Path) -> None:
    """Two processes: the first is killed after step 5, with a line half written, the second begins at step 3."""
    file = tmp_path / "costs.jsonl"
    first = CostMeter(file)
    for step in (1, 2, 3, 3, 4, 5):  # 3 is the end of an epoch
        first.record(step)
    written = [json.loads(line) for line in file.read_text().splitlines()]
    with file.open("a") as torn:
        torn.write('{"step": 6, "wal')
    second = CostMeter(file)
    second.record(4)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 3, 4]
    assert rows[:4] == written[:4]
    for name in ("wall_s", "processor_s", "peak_memory_mb"):
        assert rows[4][name] >= rows[3][name]
    ended = CostMeter(file).total(4)  # killed after its last step
    assert ended.wall_s > rows[4]["wall_s"]
    assert CostMeter(tmp_path / "new.jsonl").total(0).wall_s > 0
    with pytest.raises(HwnasError, match="has no line for step 9"):
        CostMeter(file).total(9)


def test_seconds_are_those_of_the_work(tmp_path: Path) -> None:
    """Sleeping takes time by the clock, and no processor."""
    meter = CostMeter(tmp_path / "costs.jsonl")
    time.sleep(0.2)
    slept = meter.total(0)
    began = time.process_time()
    while time.process_time() - began < 0.2:
        pass
    worked = meter.total(0)
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
