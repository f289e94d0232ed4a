"""Every chart is a valid specification by the schema of Vega-Lite, which comes with Altair."""

from __future__ import annotations

from typing import Any

import pytest
from altair.vegalite.v6.schema.core import load_schema
from jsonschema import Draft7Validator

from hwnas.report import charts
from hwnas.tables.plot import Panel

COLOURS = {"a": "#0072b2", "b": "#d55e00"}
NETWORKS = [
    {"label": label, "latency_ms": 1.0, "accuracy": 0.5, "budget_ms": 2.0, "least_ms": 0.9, "most_ms": 1.1}
    | {"measured": label == "a", "href": "#a", "tip": label, "budget_tip": ""}
    for label in COLOURS
]
SEEDS = [{"label": "a", "seed": 0, "value": 1.0, "x": 1.0, "y": 2.0, "href": "#a", "tip": "a"}]
EPOCHS = [{"label": "a", "epoch": epoch, "y": y, "tip": ""} for epoch, y in ((1, 0.5), (2, None))]
SHARES = [{"edge": "0→1", "op": "a", "order": 0, "epoch": 1, "probability": 1.0, "tip": ""}]
TIMES = [{"label": "a", "what": "measured", "ms": 1.0, "least_ms": 0.9, "most_ms": 1.1, "tip": ""}]
TABLE = Panel("table", "ms", ["conv", "pool"], ["8, 4x4", "8, 2x2"], [[1.0, 0.0], [0.25, None]])
CHARTS: dict[str, tuple[Any, ...]] = {
    "pareto": (NETWORKS, NETWORKS[:1], COLOURS, "phone", ("accuracy", "test accuracy"), (300, 200)),
    "lines": (EPOCHS, "loss", COLOURS, 1.0, True),
    "probabilities": (SHARES, COLOURS, ["0→1"]),
    "heat_map": (TABLE, (0.25, 1.0), 1e3),
    "additivity": ([{"label": "a", "predicted_ms": 1.0, "measured_ms": 1.1, "tip": ""}], COLOURS),
    "predictions": ([{"predicted": -1.0, "value": -1.1, "least": -1.2, "most": -0.8, "role": "a", "tip": ""}], ["a"]),
    "verification": (TIMES, ["a"]),
    "strip": (SEEDS, SEEDS, SEEDS, "regret", ["a"], True),
    "scatter": ({"cifar10": (SEEDS, SEEDS)}, COLOURS, "seconds", True),
}


@pytest.fixture(scope="module")
def schema() -> Draft7Validator:
    return Draft7Validator(load_schema())


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_valid_vega_lite(name: str, schema: Draft7Validator, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict[str, Any]] = []
    monkeypatch.setattr(charts, "draw", drawn.append)
    getattr(charts, name)(*CHARTS[name])
    (spec,) = drawn
    schema.validate({"config": charts.CONFIG, **spec})
    assert not schema.is_valid({"config": charts.CONFIG, **spec, "width": "wide"})
