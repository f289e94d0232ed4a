"""Benchmarks: searches that never see the accuracies, and results compared with the published ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from hwnas.benchmark.accuracy import AccuracyTable
from hwnas.benchmark.collapse import collapse
from hwnas.benchmark.objectives import cost_models
from hwnas.compute.device import available_cores
from hwnas.cost.build import build_metrics
from hwnas.data import load_data
from hwnas.files import read_json, shipped
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count_network
from hwnas.spaces import SPACES, Setting, SizedSpace
from hwnas.spaces.encoding import decode, every_choice
from hwnas.tables.io import read_table
from support.benchmarks import PUBLISHED, needs_accuracies, search_here
from support.command import Run, assert_one_clear_line, hwnas_process, python_process
from support.paths import ROOT

SPACE = SPACES["nasbench201"]
SMALL = ("--data", "digits?size=16", "--channels", 4, "--cells", 1)
TWO_EPOCHS = ("--epochs", 2, "--jobs", max(2, available_cores()))


def test_costs_without_a_table_are_those_of_the_real_network() -> None:
    setting = Setting(channels=4, depth=1, height=16, width=16)
    costs = cost_models(SizedSpace(SPACE, setting), None)
    for choice in every_choice(SPACE)[:: 15625 // 7]:
        cell = decode(SPACE, choice)
        counted = count_network(ChildNetwork(SizedSpace(SPACE, setting), cell))
        assert costs["params"].predict(cell) == counted.params
        assert costs["macs"].predict(cell) == counted.macs_conv_linear


def test_collapse_is_a_share_of_the_edges() -> None:
    cell = "|skip_connect~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|"
    assert collapse(SPACE.parse(cell)) == {"skip_connect": 2 / 6, "without_parameters": 4 / 6}


def bench(out: Path, *others: object, accuracy: Path = PUBLISHED) -> tuple[object, ...]:
    quick = () if "--recipe" in others else ("--method", "snas", "--recipe", "snas-short", "--seeds", "0,1")
    return ("benchmark", "nasbench201", "--accuracy", accuracy, *SMALL, *quick, *others, "--out", out)


def results(out: Path, *names: str) -> list[dict]:
    return [read_json(out / name / "result.json", "") for name in names]


def workers_with(variable: str) -> list[int]:
    """Return the processes of executors that were started with NAME=VALUE in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, variables = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if b"hwnas.jobs.worker" in command and variable.encode() in variables.split(b"\0"):
            found.append(int(process.name))
    return found


HOOK = r"""
import os, sys
_log = os.open(os.path.join({folder!r}, f"{{os.getpid()}}.log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
os.write(_log, " ".join(sys.orig_argv).encode() + b"\n")
def _record(event, arguments):
    if event in ("open", "os.listdir", "os.scandir", "subprocess.Popen", "os.posix_spawn"):
        os.write(_log, repr(arguments).encode() + b"\n")
sys.addaudithook(_record)
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished benchmark of two searches, ``out``, on ``accuracies.csv.gz``. An audit hook in every process wrote to
    ``logs`` which files it opened, which folders it listed and which processes it started.
    """
    folder = tmp_path_factory.mktemp("benchmark")
    shutil.copy(PUBLISHED, folder / "accuracies.csv.gz")
    for name in ("logs", "site"):
        (folder / name).mkdir()
    (folder / "site" / "sitecustomize.py").write_text(HOOK.format(folder=str(folder / "logs")))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join([str(folder / "site"), str(ROOT)]))
        process = python_process(
            "-m", "hwnas", *bench(folder / "out", *TWO_EPOCHS, accuracy=folder / "accuracies.csv.gz")
        )
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return folder


@needs_accuracies
@pytest.mark.alone
@pytest.mark.end_to_end
@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are looked for in /proc")
def test_an_interrupted_benchmark_resumes_bit_identical(
    run: Run, tmp_path: Path, watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted by kill -9 in the first epoch and by Ctrl-C after it, with two searches at a time of one thread
    each. No search outlives its benchmark. The searches end in this process.
    """
    monkeypatch.setenv("BENCHMARK", str(tmp_path))
    arguments = bench(out := tmp_path / "out", *TWO_EPOCHS, accuracy=watched / "accuracies.csv.gz")
    checkpoint, metrics = out / "snas/seed0/checkpoint.pt", out / "snas/seed0/metrics.jsonl"
    for begun, sent in ((checkpoint.exists, signal.SIGKILL), (metrics.exists, signal.SIGINT)):
        process = hwnas_process(*arguments)
        while process.poll() is None and not begun():
            time.sleep(0.005)
        assert process.poll() is None
        assert len(workers_with(f"BENCHMARK={tmp_path}")) >= 3
        process.send_signal(sent)
        output = process.communicate()[0]
        for _ in range(600):
            if not workers_with(f"BENCHMARK={tmp_path}"):
                break
            time.sleep(0.05)
        assert not workers_with(f"BENCHMARK={tmp_path}")
        assert not (out / "snas/seed0/searched.json").exists()
        if sent == signal.SIGINT:
            assert process.returncode == 130
            assert "hwnas: interrupted" in output
            assert "Traceback" not in output
    search_here(monkeypatch)
    last = run(*arguments)
    assert last.exit_code == 0, last.output
    names = ("snas/seed0", "snas/seed1")
    for name in names:
        assert (out / name / "metrics.jsonl").read_bytes() == (watched / "out" / name / "metrics.jsonl").read_bytes()
        rows = [json.loads(line) for line in (out / name / "costs.jsonl").read_text().splitlines()]
        steps = [row["step"] for row in rows]
        per_epoch = len(load_data("digits?size=16").train) // 64
        assert steps == list(range(1, 2 * per_epoch + 1))
        for kind in ("wall_s", "processor_s"):
            seconds = [row[kind] for row in rows]
            assert seconds == sorted(seconds)
            assert read_json(out / name / "result.json", "")["search"][kind] >= seconds[-1]
    for ours, theirs in zip(results(out, *names), results(watched / "out", *names), strict=True):
        assert {**ours, "search": None} == {**theirs, "search": None}


@needs_accuracies
@pytest.mark.end_to_end
def test_no_search_reads_the_accuracies(watched: Path) -> None:
    """The benchmark's own process opens the table; those of its searches open no file of the benchmark, and their
    command does not name one.
    """
    hidden = watched / "accuracies.csv.gz"
    logs = [log.read_text() for log in (watched / "logs").iterdir()]
    (searches,) = [text for text in logs if "hwnas.jobs.worker" in text.splitlines()[0]]  # forks log together
    (benchmark,) = [text for text in logs if "benchmark nasbench201" in text.splitlines()[0]]
    assert f"('{hidden}', " in benchmark
    assert "hwnas/benchmark/search_job" in searches
    assert hidden.name not in searches
    assert "nb201_accuracy" not in searches
    assert str(watched / "out") not in searches
    for file in (watched / "out").glob("*/*/*.json*"):
        assert hidden.name not in file.read_text()


@needs_accuracies
@pytest.mark.end_to_end
@pytest.mark.parametrize("budget", ["aggressive", "40%,70%-params"])
def test_a_search_within_a_budget_keeps_it(
    run: Run,
    tmp_path: Path,
    table_file: Path,
    published: AccuracyTable,
    budget: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And regret is against the best of the cells that keep it, found here one by one."""
    search_here(monkeypatch)
    out = tmp_path / "out"
    result = run(
        *bench(out, "--seeds", "0", "--epochs", 1, "--jobs", 2, "--table", table_file, "--budget", budget, "--json")
    )
    assert result.exit_code == 0, result.output
    setting = Setting(channels=4, depth=1, height=16, width=16)
    models = build_metrics(read_table(table_file), SizedSpace(SPACE, setting))
    summary = json.loads(result.stdout)
    limits = summary["budget"]["limits"]
    cells = [decode(SPACE, choice) for choice in every_choice(SPACE)]
    predicted = {metric: models[metric].predict_many(every_choice(SPACE)) for metric in limits}
    inside = [n for n in range(len(cells)) if all(predicted[metric][n] <= bound for metric, bound in limits.items())]
    assert summary["cells_within_budget"] == len(inside) < len(cells)
    at_random = summary["references"][0]
    for found in results(out, "snas/seed0"):
        cell = SPACE.parse(found["architecture"])
        for metric, bound in limits.items():
            assert models[metric].predict(cell) <= bound
            assert found["network"][metric] == models[metric].predict(cell)
        for name in published.data_sets:
            accuracies = [published.accuracy(name, cells[n]) for n in inside]
            assert found["accuracy"][name] == published.accuracy(name, cell)
            assert found["regret"][name] == max(accuracies) - found["accuracy"][name] >= 0
            assert at_random["accuracy"][name]["mean"] == pytest.approx(np.mean(accuracies))
            assert at_random["accuracy"][name]["std"] == pytest.approx(np.std(accuracies, ddof=1))
    assert np.mean([sum(op == "skip_connect" for op in cells[n].cells[0]) / 6 for n in inside]) == pytest.approx(
        at_random["collapse"]["skip_connect"]["mean"]
    )


@pytest.mark.usefixtures("pictures")
@needs_accuracies
@pytest.mark.end_to_end
def test_methods_are_compared(
    run: Run, tmp_path: Path, published: AccuracyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two recipes under names of their own, two seeds of each; asked again, nothing is searched twice."""
    search_here(monkeypatch)
    recipe = (shipped("configs") / "search" / "snas-short.yaml").read_text()
    (tmp_path / "usual.yaml").write_text(recipe)
    (tmp_path / "hasty.yaml").write_text(recipe.replace("lr: 0.05, lr_end: 0.02", "lr: 1.0, lr_end: 1.0"))
    assert (tmp_path / "hasty.yaml").read_text() != recipe
    out = tmp_path / "out"
    asked = ("--method", "usual", "--method", "hasty", "--recipe", tmp_path / "{method}.yaml", "--seeds", "3,1")
    asked += ("--data", "digits?size=8")
    first = run(*bench(out, *asked, "--epochs", 1, "--jobs", 2))
    assert first.exit_code == 0, first.output
    summary = read_json(out / "summary.json", "")
    rows = summary["methods"]
    assert {row["method"] for row in rows} == {"usual", "hasty"}
    assert rows[0]["regret"]["cifar10"]["mean"] <= rows[1]["regret"]["cifar10"]["mean"]
    for row in rows:
        own = results(out, *(f"{row['method']}/seed{seed}" for seed in (3, 1)))
        assert row["seeds"] == [3, 1] == [result["seed"] for result in own]
        assert row["epochs"] == 1
        for name in published.data_sets:
            for what in ("accuracy", "regret"):
                values = [result[what][name] for result in own]
                assert row[what][name]["mean"] == pytest.approx(np.mean(values))
                assert row[what][name]["std"] == pytest.approx(np.std(values, ddof=1))
        for result in own:
            assert result["search"]["processor_s"] > 0
            assert 50 < result["search"]["peak_memory_mb"] < 20_000
            assert 0 <= result["validation_accuracy"] <= 1
            lines = (out / row["method"] / f"seed{result['seed']}" / "metrics.jsonl").read_text().splitlines()
            assert json.loads(lines[-1])["architecture"] == result["architecture"]
            assert result["settings"]["recipe"]["seed"] == result["seed"]
    assert (out / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    assert "percentage points" in (out / "benchmark.svg").read_text()
    again = run(*bench(out, *asked, "--epochs", 1))
    assert "4 of 4 searches are already finished" in again.stderr
    assert {**read_json(out / "summary.json", ""), "finished": None} == {**summary, "finished": None}
    assert again.stdout == first.stdout
    other = run(*bench(out, *asked, "--epochs", 2))
    assert_one_clear_line(other, "usual/seed3", "other settings", "--out")


@pytest.mark.slow
@needs_accuracies
def test_inputs_that_do_not_fit_are_refused_before_any_search(run: Run, tmp_path: Path, table_file: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "half.csv.gz").write_bytes(PUBLISHED.read_bytes()[:50_000])
    refusals: list[tuple[tuple[object, ...], tuple[str, ...]]] = [
        (bench(out, accuracy=tmp_path / "half.csv.gz"), ("half.csv.gz", "truncated")),
        (bench(out, "--budget", "mild"), ("--table and --budget",)),
        (bench(out, "--table", table_file), ("--table and --budget",)),
        (bench(out, "--table", table_file, "--budget", "1us"), ("cannot be met",)),
        (bench(out, "--seeds", "0,x"), ("seeds '0,x'",)),
        (bench(out, "--seeds", "0,0"), ("given twice",)),
        (bench(out, "--method", "snas"), ("given twice",)),
        (bench(out, "--method", "other"), ("2 methods", "{method}")),
        (bench(out, "--method", "../up", "--recipe", "snas-short"), ("not the name of a method",)),
        (bench(out, "--method", "other", "--recipe", "snas-short"), ("of method snas, not other",)),
        (bench(out, "--method", "snas", "--recipe", "none-such"), ("unknown recipe",)),
    ]
    for arguments, words in refusals:
        assert_one_clear_line(run(*arguments), *words)
        assert not list(tmp_path.glob("out/*/*/checkpoint.pt")), arguments


@needs_accuracies
@pytest.mark.end_to_end
def test_the_error_of_a_failed_search_names_it_and_the_reason(run: Run, tmp_path: Path, watched: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(watched / "out", out)
    (out / "snas/seed1/searched.json").unlink()
    (out / "snas/seed1/checkpoint.pt").write_bytes(b"nothing")
    again = run(*bench(out, *TWO_EPOCHS, accuracy=watched / "accuracies.csv.gz"))
    assert_one_clear_line(again, "snas, seed 1: checkpoint", "rm ")
