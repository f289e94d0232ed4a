"""The pictures of a run show what its files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hwnas.runs.plots import (
    PlottedNetwork,
    comparable_qualities,
    draw_run,
    limit_histories,
    networks_by_device,
    pareto_front,
    quality_title,
)
from hwnas.runs.schema import SummaryRow
from hwnas.search.epoch_row import EpochRow
from hwnas.training.quality import Quality

GOOD, FAIR = Quality(0.9), Quality(0.8)

pytestmark = pytest.mark.usefixtures("pictures")

NETWORK = {
    "architecture": "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", "macs": 1, "params": 1, "limits": {},
    "validation_accuracy": 0.5, "validation_accuracy_before_training": 0.5, "child_epochs": 0,
}  # fmt: skip
ONE_DEVICE = NETWORK | {
    "device": "cpu", "budget": "mild", "budget_ms": 2.0, "predicted_ms": 1.5, "measured_ms": None, "accuracy": 0.9,
}  # fmt: skip
TWO_DEVICES = NETWORK | {
    "device": "cpu, phone", "budget": "2ms@cpu,9ms@phone", "accuracy": 0.8,
    "devices": [
        {"device": "cpu", "budget_ms": 2.0, "predicted_ms": 1.6, "measured_ms": 1.7},
        {"device": "phone", "budget_ms": 9.0, "predicted_ms": 8.0, "measured_ms": 8.5},
    ],
}  # fmt: skip


def epoch(number: int, device: str) -> dict[str, Any]:
    return {
        "epoch": number, "device": device, "budget": "mild,1M-params", "train_loss": 1.0, "validation_accuracy": 0.5,
        "expected_cost": {}, "expected_over_budget": {"latency_ms": 1 + number, "params": 0.5}, "entropy": 1.0,
        "lambda": {"latency_ms": 0.1 * number, "params": 0.0}, "architecture": NETWORK["architecture"],
    }  # fmt: skip


def test_a_network_is_in_the_panel_of_each_of_its_devices() -> None:
    panels = networks_by_device([SummaryRow.model_validate(row) for row in (ONE_DEVICE, TWO_DEVICES)])
    joint = str(TWO_DEVICES["budget"])
    assert panels == {
        "cpu": [PlottedNetwork("mild", 1.5, False, 2.0, GOOD), PlottedNetwork(joint, 1.7, True, 2.0, FAIR)],
        "phone": [PlottedNetwork(joint, 8.5, True, 9.0, FAIR)],
    }


def test_the_pareto_front_excludes_beaten_networks() -> None:
    points = [(3.0, 0.9), (1.0, 0.7), (2.0, 0.6), (1.0, 0.65), (4.0, 0.9)]
    networks = [PlottedNetwork(str(n), ms, True, None, Quality(accuracy)) for n, (ms, accuracy) in enumerate(points)]
    assert [network.budget for network in pareto_front(networks)] == ["1", "0"]


def test_of_text_the_least_perplexity_is_on_the_front() -> None:
    """The shares of words that are right say the opposite."""
    points = [(3.0, 90.0, 0.1), (1.0, 120.0, 0.3), (2.0, 150.0, 0.4), (4.0, 90.0, 0.5)]
    networks = [PlottedNetwork(str(n), ms, True, None, Quality(a, p)) for n, (ms, p, a) in enumerate(points)]
    assert [network.budget for network in pareto_front(networks)] == ["1", "0"]
    rows = [SummaryRow.model_validate(ONE_DEVICE | {"perplexity": perplexity}) for perplexity in (90.0, 120.0)]
    tested, qualities = comparable_qualities(rows)
    assert [quality.number for quality in qualities] == [90.0, 120.0]
    assert quality_title(qualities[0], tested) == "test perplexity, the less the better, of the ONNX file"


def test_pictures_are_drawn_from_the_summary_and_the_metrics(tmp_path: Path) -> None:
    rows = [epoch(number, device) for number in (1, 2) for device in ("cpu", "phone")]
    histories = limit_histories([EpochRow.model_validate(row) for row in rows])
    assert [history.label for history in histories] == [
        f"{device}, mild,1M-params: {metric}" for device in ("cpu", "phone") for metric in ("latency_ms", "params")
    ]
    assert histories[0].epochs == (1, 2)
    assert histories[0].over_budget == (2, 3)
    assert histories[0].multiplier == (0.1, 0.2)
    (tmp_path / "summary.json").write_text(json.dumps({"targets": [ONE_DEVICE, TWO_DEVICES]}))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    draw_run(tmp_path)
    for name in ("targets.png", "search.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
