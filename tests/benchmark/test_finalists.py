"""A benchmark whose searches train finalists: it shows how far they are, and resumes without repeating any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ablation import regrets
from hwnas.benchmark import searches
from hwnas.benchmark.accuracy import read_accuracy
from hwnas.files import shipped
from support.benchmarks import PUBLISHED, needs_accuracies, search_here
from support.command import Run
from support.json_files import content_of

FINALISTS = "{trainings: 3, rounds: 1, candidates: 3, epochs: 1, last: 1, last_epochs: 1, depth: 1, baselines: true}"
pytestmark = [needs_accuracies, pytest.mark.end_to_end]


def test_an_interrupted_benchmark_repeats_no_finalist(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after two of its trainings, it ends with the same bits as one that was not."""
    (tmp_path / "recipe.yaml").write_text(f"base: snas-short\nfinalists: {FINALISTS}\n")
    table = shipped("latency_tables") / "published-pixel3.json"
    arguments = (
        "benchmark", "nasbench201", "--method", "snas", "--recipe", tmp_path / "recipe.yaml", "--epochs", 1,
        "--seeds", 0, "--data", "python:support.few_digits:few_digits", "--search-channels", 4, "--search-cells", 1,
        "--table", table, "--budget", "moderate", "--accuracy", PUBLISHED, "--jobs", 1, "--out",
    )  # fmt: skip
    search_here(monkeypatch)
    whole = run(*arguments, tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    assert "snas, seed 0: training finalists, first: 3/3" in whole.stderr

    write, written = searches._write, []

    def interrupt(folder: Path, update: Any) -> None:
        write(folder, update)
        if update.finalists and update.finalists.files:
            written.append(update)
            if len(written) == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(searches, "_write", interrupt)
        assert run(*arguments, tmp_path / "resumed").exit_code == 130
    folder, first = tmp_path / "resumed/snas/seed0", tmp_path / "whole/snas/seed0"
    kept = {file: file.stat().st_mtime_ns for file in (folder / "finalists").iterdir()}
    assert len(kept) == 2
    resumed = run(*arguments, tmp_path / "resumed")
    assert resumed.exit_code == 0, resumed.output
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    ours, theirs = ({file.name: file.read_bytes() for file in (f / "finalists").iterdir()} for f in (folder, first))
    assert ours == theirs
    (searched,) = folder.glob("**/searched.json")
    found, expected = content_of(searched), content_of(first / searched.relative_to(folder))
    assert sum(found["finalists"]["trained"].values()) == len(ours)
    assert {**found, "search": None} == {**expected, "search": None}
    costs = [json.loads(line) for line in (folder / "costs.jsonl").read_text().splitlines()]
    seconds = [row["processor_s"] for row in costs]
    assert seconds == sorted(seconds)
    assert found["search"]["processor_s"] >= seconds[-1]

    result = content_of(searched.parent / "result.json")
    assert set(result["choices"]) == {"logits", "supernet", "scores", "finalists"}
    by_choice = regrets([result], read_accuracy(str(PUBLISHED)))
    assert by_choice["chosen"] == [result["regret"]["cifar10"]]
    assert all(0 <= value <= 100 for values in by_choice.values() for value in values)  # all are within the budget
