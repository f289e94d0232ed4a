"""The schema of a benchmark's files: recorded ones of older versions, damaged ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hwnas.benchmark.records import read_manifest, read_summary
from hwnas.benchmark.schema import AT_RANDOM, Result, Summary, TargetsSummary
from hwnas.errors import HwnasError
from support.paths import ROOT

RECORDED = ROOT / "benchmarks/results"
ONE, SEVERAL = RECORDED / "nasbench201", RECORDED / "real_devices"


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("file", "form"),
    [
        (ONE / "summary.json", Summary),
        (SEVERAL / "summary.json", TargetsSummary),
        (SEVERAL / "baselines.json", TargetsSummary),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_recorded_summaries_are_read_without_loss(file: Path, form: type) -> None:
    summary, content = read_summary(file, ""), read(file)
    assert type(summary) is form
    assert summary.to_json() == content
    assert not summary.model_extra
    rows = content.get("targets", [content])
    assert [row.budget.text for row in summary.rows] == [row["budget"]["text"] for row in rows]
    for row, raw in zip(summary.rows, rows, strict=True):
        assert row.reference(AT_RANDOM).to_json() == raw["references"][0]
        assert not any(method.model_extra for method in row.methods)


@pytest.mark.parametrize("folder", [ONE, SEVERAL], ids=lambda folder: folder.name)
def test_recorded_results_are_read_without_loss(folder: Path) -> None:
    for content in read(folder / "results.json"):
        result = Result.model_validate(content)
        assert result.to_json() == content
        assert not result.model_extra
        assert not result.settings.model_extra
        assert result.keeps == content.get("kept", True)


def test_older_results_keep_their_budget_by_the_predicted_costs() -> None:
    content = read(ONE / "results.json")[0]
    for params, kept in ((1e9, True), (1.0, False)):
        content["settings"]["budget"] = {"text": "x", "limits": {"params": params}}
        result = Result.model_validate(content)
        assert (result.bounds, result.keeps) == ({"params": params}, kept)


def manifest(**changes: Any) -> dict[str, Any]:
    result = read(ONE / "results.json")[0]
    content = {name: result[name] for name in ("settings", "threads", "machine")}
    return {**content, "digest": "0", "hwnas": "0.1.0", "started": "2026-01-01", **changes}


def test_a_manifest_is_read(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(manifest()))
    read_back = read_manifest(tmp_path, "")
    assert read_back.to_json() == manifest()
    assert read_back.settings.budgets[""].text == "none"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threads": 0}, "threads"),
        ({"digest": None}, "digest"),
        ({"machine": {}}, "machine.name"),
        ({"settings": {**manifest()["settings"], "budget": None}}, "settings: .*neither budget nor targets"),
        ({"settings": {**manifest()["settings"], "data": 5}}, "settings.data"),
        ({"settings": {**manifest()["settings"], "targets": [{"target": "../up"}]}}, "settings.targets.0.target"),
    ],
)
def test_a_damaged_manifest_is_one_clear_error(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(manifest(**changes)))
    with pytest.raises(HwnasError, match=rf"manifest.json is incomplete \({words}.*\); remove it"):
        read_manifest(tmp_path, "remove it")
