"""A benchmark of several devices and budgets in one search, with a supernet smaller than the network of the budgets."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from hwnas.benchmark.objectives import read_objectives
from hwnas.benchmark.plan import BenchmarkPlan, BenchmarkRun, prepare_runs
from hwnas.benchmark.records import read_manifest
from hwnas.benchmark.schema import Result, Searched, SearchManifest, TargetsSummary
from hwnas.budgets.budget import NAMED
from hwnas.cli import app
from hwnas.cost.build import build_metrics
from hwnas.files import read_json, shipped
from hwnas.progress import Progress
from hwnas.runs.request import SearchSizes
from hwnas.spaces import SPACES, Setting, SizedSpace
from hwnas.spaces.encoding import every_choice
from hwnas.tables.io import read_table
from hwnas.validation import Record
from support.benchmarks import search_here
from support.command import Run, assert_one_clear_line
from support.pages import Page, check_pictures, check_tame, report
from support.paths import SHARED

SPACE = SPACES["nasbench201"]
ACCURACY, LATENCY = SHARED / "nb201_accuracy.csv.gz", SHARED / "nb201_latency_ms.csv.gz"
pytestmark = [
    pytest.mark.skipif(not LATENCY.exists() or not ACCURACY.exists(), reason=f"{LATENCY} is not there"),
    pytest.mark.end_to_end,
]
FULL = SizedSpace.named(SPACE, "cifar")
DEVICES = {"published-pixel3": "pixel3", "published-1080ti-1": "1080ti_1"}
TABLES = [option for name in DEVICES for option in ("--table", shipped("latency_tables") / f"{name}.json")]
SEARCH = (
    "benchmark", "nasbench201", "--method", "snas", "--recipe", "snas-short", "--epochs", 1, "--seeds", "0,1",
    "--data", "digits?size=8", "--search-channels", 4, "--search-cells", 1, "--jobs", 2, "--accuracy", ACCURACY,
)  # fmt: skip
BUDGETS = ("--budget", "moderate", "--budget", "aggressive")


@pytest.fixture(scope="module")
def benched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished benchmark of two seeds for two budgets on two devices."""
    out = tmp_path_factory.mktemp("targets") / "out"
    arguments = (*SEARCH, *TABLES, *BUDGETS, "--latency", LATENCY, "--out", out)
    with pytest.MonkeyPatch.context() as monkeypatch:
        search_here(monkeypatch)
        result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    (out.parent / "printed.txt").write_text(result.stdout)
    return out


def measured() -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Return the latencies in ms of every cell by column, and the accuracies on cifar10."""
    import csv
    import gzip

    with gzip.open(LATENCY, "rt") as file:
        latencies = {row.pop("arch"): {name: float(ms) for name, ms in row.items()} for row in csv.DictReader(file)}
    with gzip.open(ACCURACY, "rt") as file:
        return latencies, {row["arch"]: float(row["cifar10"]) for row in csv.DictReader(file)}


def test_every_budget_on_every_device_is_a_target_of_each_search(benched: Path) -> None:
    """Budgets are those of the full network's table; whether a cell keeps them is decided by the measured latencies."""
    summary = read_json(benched / "summary.json", "")
    assert (summary["setting"]["channels"], summary["setting"]["depth"], summary["setting"]["height"]) == (4, 1, 8)
    assert (summary["target_setting"]["channels"], summary["target_setting"]["depth"]) == (16, 5)
    latencies, accuracy = measured()
    assert [(t["device"], t["budget"]["text"]) for t in summary["targets"]] == [
        (device, budget) for device in DEVICES for budget in BUDGETS[1::2]
    ]
    for target in summary["targets"]:
        model = build_metrics(read_table(shipped("latency_tables") / f"{target['device']}.json"), FULL)["latency_ms"]
        limit = float(np.percentile(model.predict_many(every_choice(SPACE)), NAMED[target["budget"]["text"]]))
        assert target["budget"]["limits"] == {"latency_ms": pytest.approx(limit)}
        ms = {cell: row[DEVICES[target["device"]]] for cell, row in latencies.items()}
        median = float(np.median([*ms.values()]))
        known = {cell: value for cell, value in ms.items() if value > 0.05 * median}
        best = max(accuracy[cell] for cell, value in known.items() if value <= limit)
        found = [read_json(benched / "snas" / f"seed{s}" / target["target"] / "result.json", "") for s in (0, 1)]
        for result in found:
            cell = result["architecture"]
            assert result["network"]["latency_ms"] == pytest.approx(model.predict(SPACE.parse(cell)))
            assert result["network"]["latency_ms"] <= limit
            assert result["regret"]["cifar10"] == pytest.approx(best - accuracy[cell])
            assert result["costs"]["latency_ms"] == known.get(cell)
            assert result["kept"] == (known[cell] <= limit if cell in known else None)
            assert result["share"] == (pytest.approx(known[cell] / limit) if cell in known else None)
        (row,) = target["methods"]
        assert row["regret"]["cifar10"]["mean"] == pytest.approx(np.mean([r["regret"]["cifar10"] for r in found]))
        assert row["regret"]["cifar10"]["std"] == pytest.approx(np.std([r["regret"]["cifar10"] for r in found], ddof=1))
        kept = [result["kept"] for result in found]
        assert row["kept"] == {"yes": kept.count(True), "no": kept.count(False), "not_measured": kept.count(None)}
    assert summary["overall"][0]["regret"]["cifar10"] == pytest.approx(
        np.mean([t["methods"][0]["regret"]["cifar10"]["mean"] for t in summary["targets"]])
    )


def test_targets_share_a_search(benched: Path) -> None:
    """One row an epoch and target, one list of costs, and nothing about the truth in the folder of a search."""
    folder = benched / "snas/seed0"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    targets = [t["target"] for t in read_json(benched / "summary.json", "")["targets"]]
    assert [row["target"] for row in rows] == targets
    assert len(list(folder.rglob("costs.jsonl"))) == 1
    searches = [read_json(folder / target / "searched.json", "")["search"] for target in targets]
    assert all(search == searches[0] for search in searches)
    manifest = (folder / "manifest.json").read_text()
    assert "nb201" not in manifest
    assert {file.stem for file in (folder / "tables").iterdir()} == set(DEVICES)


def test_files_fit_the_schema_and_are_read_without_loss(benched: Path) -> None:
    search = benched / "snas/seed0"
    files: dict[Path, type[Record]] = {
        benched / "summary.json": TargetsSummary,
        search / "manifest.json": SearchManifest,
    }
    for target in read_manifest(search, "").settings.budgets:
        files |= {search / target / "searched.json": Searched, search / target / "result.json": Result}
    assert len(files) == 10
    for file, model in files.items():
        content = json.loads(file.read_text())
        record = model.model_validate(content)
        assert record.to_json() == content, file
        assert not record.model_extra, file


def test_the_printed_table_has_methods_beside_baselines(benched: Path) -> None:
    printed = (benched.parent / "printed.txt").read_text()
    summary = read_json(benched / "summary.json", "")
    for column in ("snas", "used", "kept", "random", "best of 10", "most MACs", "most params"):
        assert column in printed
    for target in summary["targets"]:
        regret = target["methods"][0]["regret"]["cifar10"]
        lines = [row for row in printed.splitlines() if row.split()[:2] == [target["device"], target["budget"]["text"]]]
        line = lines[0]  # of the first data set
        assert f"{regret['mean']:.2f} ± {regret['std']:.2f}" in line
        for row in target["references"][:-1]:
            assert f"{row['regret']['cifar10']['mean']:.2f} (" in line
    assert "measured latencies decide" in printed


def test_a_finished_benchmark_is_judged_again_without_a_search(run: Run, benched: Path, tmp_path: Path) -> None:
    """Without the measured latencies, the tables decide: every cell keeps its budget."""
    out = Path(shutil.copytree(benched, tmp_path / "out"))
    again = run(*SEARCH, *TABLES, *BUDGETS, "--out", out)
    assert again.exit_code == 0, again.output
    assert "2 of 2 searches are already finished" in again.stderr
    summary = read_json(out / "summary.json", "")
    assert summary["latency"] is None
    assert all(t["methods"][0]["kept"] == {"yes": 2, "no": 0, "not_measured": 0} for t in summary["targets"])
    other = run(*SEARCH, *TABLES, *BUDGETS, "--out", out, "--search-channels", 5)
    assert_one_clear_line(other, "snas/seed0", "other settings", "--out")


def test_one_target_is_judged_by_latencies_too(
    run: Run, benched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the cell that the search for several targets found."""

    def take(runs: Sequence[BenchmarkRun], *_: object) -> None:
        for one in runs:
            shutil.copy(benched / "snas/seed0/published-pixel3_moderate/searched.json", one.folder)

    monkeypatch.setattr("hwnas.benchmark.benchmark.run_searches", take)
    out = tmp_path / "out"
    done = run(*SEARCH, *TABLES[:2], "--budget", "moderate", "--latency", LATENCY, "--out", out)
    assert done.exit_code == 0, done.output
    (target,) = read_json(out / "summary.json", "")["targets"]
    result = read_json(out / "snas/seed0/result.json", "")
    expected = read_json(benched / "snas/seed0/published-pixel3_moderate/result.json", "")
    for name in ("architecture", "costs", "kept", "share", "regret", "network"):
        assert result[name] == expected[name]
    assert target["methods"][0]["regret"]["cifar10"] == {"mean": result["regret"]["cifar10"], "std": 0}
    report(run, out, out=tmp_path / "page.html")
    assert "tables/published-pixel3.json" in (tmp_path / "page.html").read_text()
    assert (tmp_path / "page_files/tables/published-pixel3.json").exists()


@pytest.mark.parametrize(
    "budgets", [["moderate"], ["mild", "1M-params"], ["15ms@published-pixel3,9ms@published-1080ti-1", "aggressive"]]
)
def test_a_search_gets_the_objectives_that_were_planned(tmp_path: Path, budgets: list[str]) -> None:
    """Through its manifest, also for one network on several devices."""
    names = list(DEVICES)[: 1 if budgets == ["moderate"] else 2]
    tables = {name: read_table(shipped("latency_tables") / f"{name}.json") for name in names}
    sizes = SearchSizes(channels=4, depth=1)
    plan = BenchmarkPlan(["snas"], [0], "digits?size=16", FULL, "snas-short", {}, tables, budgets, sizes)
    with Progress() as progress:
        prepared = prepare_runs(plan, tmp_path, 1, progress)
    (one,) = prepared.runs
    settings = read_manifest(one.folder, "").settings
    assert Setting(**(settings.target_setting or {})) == prepared.target.setting == FULL.setting
    read = read_objectives(settings, prepared.inputs.tables, prepared.target)
    assert len(read) == len(prepared.objectives) == {1: 1, 2: 4 if "mild" in budgets else 3}[len(names)]
    choices = every_choice(SPACE)[::1000]
    for planned, again in zip(prepared.objectives, read, strict=True):
        assert (again.target, again.budget) == (planned.target, planned.budget)
        for metric in planned.budget.limits:
            ours, theirs = (one.costs[metric].predict_many(choices).tolist() for one in (planned, again))
            assert ours == theirs


def record(folder: Path, out: Path) -> Path:
    """Write a benchmark in the form that ``benchmarks/results`` has."""
    out.mkdir()
    shutil.copy(folder / "summary.json", out)
    results = [read_json(path, "") for path in sorted(folder.glob("*/seed*/*/result.json"))]
    (out / "results.json").write_text(json.dumps(results))
    return out


@pytest.mark.slow
def test_the_page_agrees_with_the_files(run: Run, benched: Path, tmp_path: Path) -> None:
    summary = read_json(benched / "summary.json", "")
    for folder, name in ((benched, "folder"), (record(benched, tmp_path / "recorded"), "recorded")):
        report(run, folder, out=tmp_path / f"{name}.html")
        text, files = (tmp_path / f"{name}.html").read_text(), tmp_path / f"{name}_files"
        page = Page(text)
        check_tame(page)
        found = {f"{t['target']}-snas-{seed}-cell" for t in summary["targets"] for seed in (0, 1)}
        maps = {f"{device}-table-1" for device in DEVICES} if name == "folder" else set()
        assert check_pictures(files) == {f"regret-{data_set}" for data_set in summary["data_sets"]} | found | maps
        content = read_json(files / "report.json", "")["benchmark"]
        assert content["summary"] == summary
        assert len(content["results"]) == 8
        assert f"snas {summary['overall'][0]['regret']['cifar10']:.2f}" in content["answer"]
        kept = sum(result["kept"] is True for result in content["results"])
        assert re.search(
            rf"{kept} of the 8 cells found( \(\d not measured\))? keep their budgets, as measured", content["answer"]
        )
        broken = sum(result["kept"] is False for result in content["results"])
        assert len(re.findall('<td class="n bad">NO</td>', text)) == broken
        drawn = read_json(files / "regret-cifar10.json", "")["data"]
        assert [row["value"] for row in drawn["means"]] == [row["regret"]["cifar10"] for row in summary["overall"]]
        (line,) = content["commands"]
        for option in ("--search-channels=4", "--search-cells=1", "--channels=16", "--cells=5", "--budget=aggressive"):
            assert option in line
        assert (files / "tables/published-pixel3.json").exists() == (name == "folder")


def damage_results(results: list[dict[str, Any]]) -> Any:
    results[0]["regret"]["cifar10"] += 1
    return results


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda results: results[1:], "not of the same methods, seeds and targets"),
        (lambda results: {}, "is no list of results"),
        (damage_results, "they differ in the mean regret of snas on published-1080ti-1 within aggressive"),
        (lambda results: [{**results[0], "accuracy_sha256": "0"}, *results[1:]], "differ in the accuracy table"),
        (lambda results: [{**results[0], "target": "../up"}, *results[1:]], r"result 1 of .* is incomplete \(target"),
    ],
)  # fmt: skip
def test_a_damaged_benchmark_gives_one_clear_error(
    run: Run, benched: Path, tmp_path: Path, change: Any, words: str
) -> None:
    folder = record(benched, tmp_path / "recorded")
    file = folder / "results.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    assert_one_clear_line(run("report", folder, "--out", tmp_path / "page.html"), words)
