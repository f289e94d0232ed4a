"""The profile of search steps: its times add up, and it changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from hwnas.training.gpu_busy import covered
from hwnas.training.step_profile import SPANS, STEPS, span, started, stop, table_of
from support.command import Run
from support.searches import FEW_SEARCH, fingerprint

SHORT = ("--epochs", 3, "--child-epochs", 0, "--batch-size", 24, "--budget", "mild")


@pytest.mark.end_to_end
def test_a_profile_adds_up_and_changes_nothing(run: Run, tmp_path: Path, table_file: Path) -> None:
    """Compare the spans of both kinds of steps, before and after the logits' warm-up, with the times in the trace."""
    command = ("search", "--table", table_file, *FEW_SEARCH, *SHORT)
    assert run(*command, "--out", tmp_path / "plain").exit_code == 0
    result = run(*command, "--profile", "--out", tmp_path / "profiled")
    assert result.exit_code == 0, result.output
    assert fingerprint(tmp_path / "profiled", "mild") == fingerprint(tmp_path / "plain", "mild")

    folder = tmp_path / "profiled" / "profile"
    tables = json.loads((folder / "steps.json").read_text())
    assert set(tables) == {"weights alone", "weights and logits"}
    for kind, table in tables.items():
        assert f"profile of {STEPS} steps, {kind}: " in result.stderr
        events = json.loads((folder / table["trace"]).read_text())["traceEvents"]
        spans = {name: [e for e in events if e["name"] == f"hwnas: {name}" and e["ph"] == "X"] for name in SPANS}
        steps = [e for e in events if e["name"] == "hwnas: step" and e["ph"] == "X"]
        assert len(steps) == table["steps"] == STEPS
        assert table["step_ms"] == pytest.approx(sum(e["dur"] for e in steps) / STEPS / 1e3, rel=0.01)
        rows = {row["part"]: row for row in table["parts"]}
        assert set(rows) == {*SPANS, "rest"} - {"averaging"}
        assert sum(row["share"] for row in rows.values()) == pytest.approx(1)
        for name in set(rows) - {"rest"}:
            assert rows[name]["ms"] == pytest.approx(
                sum(e["dur"] for e in spans[name]) / STEPS / 1e3, rel=0.01, abs=0.01
            )
            assert rows[name]["calls"] == len(spans[name]) / STEPS >= 1
        inside = {
            name: [e for e in events if e["name"] == name] for name in ("aten::conv2d", "aten::cross_entropy_loss")
        }
        assert all(any(within(e, span) for span in spans["forward"]) for e in inside["aten::cross_entropy_loss"])
        assert rows["rest"]["ms"] >= 0
        assert table["evaluation_ms"] > 0
        assert any("convolution" in row["operator"] for row in table["operators"])


def within(event: dict, span: dict) -> bool:
    return span["ts"] <= event["ts"] <= event["ts"] + event["dur"] <= span["ts"] + span["dur"]


@pytest.mark.end_to_end
def test_a_search_of_too_few_steps_logs_that(run: Run, tmp_path: Path, table_file: Path) -> None:
    short = ("--epochs", 1, "--child-epochs", 0, "--batch-size", 96, "--budget", "mild")
    result = run("search", "--table", table_file, *FEW_SEARCH, *short, "--profile", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "too few steps for a profile" in result.stderr
    assert not (tmp_path / "run" / "profile").exists()


def test_overlapping_kernels_count_once_and_only_inside_steps() -> None:
    """Two kernels at once, one that crosses the end of a step, one of the evaluation."""
    kernels = [(5.0, 9.0), (1.0, 3.0), (2.0, 4.0), (9.5, 12.0), (14.0, 20.0)]
    assert covered(kernels, [(0.0, 4.0), (4.0, 10.0)]) == 3 + 4 + 0.5
    assert covered([], [(0.0, 1.0)]) == 0


def test_kernels_of_a_gpu_make_its_share_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """With events as torch's profiler has them on a GPU, where a span has a second row on the device."""

    def event(name: str, device: DeviceType, start: float, end: float) -> SimpleNamespace:
        times = SimpleNamespace(start=start, end=end)
        return SimpleNamespace(name=name, device_type=device, time_range=times)

    profiler = started()
    for _ in range(2):
        with span("step"), span("forward"):
            torch.ones(8).relu()
    stop(profiler)
    steps = [e for e in profiler.events() if e.name == "hwnas: step"]
    first = steps[0].time_range
    kernels = [event("hwnas: step", DeviceType.CUDA, first.start, first.end)]
    kernels += [event("gemm", DeviceType.CUDA, first.start, first.end)]
    monkeypatch.setattr(profiler, "events", lambda: [*steps, *kernels])
    table = table_of(profiler)
    assert table.gpu_ms == pytest.approx((first.end - first.start) / 2 / 1e3)
    assert table.gpu_ms < table.step_ms
    assert any(line.startswith("  GPU at work") for line in table.describe("weights"))
