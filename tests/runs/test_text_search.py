"""A recurrent cell from a search to a trained, evaluated and reported network, by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwnas.spaces import SizedSpace
from hwnas.tables.io import write_table
from support.command import Run, assert_one_clear_line, invoke
from support.tables import of_this_machine
from support.text import RECURRENT, WORDS, small_sized, write_text

QUICK = ("--epochs", 2, "--child-epochs", 1, "--batch-size", 8)


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, str]:
    """A made-up table of this machine for the words of a small text, and the text."""
    write_table(tmp_path / "table.json", of_this_machine(small_sized()))
    return tmp_path / "table.json", f"text:{write_text(tmp_path / 'small.txt')}?window=5"


@pytest.mark.end_to_end
def test_a_cell_is_searched_trained_evaluated_and_reported(tmp_path: Path, run: Run, inputs: tuple[Path, str]) -> None:
    table, text = inputs
    out = tmp_path / "a"
    searched = run("search", "--table", table, "--data", text, "--method", "advantagenas", *QUICK, "--out", out)
    assert searched.exit_code == 0, searched.output
    assert "test perplexity" in searched.output
    (row,) = json.loads((out / "summary.json").read_text())["targets"]
    assert row["perplexity"] > 1
    assert row["parity"]["greatest_difference"] < 1e-4
    assert (out / "moderate" / "cells" / "cell.onnx").exists()
    trained = run("train", out, "--recipe", "text", "--epochs", 2)
    assert trained.exit_code == 0, trained.output
    assert "validation perplexity" in trained.output
    evaluated = run("evaluate", out, "--json")
    assert evaluated.exit_code == 0, evaluated.output
    (scores,) = json.loads(evaluated.stdout)["targets"]
    assert scores["onnx_perplexity"] == pytest.approx(scores["torch_perplexity"], rel=1e-4)
    (after,) = json.loads((out / "summary.json").read_text())["targets"]
    assert scores["onnx_perplexity"] == pytest.approx(after["perplexity"], rel=1e-6)
    derived = run("derive", out, "--top", 2)
    assert derived.exit_code == 0, derived.output
    reported = run("report", out, "--out", tmp_path / "report.html")
    assert reported.exit_code == 0, reported.output
    page = (tmp_path / "report.html").read_text()
    assert "validation perplexity" in page
    assert "has a perplexity of" in page
    assert "accuracy" not in page
    assert "images" not in page
    again = run("search", "--table", table, "--data", text, "--method", "advantagenas", *QUICK, "--out", out)
    assert again.exit_code == 0, again.output


@pytest.mark.end_to_end
def test_what_words_and_images_do_not_share_is_refused(tmp_path: Path, run: Run, inputs: tuple[Path, str]) -> None:
    table, text = inputs
    asked = ("search", "--table", table, "--out", tmp_path / "b", *QUICK)
    assert_one_clear_line(run(*asked), "space recurrent reads text, and digits is images", "text:FOLDER")
    assert_one_clear_line(run(*asked, "--data", text, "--finalists", 4), "finalists is for networks of images")
    assert_one_clear_line(run(*asked, "--data", text, "--baselines"), "the search has none; leave them out")
    assert_one_clear_line(run(*asked, "--data", text, "--search-input", "3x8x8"), "the shape of images, and text:.* is")
    assert_one_clear_line(run(*asked, "--data", text, "--recipe", "snas"), "drop_path is for networks of images")
    out = tmp_path / "c"
    done = run("search", "--table", table, "--data", text, *QUICK, "--out", out)
    assert done.exit_code == 0, done.output
    (tmp_path / "cutout.yaml").write_text("base: text\ncutout: 8\n")
    trained = run("train", out, "--recipe", tmp_path / "cutout.yaml")
    assert_one_clear_line(trained, "cutout is for networks of images", "--recipe text")
    assert_one_clear_line(
        run("derive", out, "--pareto", "accuracy"), "finalists, which only networks of images can have"
    )
    assert_one_clear_line(run("prune", out, "--budget", "50%-macs"), "channels of convolutions are pruned")
    assert_one_clear_line(run("export", out, "--quantize", "int8"), "networks in int8 are of images")
    assert_one_clear_line(run("export", out, "--format", "litert"), "reads words, and only networks of images")
    assert_one_clear_line(run("evaluate", out, "--confusion", tmp_path / "c.csv"), "confusion matrices")
    for word, problem in (("zebra", "the vocabulary of .* is not that of the network"), ("", "of 12 different words")):
        (tmp_path / "other.txt").write_text((tmp_path / "small.txt").read_text().replace("cat", word))
        other = run("evaluate", out, "--data", f"text:{tmp_path / 'other.txt'}?window=5")
        assert_one_clear_line(other, problem)


def test_a_runtime_without_words_is_refused(tmp_path: Path) -> None:
    for device in ("cpu+litert", "cpu?precision=int8"):
        result = invoke("profile", "--device", device, "--space", "recurrent", "--out", tmp_path / "t.json")
        assert_one_clear_line(result, "networks of space recurrent read words")


def test_export_without_a_search(tmp_path: Path) -> None:
    sizes = ("--space", "recurrent", "--channels", 8, "--classes", len(WORDS))
    cell = "|tanh~0|+|relu~0|none~1|+|none~0|none~1|sigmoid~2|"
    result = invoke("export", "--architecture", cell, *sizes, "--out", tmp_path / "cell.onnx")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "cell.onnx").exists()
    assert SizedSpace.named(RECURRENT).setting.classes == 10_000
