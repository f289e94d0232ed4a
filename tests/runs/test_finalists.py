"""A whole search with finalists and baselines: its summary, its files, its page."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from hwnas.cli import app
from hwnas.runs.schema import SCHEMA_FILE
from hwnas.spaces import NASBENCH201, SizedSpace
from hwnas.tables.io import write_table
from support.benchmarks import search_here
from support.command import Run, assert_one_clear_line
from support.few_digits import FEW_DIGITS
from support.json_files import content_of
from support.spaces import SMALL
from support.tables import make_table

FINALISTS = "{trainings: 4, rounds: 2, candidates: 4, epochs: 1, last: 1, last_epochs: 1, batch_size: 32}"
SEARCH = (
    "--data",
    FEW_DIGITS,
    "--epochs",
    "1",
    "--child-epochs",
    "0",
    "--batch-size",
    "32",
    "--channels",
    "4",
    "--layers",
    "1",
)
BUDGETS = ("--budget", "moderate", "--budget", "mild")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search for two budgets whose finalists are trained beside baselines."""
    folder = tmp_path_factory.mktemp("finalists")
    write_table(folder / "board.json", make_table(SizedSpace(NASBENCH201, SMALL["nasbench201"])))
    (folder / "recipe.yaml").write_text(f"base: snas-short\nfinalists: {FINALISTS}\n")
    inputs = ("--table", str(folder / "board.json"), "--recipe", str(folder / "recipe.yaml"), *SEARCH, *BUDGETS)
    with pytest.MonkeyPatch.context() as patched:
        search_here(patched)
        result = CliRunner().invoke(app, ["search", *inputs, "--baselines", "--out", str(folder / "run")])
    assert result.exit_code == 0, result.output
    assert "baselines (random, most MACs, most parameters): " in result.stderr
    assert "within the same budget, all trained as the finalists were, for 2 epochs" in result.stdout
    return folder / "run"


@pytest.mark.end_to_end
def test_the_summary_compares_the_network_found_with_baselines(searched: Path) -> None:
    summary, finalists = content_of(searched / "summary.json"), content_of(searched / "finalists.json")
    longer = {row["architecture"]: row for row in finalists["trainings"] if row["stage"] == "last"}
    for row in summary["targets"]:
        compared = {network["name"]: network for network in row["comparison"]}
        assert list(compared) == ["found", "random", "most MACs", "most parameters"]
        found = compared["found"]
        assert (found["architecture"], found["macs"], found["params"]) == tuple(
            row[name] for name in ("architecture", "macs", "params")
        )
        assert found["predicted_ms"] == {"board": row["predicted_ms"]}
        assert found["share"] == row["predicted_ms"] / row["budget_ms"]
        for name, network in compared.items():
            assert network["share"] <= 1
            assert network["validation_accuracy"] == longer[network["architecture"]]["validation_accuracy"]
            assert network["is_found"] == (network["architecture"] == row["architecture"])
            if name not in ("found", "random"):
                assert f"{row['target']}: {name}" in longer[network["architecture"]]["baselines"]
        assert compared["most MACs"]["macs"] == max(network["macs"] for network in compared.values())
        assert "comparison" not in content_of(searched / row["target"] / "architecture.json")


@pytest.mark.end_to_end
def test_the_trainings_say_why_they_were_made(searched: Path) -> None:
    found = content_of(searched / "finalists.json")
    schema = content_of(SCHEMA_FILE)
    Draft202012Validator(schema["$defs"]["FinalistsFile"] | {"$defs": schema["$defs"]}).validate(found)
    first = [row for row in found["trainings"] if row["stage"] == "first"]
    assert {row["round"] for row in first} >= {1, 2}
    for row in first:
        assert (row["predicted"] is None) == (row["round"] == 1)
        assert row["targets"] or row["baselines"]
        assert row["value"] == -row["validation_loss"]
    assert len(found["round_agreement"]) == 2
    assert found["round_agreement"][0] is None  # there is no model before the first round
    assert found["validation_images"] == 64


@pytest.mark.end_to_end
def test_the_page_shows_finalists_and_baselines(run: Run, searched: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert run("report", searched, "--out", page).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("The network found beside baselines within its budget") == 2
    summary, finalists = content_of(searched / "summary.json"), content_of(searched / "finalists.json")
    for row in summary["targets"]:
        for network in row["comparison"]:
            assert f'<td class="n">{network["validation_accuracy"]:.1%}</td>' in text
    for row in finalists["trainings"]:
        assert f"<code>{row['architecture']}</code>" in text
    numbers = content_of(tmp_path / "report_files" / "report.json")
    assert numbers["runs"][0]["finalists"] == finalists
    figures = sorted(file.name for file in (tmp_path / "report_files").glob("*-finalists.json"))
    assert len(figures) == 2
    for name in figures:
        for point in content_of(tmp_path / "report_files" / name)["data"]:
            (row,) = [
                row
                for row in finalists["trainings"]
                if row["architecture"] == point["architecture"] and row["stage"] == "first"
            ]
            assert (point["predicted"], point["value"]) == (row["predicted"], row["value"])
            assert point["most"] - point["predicted"] == pytest.approx(row["deviation"])


@pytest.mark.end_to_end
def test_the_front_of_predicted_accuracy_is_derived_for_any_table(run: Run, searched: Path, tmp_path: Path) -> None:
    done = run("derive", searched, "--pareto", "accuracy", "--budget", "80%-params", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    finalists = content_of(searched / "finalists.json")
    assert found["trainings"] == sum(row["stage"] == "first" for row in finalists["trainings"])
    (table,) = found["tables"]
    assert (table["table"], found["epochs"], table["whole"]) == ("board", 1, True)
    points = table["points"]
    for earlier, later in pairwise(points):
        assert earlier["accuracy"] < later["accuracy"]
        assert earlier["latency_ms"] < later["latency_ms"]
    for point in points:
        assert 0 < point["accuracy_low"] < point["accuracy"] < point["accuracy_high"] < 1
        assert point["params"] <= table["limits"]["params"]

    other = make_table(SizedSpace.named(NASBENCH201))
    write_table(tmp_path / "phone.json", other)
    tables = ("--table", tmp_path / "phone.json", "--table", searched.parent / "board.json")
    done = run("derive", searched, "--pareto", "accuracy", *tables, "--plot", tmp_path / "front.png")
    assert done.exit_code == 0, done.output
    assert "phone lacks the run's target network" in done.stderr
    for name in ("phone", "board"):
        assert f"{name}: validation accuracy after 1 epochs, predicted from" in done.stdout
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--table", "t.json"), "--table belongs to --pareto accuracy"),
        (("--pareto", "accuracy", "--points", 1), "the number of points must be at least 2, not 1"),
        (("--pareto", "accuracy"), "has no finalists, from which accuracy is predicted; search with finalists"),
    ],
)
def test_a_front_that_cannot_be_derived_is_one_clear_error(
    run: Run, searched: Path, tmp_path: Path, options: tuple[object, ...], problem: str
) -> None:
    folder = Path(shutil.copytree(searched, tmp_path / "run"))
    (folder / "finalists.json").unlink()
    assert_one_clear_line(run("derive", folder, *options), problem)


def test_baselines_without_finalists_are_one_clear_error(run: Run, tmp_path: Path) -> None:
    write_table(tmp_path / "board.json", make_table(SizedSpace(NASBENCH201, SMALL["nasbench201"])))
    inputs = ("--table", tmp_path / "board.json", *SEARCH)
    done = run("search", *inputs, "--baselines", "--out", tmp_path / "run")
    assert_one_clear_line(done, "baselines are trained as finalists are, and the search has none", "--finalists")
