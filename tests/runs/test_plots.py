"""What a run's pictures show is what its files say."""

from __future__ import annotations

import json
from pathlib import Path

from hwnas.runs.plots import Network, draw_run, networks_by_device, pareto_front, search_lines

ALONE = {
    "device": "cpu", "budget": "mild", "budget_ms": 2.0, "predicted_ms": 1.5, "measured_ms": None, "accuracy": 0.9,
}  # fmt: skip
JOINT = {
    "device": "cpu, phone", "budget": "2ms@cpu,9ms@phone", "accuracy": 0.8,
    "devices": [
        {"device": "cpu", "budget_ms": 2.0, "predicted_ms": 1.6, "measured_ms": 1.7},
        {"device": "phone", "budget_ms": 9.0, "predicted_ms": 8.0, "measured_ms": 8.5},
    ],
}  # fmt: skip


def test_networks_stand_in_the_panels_of_their_devices() -> None:
    panels = networks_by_device([ALONE, JOINT])
    assert panels == {
        "cpu": [Network("mild", 1.5, False, 2.0, 0.9), Network(JOINT["budget"], 1.7, True, 2.0, 0.8)],
        "phone": [Network(JOINT["budget"], 8.5, True, 9.0, 0.8)],
    }


def test_the_front_leaves_out_what_another_beats() -> None:
    made = [Network(str(n), ms, True, None, accuracy) for n, (ms, accuracy) in
            enumerate([(3.0, 0.9), (1.0, 0.7), (2.0, 0.6), (1.0, 0.65), (4.0, 0.9)])]  # fmt: skip
    assert [network.budget for network in pareto_front(made)] == ["1", "0"]


def test_lines_are_those_of_the_metrics_and_both_pictures_are_written(tmp_path: Path) -> None:
    rows = [
        {"epoch": epoch, "device": device, "budget": "mild,1M-params", "expected_over_budget": {"latency_ms": 1 + epoch,
         "params": 0.5}, "lambda": {"latency_ms": 0.1 * epoch, "params": 0.0}}
        for epoch in (1, 2) for device in ("cpu", "phone")
    ]  # fmt: skip
    lines = search_lines(rows)
    assert [line.label for line in lines] == [
        f"{device}, mild,1M-params: {metric}" for device in ("cpu", "phone") for metric in ("latency_ms", "params")
    ]
    assert lines[0].epochs == (1, 2)
    assert lines[0].over_budget == (2, 3)
    assert lines[0].multiplier == (0.1, 0.2)
    (tmp_path / "summary.json").write_text(json.dumps({"targets": [ALONE, JOINT]}))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    draw_run(tmp_path)
    for name in ("targets.png", "search.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
